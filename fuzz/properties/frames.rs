//! Frames of a client, to the real server and to `tungstenite`: both must answer the same, with the
//! exceptions in [`EXCEPTIONS`]. Cuts and a slow reader change no byte.

use std::io::{self, Read, Write};

use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};
use wspulse::limits::EMPTY_FRAGMENTS;
use wspulse::proto::frame::Fault;

use super::input::{self, Cuts, Source};
use super::oracle::{self, Last, Limits, Wrong};
use super::output::{self, Frame};
use super::session::{End, Pace, Session};

const INPUT_MAX: usize = 4 * 1024;
/// The longest stream that an input may build.
const STREAM_MAX: usize = 300 * 1024;
/// Longer streams are not tried byte by byte.
const BYTEWISE_MAX: usize = 600;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const UPGRADE: &[u8] =
    b"GET /echo HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// The limits of a message: small, medium, around the size of the read buffer, and around the size
/// from which memory is mapped.
const MESSAGE_MAX: [usize; 4] = [125, 4_000, 70_000, 200_000];

/// See the module's head. After the cuts comes a byte: bit 0 builds the stream from a list of
/// frames, bits 1–2 choose the limit, the others are how slowly the peer reads.
pub fn frames(data: &[u8]) {
    let (cuts, rest) = input::cuts(&data[..data.len().min(INPUT_MAX)]);
    let mut source = Source(rest);
    let style = source.byte();
    let limit = MESSAGE_MAX[usize::from(style >> 1 & 3)];
    let pace = match style >> 3 {
        0 => Pace::Eager,
        slow => Pace::Slow(usize::from(slow) * usize::from(slow) * 64),
    };
    let stream = if style & 1 == 0 { source.0.to_vec() } else { built(&mut source, limit) };
    let bytes = [UPGRADE, &stream].concat();
    let (answer, hung_up) = ours(&bytes, &cuts, pace, limit);
    let mut others = vec![ours(&bytes, &Cuts::none(), Pace::Eager, limit)];
    if stream.len() <= BYTEWISE_MAX {
        others.push(ours(&bytes, &Cuts::everywhere(), Pace::Eager, limit));
    }
    for other in others {
        let same = other.0 == answer && other.1 == hung_up;
        assert!(same, "cut at {cuts:?}, {pace:?}: {} and {} bytes", answer.len(), other.0.len());
    }
    let ours = Answer::ours(&answer);
    assert_eq!(hung_up, ours.verdict != Verdict::Open, "{:?}", ours.verdict);
    compare(&stream, limit, &ours);
}

/// A stream from a list of frames: its first byte, its shape, its length, its payload.
fn built(source: &mut Source<'_>, limit: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    while !source.is_empty() && stream.len() < STREAM_MAX {
        let first = source.byte();
        let shape = source.byte();
        let length = match shape & 3 {
            0 => usize::from(source.byte()),
            1 => usize::from(source.word()),
            2 => usize::from(source.word()) * 4,
            _ => edge(source.byte(), limit),
        };
        let pattern = if shape & 4 == 0 { source.take(4) } else { source.take(length.min(255)) };
        let length = if shape & 4 == 0 { length } else { pattern.len() };
        let length = length.min(STREAM_MAX);
        let times = match shape >> 3 & 3 {
            0 | 1 => 1,
            2 => usize::from(source.byte()),
            _ => usize::from(EMPTY_FRAGMENTS) + usize::from(source.byte() & 3),
        };
        let mut frame = Vec::new();
        header(&mut frame, first, length, shape);
        let pattern = if pattern.is_empty() { &b"a"[..] } else { pattern };
        let masked = shape & 0x20 == 0;
        let mask = if masked { MASK } else { [0; 4] };
        let payload = pattern.iter().cycle().take(length).zip(mask.iter().cycle());
        frame.extend(payload.map(|(byte, key)| byte ^ key));
        for _ in 0..times {
            if stream.len() < STREAM_MAX {
                stream.extend_from_slice(&frame);
            }
        }
    }
    stream
}

/// Boundary lengths.
fn edge(which: u8, limit: usize) -> usize {
    const EDGES: [usize; 12] =
        [0, 1, 125, 126, 8_192, 8_193, 65_522, 65_535, 65_536, 131_061, 131_062, 131_073];
    match usize::from(which) {
        which @ 0..12 => EDGES[which],
        which => (limit + which % 4).saturating_sub(2),
    }
}

/// Bit 5 of the shape omits the mask, bit 6 encodes the length longer than necessary.
fn header(frame: &mut Vec<u8>, first: u8, length: usize, shape: u8) {
    let masked = if shape & 0x20 == 0 { 0x80 } else { 0 };
    let wider = usize::from(shape >> 6 & 1);
    let form = wider + usize::from(length > 125) + usize::from(length > 0xffff);
    frame.push(first);
    match form {
        0 => frame.push(masked | length as u8),
        1 => {
            frame.push(masked | 0x7e);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            frame.push(masked | 0x7f);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if masked != 0 {
        frame.extend_from_slice(&MASK);
    }
}

/// A server's answer to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    answers: Vec<Frame>,
    verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It waits for more input.
    Open,
    /// It answered the peer's Close with this code and reason.
    Closed(u16, Vec<u8>),
    /// It closed for this fault.
    Fault(Wrong),
}

/// The output, and whether the server has closed. How much later input it still reads depends on
/// the cuts.
fn ours(bytes: &[u8], cuts: &Cuts, pace: Pace, limit: usize) -> (Vec<u8>, bool) {
    let mut session = Session::new(Some(limit), pace);
    for part in cuts.parts(bytes) {
        session.send(part);
    }
    session.drain();
    let answer = (std::mem::take(&mut session.output), session.end != End::Open);
    session.hang_up();
    answer
}

impl Answer {
    fn ours(output: &[u8]) -> Self {
        let output = output::after_upgrade(output).expect("the upgrade is valid");
        let (mut answers, rest) = output::frames(output);
        assert_eq!(rest, 0, "an incomplete frame is sent");
        let verdict = match answers.pop_if(|last| matches!(last, Frame::Close(..))) {
            Some(Frame::Close(code, reason)) => Verdict::Closed(code, reason),
            _ => Verdict::Open,
        };
        Self { answers, verdict }
    }

    fn theirs(stream: &[u8], limit: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(4096)
            .max_message_size(Some(limit))
            .max_frame_size(Some(limit));
        let mut socket = WebSocket::from_raw_socket(Wire(stream), Role::Server, Some(config));
        let mut answers = Vec::new();
        let verdict = loop {
            match socket.read() {
                Ok(Message::Text(text)) => answers.push(Frame::Text(text.as_bytes().to_vec())),
                Ok(Message::Binary(bytes)) => answers.push(Frame::Binary(bytes.to_vec())),
                Ok(Message::Ping(bytes)) => answers.push(Frame::Pong(bytes.to_vec())),
                Ok(Message::Pong(_)) => {}
                Ok(Message::Close(Some(frame))) => {
                    break Verdict::Closed(frame.code.into(), frame.reason.as_bytes().to_vec());
                }
                Ok(Message::Close(None)) => break Verdict::Closed(1005, Vec::new()),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    break Verdict::Open;
                }
                Err(Error::Protocol(_)) => break Verdict::Fault(Wrong::Protocol),
                Err(Error::Utf8(_)) => break Verdict::Fault(Wrong::Utf8),
                Err(Error::Capacity(_)) => break Verdict::Fault(Wrong::TooBig),
                other => panic!("tungstenite says {other:?}"),
            }
        };
        Self { answers, verdict }
    }
}

/// The stream that tungstenite reads; its output is discarded.
struct Wire<'b>(&'b [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(buffer) }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A case in which two correct servers answer differently.
struct Case<'c> {
    /// After all of its bytes.
    last: &'c Last,
    ours: Wrong,
    theirs: &'c Answer,
    answers: usize,
}

/// A name, and whether it applies.
type Exception = (&'static str, fn(&Case<'_>) -> bool);

const EXCEPTIONS: &[Exception] = &[
    // RFC 6455 §5.2: "the minimal number of bytes MUST be used". Tungstenite accepts any.
    ("wasteful length", |case| case.ours == Wrong::Protocol && case.last.wasteful_length),
    // A limit that tungstenite does not have.
    ("empty fragments", |case| case.ours == Wrong::EmptyFragments),
    // Which of several faults of one frame is reported depends on the order of the checks.
    ("several faults", |case| {
        let theirs = match case.theirs.verdict {
            Verdict::Fault(wrong) => Some(wrong),
            // Tungstenite's answer to an invalid code.
            Verdict::Closed(1002, _) => Some(Wrong::Protocol),
            Verdict::Closed(..) | Verdict::Open => None,
        };
        case.answers == case.theirs.answers.len()
            && theirs.is_some_and(|theirs| case.last.wrong.contains(&theirs))
    }),
];

/// Compares our answer with theirs, and with the faults that the oracle finds in the last frame.
fn compare(stream: &[u8], limit: usize, ours: &Answer) {
    let limits = Limits { message: limit, empty_fragments: usize::from(EMPTY_FRAGMENTS) };
    let last = oracle::last_frame(stream, limits);
    let Some(wrong) = our_fault(&last, &ours.verdict) else {
        let mut theirs = Answer::theirs(stream, limit);
        if last.close_code == Some(1014) {
            // In IANA's registry, unknown to tungstenite: it answers 1002.
            theirs.verdict = ours.verdict.clone();
        }
        assert_same(ours, &theirs, &last);
        return;
    };
    assert!(last.wrong.contains(&wrong), "{:?}: the faults are {last:?}", ours.verdict);
    // Tungstenite checks a frame when it is complete; we, as early as possible. So tungstenite gets
    // the rest of the frame, with any content.
    let stream = completed(stream, limits);
    let theirs = Answer::theirs(&stream, limit);
    let same_so_far = theirs.answers.iter().zip(&ours.answers).all(|(their, our)| their == our);
    assert!(same_so_far && theirs.answers.len() >= ours.answers.len(), "{ours:?}\n{theirs:?}");
    if theirs.verdict == Verdict::Fault(wrong) && theirs.answers.len() == ours.answers.len() {
        return;
    }
    let answers = ours.answers.len();
    let whole = oracle::last_frame(&stream, limits);
    let case = Case { last: &whole, ours: wrong, theirs: &theirs, answers };
    let named = EXCEPTIONS.iter().find(|(_, holds)| holds(&case));
    assert!(named.is_some(), "{:?}\n{:?}\n{whole:?}", ours.verdict, theirs.verdict);
}

/// The fault that our Close reports, unless it answers the peer's Close.
fn our_fault(last: &Last, verdict: &Verdict) -> Option<Wrong> {
    let Verdict::Closed(code, reason) = verdict else {
        assert!(last.wrong.is_empty(), "open in spite of {:?}", last.wrong);
        return None;
    };
    if last.wrong.is_empty() {
        return None;
    }
    let wrong = match code {
        1002 => Wrong::Protocol,
        1007 => Wrong::Utf8,
        1008 => Wrong::EmptyFragments,
        1009 => Wrong::TooBig,
        other => panic!("{other} is not the code of a fault"),
    };
    assert!(FAULTS.iter().any(|f| f.close_code() == *code && f.reason().as_bytes() == reason));
    Some(wrong)
}

const FAULTS: [Fault; 13] = [
    Fault::Unmasked,
    Fault::ReservedBits,
    Fault::ReservedOpcode,
    Fault::ControlFragmented,
    Fault::ControlTooLong,
    Fault::LengthInvalid,
    Fault::ContinuationAlone,
    Fault::MessageInsideMessage,
    Fault::CloseTruncated,
    Fault::CloseCodeInvalid,
    Fault::Utf8,
    Fault::TooBig,
    Fault::EmptyFragments,
];

fn assert_same(ours: &Answer, theirs: &Answer, last: &Last) {
    assert!(ours == theirs, "{ours:?}\n{theirs:?}\n{last:?}");
}

/// The stream with its last frame completed, unless that frame exceeds every limit.
fn completed(stream: &[u8], limits: Limits) -> Vec<u8> {
    let mut stream = stream.to_vec();
    loop {
        let missing = oracle::last_frame(&stream, limits).missing;
        if missing == 0 || missing > limits.message {
            return stream;
        }
        stream.resize(stream.len() + missing, 0);
    }
}

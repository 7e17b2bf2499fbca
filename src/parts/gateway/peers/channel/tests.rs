//! What a stranger, a replay and a damaged wire can do to a peer connection: end it.

use super::*;

fn keys(bytes: &[u8]) -> PeerKeys {
    let lines: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}").repeat(32)).collect();
    PeerKeys::parse(lines.join("\n").as_bytes()).unwrap()
}

const BOOT: Boot = Boot([1; 8]);

/// Both ends of a connection, and all that was sent over it.
struct Pair {
    keys: PeerKeys,
    dialler: Dialler,
    acceptor: Acceptor,
    requests: Vec<u8>,
    answers: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let keys = keys(&[1]);
        let dialler = Dialler::new(keys.first().clone(), BOOT, [2; 16]);
        let acceptor = Acceptor::new(BOOT, [3; 16]);
        let mut pair = Self { keys, dialler, acceptor, requests: vec![], answers: vec![] };
        pair.dialler.hello(&mut pair.requests);
        pair
    }

    /// What the dialler has sent reaches the owner, who answers each message by `echo` and itself.
    fn serve(&mut self, bytes: &[u8]) -> Result<Vec<u8>, ChannelFault> {
        let mut out = Vec::new();
        let mut echo = |message: &[u8]| Some([b"echo ", message].concat());
        self.acceptor.received(&self.keys, bytes, &mut out, &mut echo)?;
        Ok(out)
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ChannelFault> {
        let mut heard = Vec::new();
        self.dialler.received(bytes, &mut |message| {
            heard.push(message.to_vec());
            true
        })?;
        Ok(heard)
    }

    /// Until both sides are open.
    fn open(mut self) -> Self {
        let hello = std::mem::take(&mut self.requests);
        self.answers = self.serve(&hello).unwrap();
        let greeting = self.answers.clone();
        assert_eq!(self.hear(&greeting), Ok(vec![]));
        self.dialler.confirm(&mut self.requests);
        let first = self.requests.clone();
        assert_eq!(self.serve(&first), Ok(vec![]));
        assert!(self.dialler.is_open() && self.acceptor.is_authenticated());
        self
    }

    fn say(&mut self, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.dialler.seal(&[message], &mut out);
        out
    }
}

#[test]
fn requests_are_answered_however_they_are_cut() {
    for cut in [1, 2, 3, 7, 40, 1_000] {
        let mut pair = Pair::new();
        let hello = std::mem::take(&mut pair.requests);
        let mut answers = Vec::new();
        for part in hello.chunks(cut) {
            answers.extend(pair.serve(part).unwrap());
        }
        assert_eq!(answers.len(), GREETING_BYTES);
        for part in answers.chunks(cut) {
            assert_eq!(pair.hear(part), Ok(vec![]));
        }
        let mut requests = Vec::new();
        pair.dialler.confirm(&mut requests);
        requests.extend(pair.say(b"one"));
        requests.extend(pair.say(&vec![7; REQUEST_BYTES_MAX]));
        let mut answers = Vec::new();
        for part in requests.chunks(cut) {
            let mut shorten = |message: &[u8]| Some(message[..3].to_vec());
            let keys = pair.keys.clone();
            pair.acceptor.received(&keys, part, &mut answers, &mut shorten).unwrap();
        }
        let mut heard = Vec::new();
        for part in answers.chunks(cut) {
            heard.extend(pair.hear(part).unwrap());
        }
        assert_eq!(heard, [b"one".to_vec(), vec![7; 3]]);
        assert!(pair.acceptor.held_bytes() <= IDLE_BUFFER_BYTES);
    }
}

/// A scanner, an HTTP client, a peer without the key, a peer of another version: the port says
/// nothing to them.
#[test]
fn nothing_is_answered_without_a_seal() {
    let stranger = Dialler::new(keys(&[9]).first().clone(), BOOT, [2; 16]);
    let mut wrong_key = Vec::new();
    stranger.hello(&mut wrong_key);
    let mut hello = Vec::new();
    Pair::new().dialler.hello(&mut hello);
    let mut wrong_tag = hello.clone();
    wrong_tag[33] ^= 1;
    let mut other_version = hello.clone();
    other_version[0] = 2;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00",
        &[VERSION; HELLO_BYTES],
        &wrong_key,
        &wrong_tag,
        &other_version,
    ] {
        let mut acceptor = Acceptor::new(BOOT, [3; 16]);
        let (keys, mut out) = (keys(&[1]), Vec::new());
        let how = acceptor.received(&keys, bytes, &mut out, &mut |_| None);
        assert!(how.is_err(), "{bytes:?}");
        assert_eq!(out, b"");
    }
}

/// Every bit matters, in the handshake and in frames.
#[test]
fn a_changed_byte_ends_the_connection() {
    let mut open = Pair::new().open();
    let frame = open.say(b"message");
    for at in 0..frame.len() {
        let mut pair = Pair::new().open();
        drop(pair.say(b"message"));
        let mut changed = frame.clone();
        changed[at] ^= 0x40;
        let how = pair.serve(&changed);
        // A length that is too short to be complete waits for more, up to the limit.
        assert!(how.is_err() || (at < 4 && how == Ok(vec![])), "{at}");
    }
    for at in 0..GREETING_BYTES {
        let mut pair = Pair::new();
        let hello = pair.requests.clone();
        let mut greeting = pair.serve(&hello).unwrap();
        greeting[at] ^= 1;
        assert_eq!(pair.hear(&greeting), Err(ChannelFault::Forged));
    }
}

#[test]
fn nothing_can_be_replayed() {
    let mut pair = Pair::new().open();
    let frame = pair.say(b"once");
    let answer = pair.serve(&frame).unwrap();
    assert_eq!(pair.hear(&answer).unwrap(), [b"echo once"]);
    // Into the same connection, and back to where it came from.
    assert_eq!(pair.serve(&frame), Err(ChannelFault::Forged));
    assert_eq!(pair.hear(&answer), Err(ChannelFault::Forged));
    let mut pair = Pair::new().open();
    let frame = pair.say(b"once");
    assert_eq!(pair.hear(&frame), Err(ChannelFault::Forged));
    // A whole connection into another one: the owner's random differs, so nothing is opened.
    let mut acceptor = Acceptor::new(BOOT, [4; 16]);
    let mut hello = Vec::new();
    pair.dialler.hello(&mut hello);
    let (mut out, keys) = (Vec::new(), pair.keys.clone());
    acceptor.received(&keys, &hello, &mut out, &mut |_| None).unwrap();
    let mut first = Vec::new();
    Pair::new().open().dialler.confirm(&mut first);
    let how = acceptor.received(&keys, &first, &mut out, &mut |_| panic!("a message"));
    assert_eq!(how, Err(ChannelFault::Forged));
    assert!(!acceptor.is_authenticated());
    // After a restart of the owner: another boot, even with the same random.
    let mut acceptor = Acceptor::new(Boot([9; 8]), [3; 16]);
    let mut greeting = Vec::new();
    acceptor.received(&keys, &hello, &mut greeting, &mut |_| None).unwrap();
    let how = acceptor.received(&keys, &first, &mut out, &mut |_| panic!("a message"));
    assert_eq!(how, Err(ChannelFault::Forged));
    assert_eq!(Pair::new().hear(&greeting), Err(ChannelFault::OtherBoot));
}

/// Somebody who knows an old hello gets a greeting, and can make the owner keep nothing.
#[test]
fn an_unproven_dialler_sends_nothing_long() {
    let mut pair = Pair::new();
    let hello = pair.requests.clone();
    pair.serve(&hello).unwrap();
    assert_eq!(pair.serve(&[0, 0, 0, 17]), Err(ChannelFault::TooLong));
    let mut pair = Pair::new().open();
    assert_eq!(pair.serve(&[0, 2, 2, 2]), Err(ChannelFault::TooLong));
    assert_eq!(Pair::new().open().serve(&[0, 0, 0, 3, 1, 2, 3]), Err(ChannelFault::Forged));
    assert_eq!(Pair::new().open().hear(&[0, 0, 9, 9]), Err(ChannelFault::TooLong));
}

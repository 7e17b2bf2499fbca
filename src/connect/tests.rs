//! Sessions in virtual time, with a server and a terminal that take all, or nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::*;
use crate::engine::Engine;
use crate::outbox::Blocks;
use crate::proto::frame;
use crate::time::ms;

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// An open session.
struct Session {
    connect: Connect,
    now_ns: u64,
    /// The server takes what is sent.
    reads: bool,
    /// What the terminal shows.
    shown: Vec<u8>,
    /// The first bytes of the frames that the server got.
    got: Vec<u8>,
    exit: Option<u8>,
}

pub(super) fn plan() -> Plan {
    Plan {
        targets: vec![Target::Tcp(([127, 0, 0, 1], 1).into())],
        url: "ws://h".to_owned(),
        ask: Ask { host: "h".to_owned(), path: "/".to_owned(), ..Ask::default() },
        wait_ms: None,
        ping_ms: None,
        code: 1000,
        reason: String::new(),
        patience_ms: 10_000,
        prompt: None,
    }
}

fn message(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write_message(&mut bytes, Kind::Text, text.as_bytes());
    bytes
}

impl Session {
    fn open(plan: Plan) -> Self {
        let now = Now { mono_ns: ms(1_000), wall_ms: 0 };
        let connect = Connect::new(plan, 1, now);
        let (shown, got) = (Vec::new(), Vec::new());
        let mut session =
            Self { connect, now_ns: now.mono_ns, reads: true, shown, got, exit: None };
        let (server, mut out) = (session.connect.server(), Out::default());
        session.connect.connected(session.now(), TERMINAL, Ok(()), &mut out);
        session.connect.connected(session.now(), server, Ok(()), &mut out);
        let request = String::from_utf8(out.bytes).unwrap();
        let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap().lines().next().unwrap();
        let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
        let response = format!(
            "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        session.server_sends(response.as_bytes());
        assert!(matches!(session.connect.stage, Stage::Open));
        session
    }

    fn now(&self) -> Now {
        Now { mono_ns: self.now_ns, wall_ms: 0 }
    }

    fn take(&mut self, id: Id, out: &mut Out) {
        if id == TERMINAL {
            self.shown.append(&mut out.bytes);
        } else if self.reads {
            let mut bytes = &out.bytes[..];
            while let [first, length, ..] = *bytes {
                self.got.push(first);
                bytes = &bytes[6 + usize::from(length & 0x7f)..];
            }
        } else {
            self.connect.to_server.keep(out, &[], 0, &mut Blocks::default(), 0);
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.connect.poll() {
            match action {
                Action::Write(id) => {
                    let mut out = Out::default();
                    self.connect.render(self.now(), id, &mut out);
                    self.take(id, &mut out);
                }
                Action::Close(TERMINAL) => self.connect.closed(self.now(), TERMINAL),
                Action::Exit(code) => self.exit = Some(code),
                _ => {}
            }
        }
    }

    fn server_sends(&mut self, bytes: &[u8]) {
        let (id, mut out, mut shared) = (self.connect.server(), Out::default(), bytes.to_vec());
        self.connect.received(self.now(), id, bytes.len(), &mut shared, &mut out);
        self.take(id, &mut out);
        self.act();
    }

    fn types(&mut self, text: &str) {
        let mut shared = text.as_bytes().to_vec();
        self.connect.received(self.now(), TERMINAL, text.len(), &mut shared, &mut Out::default());
        self.act();
    }

    fn types_the_end(&mut self) {
        self.connect.ended(self.now(), TERMINAL, HangUp::Eof, &mut Out::default());
        self.act();
    }

    /// What the terminal got since the last call.
    fn text(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.shown)).unwrap()
    }

    fn wait_until(&mut self, at_ms: u64) {
        self.now_ns = ms(at_ms);
        self.connect.fire(self.now());
        self.act();
    }
}

/// Pongs, and our own pings, were queued until memory ran out.
#[test]
fn a_server_that_pings_and_does_not_read() {
    let pings = [&[0x89, 125][..], &[b'x'; 125]].concat().repeat(500);
    let mut session = Session::open(Plan { ping_ms: Some(1), ..plan() });
    session.reads = false;
    for at_ms in 1_000..20_000 {
        session.wait_until(at_ms);
        if at_ms < 1_100 {
            session.server_sends(&pings);
        }
    }
    let queued = session.connect.to_server.len();
    assert!((1_000..100_000).contains(&queued), "{queued}");
    // Once it reads, its pings are answered again.
    let server = session.connect.server();
    while !session.connect.unsent(server).is_empty() {
        let piece = session.connect.unsent(server).len();
        session.connect.sent(session.now(), server, piece);
    }
    session.reads = true;
    session.server_sends(b"\x89\x00");
    assert_eq!(session.got.pop(), Some(talk::PONG));
}

/// A greeting, or an unsolicited message, counted as the answer to the only line.
#[test]
fn a_greeting_is_no_answer() {
    let mut session = Session::open(plan());
    session.types("one\n");
    session.types_the_end();
    session.server_sends(&message("hello"));
    session.server_sends(&[&[0x8a, 8][..], &FIRST_PING].concat());
    session.server_sends(&message("randping"));
    assert_eq!(session.got, [talk::PING, talk::TEXT]);
    session.server_sends(&message("answer to one"));
    assert_eq!(session.got, [talk::PING, talk::TEXT, talk::CLOSE]);
    // Nor does it delay the end if there is no line, or the server answers no Ping.
    let mut session = Session::open(plan());
    session.types_the_end();
    assert_eq!(session.got, [talk::PING, talk::CLOSE]);
    let mut session = Session::open(plan());
    session.types("one\n");
    session.types_the_end();
    session.server_sends(&message("answer to one"));
    session.wait_until(1_999);
    assert_eq!(session.got, [talk::PING, talk::TEXT]);
    session.wait_until(2_000);
    assert_eq!(session.got, [talk::PING, talk::TEXT, talk::CLOSE]);
}

/// What a terminal shows: as much of xterm as `print` needs.
struct Display {
    rows: Vec<Vec<char>>,
    size: Screen,
    at: (usize, usize),
    saved: (usize, usize),
}

impl Display {
    fn of(size: Screen) -> Self {
        Self { rows: vec![Vec::new(); size.rows.into()], size, at: (0, 0), saved: (0, 0) }
    }

    fn down(&mut self) {
        self.at.0 += 1;
        if self.at.0 == self.rows.len() {
            self.rows.remove(0);
            self.rows.push(Vec::new());
            self.at.0 -= 1;
        }
    }

    fn show(&mut self, text: &str) {
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\n' => {
                    self.at.1 = 0;
                    self.down();
                }
                '\r' => self.at.1 = 0,
                '\x1b' => self.escape(&mut chars),
                c => {
                    if self.at.1 == usize::from(self.size.columns) {
                        self.at.1 = 0;
                        self.down();
                    }
                    let row = &mut self.rows[self.at.0];
                    row.resize(row.len().max(self.at.1 + 1), ' ');
                    row[self.at.1] = c;
                    self.at.1 += 1;
                }
            }
        }
    }

    fn escape(&mut self, chars: &mut std::str::Chars<'_>) {
        let last = self.rows.len() - 1;
        let mut number = String::new();
        match chars.next() {
            Some('7') => return self.saved = self.at,
            Some('8') => return self.at = self.saved,
            other => assert_eq!(other, Some('[')),
        }
        loop {
            let c = chars.next().unwrap();
            let count = number.parse().unwrap_or(1);
            match c {
                '0'..='9' => number.push(c),
                'A' => break self.at.0 = self.at.0.saturating_sub(count),
                'B' => break self.at.0 = last.min(self.at.0 + count),
                'K' => break self.rows[self.at.0].truncate(self.at.1),
                'L' => {
                    for _ in 0..count {
                        self.rows.insert(self.at.0, Vec::new());
                        self.rows.pop();
                    }
                    break;
                }
                other => panic!("{other}"),
            }
        }
    }

    fn text(&self) -> String {
        let rows: Vec<String> = self.rows.iter().map(|row| row.iter().collect()).collect();
        rows.join("\n")
    }
}

/// A message wrapped into the row with the half-typed line.
#[test]
fn long_messages_leave_the_line_that_is_typed() {
    for (rows, above) in [(12, 2), (12, 9), (6, 2), (40, 30)] {
        let size = Screen { columns: 20, rows };
        let mut session = Session::open(Plan { prompt: Some("> "), ..plan() });
        session.connect.sized(TERMINAL, size);
        let mut display = Display::of(size);
        (0..above).for_each(|_| display.show("earlier\n"));
        display.show(&session.text());
        display.show("half typed");
        for number in 0..3 {
            let long = format!("{number}{}end", "0123456789".repeat(4));
            session.server_sends(&message(&long));
            display.show(&session.text());
            display.show("!");
            let (shown, typed) = (display.text(), "!".repeat(number + 1));
            let rows = format!(
                "\n< {number}01234567890123456\n78901234567890123456\n789end\n> half typed{typed}"
            );
            assert!(shown.trim_end().ends_with(&rows), "{shown}");
        }
        // One that is longer than the screen is shown in full.
        session.server_sends(&message(&"0123456789".repeat(2 * usize::from(rows))));
        display.show(&session.text());
        assert!(display.text().ends_with("89\n> "), "{}", display.text());
    }
}

/// Our own code was shown as if the server had closed with it.
#[test]
fn a_rejected_frame_is_not_a_close() {
    for (frame, line) in [
        (&b"\x81\x81\0\0\0\0a"[..], "1002 (protocol error) frame is masked"),
        (b"\xc1\x01a", "1002 (protocol error) reserved bits are set"),
        (b"\x81\x01\xff", "1007 (invalid data) text is not UTF-8"),
    ] {
        let mut session = Session::open(plan());
        session.server_sends(frame);
        let want = format!("Invalid frame from the server, closed by us: {line}.");
        assert_eq!(session.text().lines().last(), Some(&*want));
        assert_eq!((session.got.last(), session.exit), (Some(&talk::CLOSE), Some(1)));
    }
    let mut session = Session::open(plan());
    session.server_sends(b"\x88\x02\x03\xea");
    assert_eq!(session.text().lines().last(), Some("Connection closed: 1002 (protocol error)."));
}

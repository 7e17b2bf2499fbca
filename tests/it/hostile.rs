//! Hostile inputs, each sent whole and byte by byte.
//! A table row is an input with the expected output; inputs that need time, a client that does not
//! read, or several clients are functions.

#[cfg(feature = "deflate")]
mod deflate;
mod floods;
mod frames;
mod http;
mod memory;
mod probe;
mod slow;
mod upgrade;

use crate::harness::Harness;
use crate::os::End;
use crate::peer::{self, Reader};

/// One hostile input.
pub(crate) struct Row {
    name: String,
    input: Vec<u8>,
    /// The output, separated by ` | `, then how the connection ends unless it stays open. `400c`
    /// is a 400 with `Connection: close` and a FIN; further words must occur in the line.
    want: &'static str,
}

pub(crate) fn row(name: &str, input: impl AsRef<[u8]>, want: &'static str) -> Row {
    Row { name: name.to_owned(), input: input.as_ref().to_vec(), want }
}

/// A row with the same expectation for each of several values.
pub(crate) fn each<V: AsRef<[u8]>>(
    name: &str,
    values: impl IntoIterator<Item = V>,
    input: impl Fn(&[u8]) -> Vec<u8>,
    want: &'static str,
) -> Vec<Row> {
    let values = values.into_iter();
    values
        .map(|value| {
            let value = value.as_ref();
            let short = &value[..value.len().min(60)];
            Row { name: format!("{name} {}", short.escape_ascii()), input: input(value), want }
        })
        .collect()
}

/// A GET of `/healthz` with these bytes in place of further fields.
pub(crate) fn get(fields: impl AsRef<[u8]>) -> Vec<u8> {
    let fields = fields.as_ref();
    let end: &[u8] = if fields.is_empty() { b"\r\n" } else { b"\r\n\r\n" };
    [b"GET /healthz HTTP/1.1\r\nHost: h\r\n", fields, end].concat()
}

/// Sent directly after each input: answered only if the connection stays open.
const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n";

pub(crate) struct Client {
    pub(crate) wire: usize,
    reader: Reader,
}

impl Client {
    pub(crate) fn connect(harness: &mut Harness) -> Self {
        Self { wire: harness.connect(), reader: Reader::default() }
    }

    /// Opens a WebSocket.
    pub(crate) fn upgraded(harness: &mut Harness, target: &str) -> Self {
        let mut client = Self::connect(harness);
        let lines = client.exchange(harness, &peer::upgrade(target, &[]));
        assert!(lines.len() == 1 && lines[0].starts_with("101 "), "{lines:?}");
        client
    }

    /// Sends bytes and returns the output.
    pub(crate) fn exchange(&mut self, harness: &mut Harness, bytes: &[u8]) -> Vec<String> {
        harness.send(self.wire, bytes);
        self.receive(harness)
    }

    pub(crate) fn receive(&mut self, harness: &mut Harness) -> Vec<String> {
        self.reader.read(&harness.output(self.wire))
    }
}

/// How the server ended a connection.
pub(crate) fn end(harness: &Harness, wire: usize) -> &'static str {
    match harness.end(wire) {
        None => "open",
        Some(End::Fin) => "fin",
        Some(End::Closed) => "closed",
        Some(End::ClosedUnread(_)) => "closed over unread bytes",
        Some(End::Reset) => "reset",
    }
}

/// Another client is served as usual.
pub(crate) fn others_are_served(harness: &mut Harness) {
    let mut other = Client::upgraded(harness, "/echo");
    assert_eq!(other.exchange(harness, &peer::text("unharmed")), ["text \"unharmed\""]);
    harness.net.reset(other.wire);
    harness.settle();
}

/// Plays each row whole and byte by byte; reports all rows that differ.
pub(crate) fn check(rows: &[Row], arguments: &[&str], upgraded: bool) {
    let mut wrong = Vec::new();
    for row in rows {
        for cut in [false, true] {
            if let Some(difference) = play(row, arguments, upgraded, cut) {
                wrong.push(difference);
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

/// Plays a row; returns the difference.
fn play(row: &Row, arguments: &[&str], upgraded: bool, cut: bool) -> Option<String> {
    let mut harness = Harness::new(arguments);
    let mut client = if upgraded {
        Client::upgraded(&mut harness, "/echo")
    } else {
        Client::connect(&mut harness)
    };
    let mut want: Vec<&str> = row.want.split(" | ").filter(|want| !want.is_empty()).collect();
    let websocket = upgraded || want.first().is_some_and(|want| want.starts_with("101"));
    let probe = if websocket { peer::text("probe") } else { REQUEST.to_vec() };
    let ends = ["fin", "closed"].iter().any(|end| want.last() == Some(end));
    if is_last_answer(want.last()?) {
        want.push("fin");
    } else if !ends {
        want.extend([if websocket { "text \"probe\"" } else { "200" }, "open"]);
    }
    let bytes = [&row.input[..], &probe].concat();
    for part in bytes.chunks(if cut { 1 } else { bytes.len() }) {
        harness.send(client.wire, part);
    }
    let mut output = client.receive(&mut harness);
    output.push(end(&harness, client.wire).to_owned());
    let same =
        output.len() == want.len() && output.iter().zip(&want).all(|(line, want)| fits(line, want));
    let how = if cut { "in single bytes" } else { "whole" };
    if !same {
        return Some(format!("row {}, {how}:\n  want {want:?}\n  got {output:?}", row.name));
    }
    // Nothing is left when the client has gone.
    harness.net.fin(client.wire);
    harness.settle();
    let server = harness.driver.engine();
    let left = (server.connections(), server.timers(), server.memory());
    (left != (0, 0, 0)).then(|| format!("row {}, {how}: leaves {left:?} behind", row.name))
}

fn is_last_answer(want: &str) -> bool {
    let first = want.split(' ').next().unwrap_or_default();
    first.len() == 4 && first.ends_with('c')
}

/// Whether a line of output is as expected.
fn fits(line: &str, want: &str) -> bool {
    if !want.starts_with(|c: char| c.is_ascii_digit()) {
        return line == want || line.starts_with(&format!("{want} "));
    }
    let mut words = want.split(' ');
    let status = words.next().unwrap_or_default();
    line.split(' ').next() == Some(status.trim_end_matches('c'))
        && (status == "101" || line.contains("connection=\"close\"") == status.ends_with('c'))
        && words.all(|word| line.contains(word))
}

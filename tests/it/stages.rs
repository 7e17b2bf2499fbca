//! Every stage of a connection with every input: the next stage and the output, as a table in
//! `stages.txt`. `UPDATE=1 cargo test` rewrites it.

use std::fmt::Write as _;
use std::path::Path;

use wspulse::engine::{Id, Signal};

use crate::harness::Harness;
use crate::hostile::{Client, end};
use crate::peer::{close, frame, text, upgrade};

const GET: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
/// The only connection of its server.
const ID: Id = Id { key: 0, generation: 0 };
/// Longer than any deadline; the step is short enough to tell deadlines apart.
const PATIENCE_NS: u64 = 120_000_000_000;
const STEP_MS: u64 = 16;

/// A stage, how to reach it, and bytes that are valid in it.
struct Stage {
    name: &'static str,
    enter: fn(&mut Harness, &mut Client),
    fit: fn() -> Vec<u8>,
}

const STAGES: &[Stage] = &[
    Stage { name: "http, fresh", enter: |_, _| {}, fit: || GET.to_vec() },
    Stage {
        name: "http, half a head",
        enter: |harness, client| drop(client.exchange(harness, &GET[..30])),
        fit: || GET[30..].to_vec(),
    },
    Stage {
        name: "http, idle after an answer",
        enter: |harness, client| drop(client.exchange(harness, GET)),
        fit: || GET.to_vec(),
    },
    Stage { name: "websocket", enter: open, fit: || text("hi") },
    Stage {
        name: "websocket, mid-message",
        enter: |harness, client| {
            open(harness, client);
            client.exchange(harness, &large()[..100_000]);
        },
        fit: || large()[100_000..].to_vec(),
    },
    Stage {
        name: "websocket, close sent",
        enter: |harness, client| {
            open(harness, client);
            harness.signal(Signal::Stop);
            harness.pass(100);
            assert_eq!(client.receive(harness), ["close 1001 \"draining\""]);
        },
        fit: || close(1001, ""),
    },
    Stage {
        name: "lingering",
        enter: |harness, client| {
            client.exchange(harness, b"nonsense\r\n");
            assert_eq!(end(harness, client.wire), "fin");
        },
        fit: || GET.to_vec(),
    },
    Stage {
        name: "leaving",
        enter: |harness, client| {
            open(harness, client);
            harness.net.window(client.wire, 0);
            client.exchange(harness, &text("waits"));
            harness.net.fin(client.wire);
            harness.settle();
        },
        fit: || text("hi"),
    },
];

fn open(harness: &mut Harness, client: &mut Client) {
    client.exchange(harness, &upgrade("/echo", &[]));
}

fn large() -> Vec<u8> {
    frame(0x82, &vec![b'x'; 200_000])
}

/// An input for a connection in a stage.
type Input = (&'static str, fn(&mut Harness, &mut Client, &Stage));

const INPUTS: &[Input] = &[
    ("bytes that fit", |harness, client, stage| harness.send(client.wire, &(stage.fit)())),
    ("garbage", |harness, client, _| harness.send(client.wire, b"\xff\xff\xff\xff\r\n\r\n")),
    ("end of input", |harness, client, _| {
        harness.net.fin(client.wire);
        harness.settle();
    }),
    ("reset", |harness, client, _| {
        harness.net.reset(client.wire);
        harness.settle();
    }),
    ("signal stop", |harness, _, _| {
        harness.signal(Signal::Stop);
        harness.pass(100);
    }),
    ("its window closes", |harness, client, stage| {
        harness.net.window(client.wire, 0);
        harness.send(client.wire, &(stage.fit)());
    }),
    ("backpressure", |harness, client, stage| {
        harness.net.window(client.wire, 0);
        harness.send(client.wire, &(stage.fit)());
        let message = frame(0x82, &[b'x'; 1_000]);
        let http = stage.name.starts_with("http");
        harness.send(client.wire, &if http { GET } else { &message }.repeat(1_000));
    }),
    ("time", |_, _, _| {}),
];

#[test]
fn every_stage_and_every_input() {
    let mut table = String::new();
    for stage in STAGES {
        writeln!(table, "{}", stage.name).unwrap();
        for input in INPUTS {
            writeln!(table, "    {:18} {}", input.0, outcome(stage, input)).unwrap();
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/stages.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, table).unwrap();
        return;
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    for (written, happened) in written.lines().zip(table.lines()) {
        assert_eq!(written, happened, "UPDATE=1 cargo test rewrites the table");
    }
    assert_eq!(written.lines().count(), table.lines().count());
}

/// The stage after an input and the output, then each change as time passes.
fn outcome(stage: &Stage, (_, input): &Input) -> String {
    let mut harness = Harness::new(&[]);
    let mut client = Client::connect(&mut harness);
    (stage.enter)(&mut harness, &mut client);
    client.receive(&mut harness);
    let mut seen = ("", end(&harness, client.wire));
    input(&mut harness, &mut client, stage);
    let mut line = now(&mut harness, &mut client, seen.1);
    let start_ns = harness.now_ns();
    seen = state(&harness, &client);
    while harness.exit.is_none() && harness.now_ns() - start_ns < PATIENCE_NS {
        harness.pass(STEP_MS);
        let has_output = harness.net.has_output(client.wire);
        if state(&harness, &client) != seen || has_output {
            let tenths = (harness.now_ns() - start_ns + 50_000_000) / 100_000_000;
            let then = now(&mut harness, &mut client, seen.1);
            write!(line, ", {}.{} s: {then}", tenths / 10, tenths % 10).unwrap();
            seen = state(&harness, &client);
        }
    }
    line
}

fn state(harness: &Harness, client: &Client) -> (&'static str, &'static str) {
    let stage = harness.driver.engine().stage(ID).unwrap_or("gone");
    (stage, end(harness, client.wire))
}

/// The stage, with new output and how the connection ended in brackets.
fn now(harness: &mut Harness, client: &mut Client, end_before: &str) -> String {
    let mut output: Vec<String> = client.receive(harness).iter().map(|line| short(line)).collect();
    let (stage, end) = state(harness, client);
    if end != end_before {
        output.push(end.to_owned());
    }
    if let Some(code) = harness.exit {
        output.push(format!("exit {code}"));
    }
    if output.is_empty() { stage.to_owned() } else { format!("{stage} [{}]", output.join(", ")) }
}

/// The status and whether the connection closes after it, or a frame.
fn short(line: &str) -> String {
    let status = line.split(' ').next().unwrap_or_default();
    match (status.parse::<u16>(), line.contains("connection=\"close\"")) {
        (Ok(status), true) => format!("{status} and close"),
        (Ok(status), false) => status.to_string(),
        (Err(_), _) => line.to_owned(),
    }
}

//! One conversation, repeated with a fault at each of its reads and writes. Interrupted, short and
//! spurious calls change no byte of the output; a reset ends only one connection.

use crate::harness::Harness;
use crate::hostile::{Client, end};
use crate::os::Fault;
use crate::peer::{self, close, frame, text};

/// What the server sent to two clients, and how it ended their connections.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    talker: (Vec<u8>, &'static str),
    bystander: (Vec<u8>, &'static str),
}

/// An action of the client that does everything.
enum Step {
    Send(Vec<u8>),
    Window(usize),
    Fin,
}

fn conversation() -> Vec<Step> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    let upgrade = peer::upgrade("/echo", &[]);
    let large = frame(0x82, &(0..300 * 1024).map(|i: u32| (i / 7) as u8).collect::<Vec<_>>());
    let fragments = [frame(1, b"frag"), frame(0x89, b"between"), frame(0x80, b"ments")];
    let mixed =
        [text("before"), frame(0x82, &vec![b'm'; 20_000]), frame(0x89, b"p"), text("after")];
    let (upgrade_begins, upgrade_ends) = upgrade.split_at(50);
    let (large_begins, large_ends) = large.split_at(100_000);
    vec![
        Step::Send([get("/healthz"), get("/"), get("/nope")].concat().into_bytes()),
        Step::Send(b"GET /livez HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello".to_vec()),
        Step::Send(upgrade_begins.to_vec()),
        Step::Send(upgrade_ends.to_vec()),
        Step::Send(text("small")),
        Step::Window(150_000),
        Step::Send(large_begins.to_vec()),
        Step::Send(large_ends.to_vec()),
        Step::Send(text("behind the large one")),
        Step::Window(usize::MAX),
        Step::Send(fragments.concat()),
        Step::Send(mixed.concat()),
        Step::Send(frame(0x89, b"ping")),
        Step::Window(0),
        Step::Send(frame(0x81, &[b'w'; 1_000]).repeat(100)),
        Step::Window(70_000),
        Step::Window(usize::MAX),
        Step::Send(close(1000, "bye")),
        Step::Fin,
    ]
}

/// Plays the conversation with a fault at one call; also returns the number of calls.
fn play(steps: &[Step], fault: Option<(u64, Fault)>) -> (Outcome, u64) {
    let mut harness = Harness::new(&[]);
    harness.net.state().fault = fault;
    let bystander = Client::connect(&mut harness);
    harness.send(bystander.wire, &peer::upgrade("/echo", &[]));
    let talker = Client::connect(&mut harness);
    let (mut talker_output, mut bystander_output) = (Vec::new(), Vec::new());
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Send(bytes) => harness.net.send(talker.wire, bytes),
            Step::Window(bytes) => harness.net.window(talker.wire, *bytes),
            Step::Fin => harness.net.fin(talker.wire),
        }
        harness.net.send(bystander.wire, &text(&format!("meanwhile {number}")));
        harness.settle();
        talker_output.extend(harness.output(talker.wire));
        bystander_output.extend(harness.output(bystander.wire));
    }
    let talker = (talker_output, end(&harness, talker.wire));
    harness.send(bystander.wire, &close(1000, ""));
    harness.net.fin(bystander.wire);
    harness.settle();
    bystander_output.extend(harness.output(bystander.wire));
    let bystander = (bystander_output, end(&harness, bystander.wire));
    let server = harness.driver.engine();
    let left = (server.connections(), server.timers(), server.memory());
    assert_eq!(left, (0, 0, 0), "connections, timers, bytes left behind by {fault:?}");
    let calls = harness.net.state().calls;
    (Outcome { talker, bystander }, calls)
}

/// Plays the conversation with this fault at each call.
fn sweep(fault: Fault, check: impl Fn(u64, &Outcome, &Outcome)) {
    let steps = conversation();
    let (clean, calls) = play(&steps, None);
    assert!(calls > 60, "the conversation takes {calls} calls");
    assert_eq!((clean.talker.1, clean.bystander.1), ("closed", "closed"));
    for at in 1.. {
        let (faulty, calls) = play(&steps, Some((at, fault)));
        check(at, &clean, &faulty);
        if calls < at {
            return;
        }
    }
}

/// The output is the same with and without the fault.
fn is_the_same(at: u64, clean: &Outcome, faulty: &Outcome) {
    assert_eq!(clean.talker.1, faulty.talker.1, "fault at call {at}");
    assert_eq!(clean.bystander.1, faulty.bystander.1, "fault at call {at}");
    let same = clean.talker.0.len() == faulty.talker.0.len() && clean == faulty;
    assert!(
        same,
        "fault at call {at}: {} and {} bytes for {} and {}",
        faulty.talker.0.len(),
        faulty.bystander.0.len(),
        clean.talker.0.len(),
        clean.bystander.0.len(),
    );
}

#[test]
fn an_interrupted_call_changes_nothing() {
    sweep(Fault::Interrupted, is_the_same);
}

#[test]
fn a_short_call_changes_nothing() {
    sweep(Fault::Short, is_the_same);
}

#[test]
fn a_spurious_event_changes_nothing() {
    sweep(Fault::Spurious, is_the_same);
}

#[test]
fn a_reset_ends_one_connection_only() {
    sweep(Fault::Reset, |at, clean, faulty| {
        let harmed = [faulty.talker != clean.talker, faulty.bystander != clean.bystander];
        assert_ne!(harmed, [true, true], "a reset at call {at} harms both");
        for (clean, faulty) in
            [(&clean.talker, &faulty.talker), (&clean.bystander, &faulty.bystander)]
        {
            assert!(clean.0.starts_with(&faulty.0), "a reset at call {at} changes the output");
            assert!(faulty.1.starts_with("closed"), "a reset at call {at} leaves it {}", faulty.1);
        }
    });
}

//! The fault sweep: one conversation, again and again, each time with a fault at another read or
//! write. What a kernel may do at any time changes not a byte; a reset ends one connection only.

use crate::harness::Harness;
use crate::hostile::{Client, end};
use crate::os::Fault;
use crate::peer::{self, close, frame, text};

/// What two connections said until their ends: the one that does everything, and a bystander.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    talker: (Vec<u8>, &'static str),
    bystander: (Vec<u8>, &'static str),
}

/// One input of the talker: bytes, or what happens to its window.
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

/// Plays the conversation with a fault at one call; also says how many calls it took.
fn play(steps: &[Step], fault: Option<(u64, Fault)>) -> (Heard, u64) {
    let mut harness = Harness::new(&[]);
    harness.net.state().fault = fault;
    let bystander = Client::connect(&mut harness);
    harness.send(bystander.wire, &peer::upgrade("/echo", &[]));
    let talker = Client::connect(&mut harness);
    let (mut said, mut overheard) = (Vec::new(), Vec::new());
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Send(bytes) => harness.net.send(talker.wire, bytes),
            Step::Window(bytes) => harness.net.window(talker.wire, *bytes),
            Step::Fin => harness.net.fin(talker.wire),
        }
        harness.net.send(bystander.wire, &text(&format!("meanwhile {number}")));
        harness.settle();
        said.extend(harness.output(talker.wire));
        overheard.extend(harness.output(bystander.wire));
    }
    let talker = (said, end(&harness, talker.wire));
    harness.send(bystander.wire, &close(1000, ""));
    harness.net.fin(bystander.wire);
    harness.settle();
    overheard.extend(harness.output(bystander.wire));
    let bystander = (overheard, end(&harness, bystander.wire));
    let server = harness.driver.engine();
    let left = (server.connections(), server.timers(), server.memory());
    assert_eq!(left, (0, 0, 0), "connections, timers, bytes left behind by {fault:?}");
    let calls = harness.net.state().calls;
    (Heard { talker, bystander }, calls)
}

/// Every place where a fault of this kind can strike.
fn sweep(fault: Fault, check: impl Fn(u64, &Heard, &Heard)) {
    let steps = conversation();
    let (calm, calls) = play(&steps, None);
    assert!(calls > 60, "the conversation takes {calls} calls");
    assert_eq!((calm.talker.1, calm.bystander.1), ("closed", "closed"));
    for at in 1.. {
        let (heard, calls) = play(&steps, Some((at, fault)));
        check(at, &calm, &heard);
        if calls < at {
            return;
        }
    }
}

/// Nothing but the number of calls may differ.
fn is_the_same(at: u64, calm: &Heard, heard: &Heard) {
    assert_eq!(calm.talker.1, heard.talker.1, "fault at call {at}");
    assert_eq!(calm.bystander.1, heard.bystander.1, "fault at call {at}");
    let same = calm.talker.0.len() == heard.talker.0.len() && calm == heard;
    assert!(
        same,
        "fault at call {at}: {} and {} bytes for {} and {}",
        heard.talker.0.len(),
        heard.bystander.0.len(),
        calm.talker.0.len(),
        calm.bystander.0.len(),
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
    sweep(Fault::Reset, |at, calm, heard| {
        let harmed = [heard.talker != calm.talker, heard.bystander != calm.bystander];
        assert_ne!(harmed, [true, true], "a reset at call {at} harms both");
        for (calm, heard) in [(&calm.talker, &heard.talker), (&calm.bystander, &heard.bystander)] {
            assert!(calm.0.starts_with(&heard.0), "a reset at call {at} puts words in its mouth");
            assert!(heard.1.starts_with("closed"), "a reset at call {at} leaves it {}", heard.1);
        }
    });
}

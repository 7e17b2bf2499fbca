//! Accepting: connections that arrive faster than they can be accepted delay neither the admin
//! listener nor the shutdown, and running out of descriptors closes no listener.

use wspulse::engine::Signal;
use wspulse::net::driver::Driver;

use crate::harness::{self, Harness};
use crate::hostile::Client;
use crate::os::{End, FakeOs, Network};
use crate::peer;
use crate::watched::Watched;

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
const SECOND_NS: u64 = 1_000_000_000;

/// Turns the loop until this wire has output; returns how much time passed.
fn ns_until_output(harness: &mut Harness, wire: usize, turns: usize) -> u64 {
    let since_ns = harness.now_ns();
    for _ in 0..turns {
        harness.exit = harness.driver.turn().unwrap();
        if harness.net.has_output(wire) {
            return harness.now_ns() - since_ns;
        }
    }
    panic!("no output in {turns} turns");
}

#[test]
fn a_connection_flood_delays_neither_admin_requests_nor_the_shutdown() {
    let mut harness = Harness::new(&["--profile", "plain", "--drain-timeout", "8s"]);
    let _keeps_it_open = Client::upgraded(&mut harness, "/echo");
    {
        // As with 1 % of a CPU.
        let mut net = harness.net.state();
        (net.accept_ns, net.reconnects) = (5_000_000, true);
    }
    harness.net.connect(0);
    harness.net.signal(Signal::Stop);
    let probe = harness.net.connect(1);
    harness.net.send(probe, REQUEST);
    let since_ns = harness.now_ns();
    let waited_ns = ns_until_output(&mut harness, probe, 3);
    assert!(waited_ns <= SECOND_NS, "the admin side waits {waited_ns} ns");
    for _ in 0..100_000 {
        if harness.net.server().accepting_stopped() {
            break;
        }
        harness.driver.turn().unwrap();
    }
    assert!(harness.net.server().accepting_stopped());
    let accepting_ns = harness.now_ns() - since_ns;
    assert!(accepting_ns < 2 * SECOND_NS, "accepting goes on for {accepting_ns} ns");
    assert!(harness.net.server().accepts > 100, "queued connections are accepted first");
    harness.pass(8_000);
    assert_eq!(harness.exit, Some(0), "the hard stop happens");
}

#[test]
fn connections_queued_at_shutdown_are_answered() {
    let mut harness = Harness::new(&["--profile", "plain"]);
    let queue: Vec<usize> = (0..500).map(|_| harness.net.connect(0)).collect();
    harness.net.signal(Signal::Stop);
    harness.settle();
    assert!(harness.net.server().accepting_stopped());
    for wire in queue {
        assert!(harness.output(wire).starts_with(b"HTTP/1.1 503 "));
        assert_eq!(harness.end(wire), Some(End::Fin));
    }
}

#[test]
fn the_admin_side_is_polled_while_accepting() {
    let mut harness = Harness::new(&[]);
    for _ in 0..64 {
        harness.net.connect(0);
    }
    harness.settle();
    let (accepts, most) = {
        let net = harness.net.server();
        (net.accepts, net.most_accepts_in_a_row)
    };
    assert_eq!(accepts, 64);
    assert!(most <= 8, "{most} are accepted before the admin side is polled again");
}

/// Regression: the entry of a listener that had run out of descriptors was removed, which shifted
#[test]
fn listeners_keep_their_indices_when_others_are_closed() {
    let mut harness = Harness::new(&["--profile", "plain"]);
    let keeps_it_open = Client::upgraded(&mut harness, "/echo");
    harness.net.server().descriptors = 0;
    for _ in 0..100 {
        harness.net.connect(0);
    }
    harness.net.signal(Signal::Stop);
    harness.pass(1_500);
    assert!(harness.net.server().accepting_stopped());
    harness.net.server().descriptors = 10;
    let probe = harness.net.connect(1);
    harness.net.send(probe, REQUEST);
    harness.settle();
    assert!(harness.output(probe).starts_with(b"HTTP/1.1 200 "), "the admin listener is alive");
    harness.send(keeps_it_open.wire, &peer::close(1001, ""));
}

/// A TLS handshake in progress holds memory that the engine learns of only from the stream.
#[test]
fn held_bytes_of_a_stream_are_reported_when_they_change() {
    let net = Network::new();
    let mut driver = Driver::new(Watched::new(harness::server(&[], 1)), FakeOs::new(&net));
    let wire = net.connect(0);
    for held in [0, 5_000, 5_000, 9_000, 0] {
        net.hold(wire, held);
        net.send(wire, b"G");
        for _ in 0..3 {
            driver.turn().unwrap();
        }
    }
    assert_eq!(driver.engine().held, [5_000, 9_000, 0]);
}

/// Regression: session tickets leave with the first response, and an idle connection was charged
/// for them until its next message.
#[test]
fn held_bytes_that_leave_with_the_output_are_reported() {
    let net = Network::new();
    let mut driver = Driver::new(Watched::new(harness::server(&[], 1)), FakeOs::new(&net));
    let wire = net.connect(0);
    net.hold(wire, 300);
    net.send(wire, REQUEST);
    for _ in 0..3 {
        driver.turn().unwrap();
    }
    assert!(net.take_output(wire).starts_with(b"HTTP/1.1 200 "));
    assert_eq!(driver.engine().held.last().copied().unwrap_or(0), 0);
}

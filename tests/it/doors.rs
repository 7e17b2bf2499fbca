//! Listeners: what accepting costs the others, and how it ends. Connections that come faster than
//! they can be accepted must keep neither the admin side nor the end of the process waiting.

use wspulse::engine::Signal;
use wspulse::net::driver::Driver;

use crate::hostile::Client;
use crate::house::{self, House};
use crate::os::{End, FakeOs, Network, Node};
use crate::peer;
use crate::watched::Watched;

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
const SECOND_NS: u64 = 1_000_000_000;

/// Turns until this wire has heard something, at most so many; returns how long that took.
fn heard_after_ns(house: &mut House, wire: usize, turns: usize) -> u64 {
    let since_ns = house.now_ns();
    for _ in 0..turns {
        house.exit = house.driver.turn().unwrap();
        if house.wires.has_output(wire) {
            return house.now_ns() - since_ns;
        }
    }
    panic!("nothing is heard in {turns} turns");
}

#[test]
fn a_flood_at_the_stop_holds_up_neither_the_admin_side_nor_the_end() {
    let mut house = House::new(&["--profile", "plain", "--drain-timeout", "8s"]);
    let _keeps_it_open = Client::upgraded(&mut house, "/echo");
    {
        // As at a hundredth of a CPU.
        let mut net = house.wires.state();
        (net.accept_ns, net.reconnects) = (5_000_000, true);
    }
    house.wires.connect(0);
    house.wires.signal(Signal::Stop);
    let probe = house.wires.connect(1);
    house.wires.send(probe, REQUEST);
    let since_ns = house.now_ns();
    let waited_ns = heard_after_ns(&mut house, probe, 3);
    assert!(waited_ns <= SECOND_NS, "the admin side waits {waited_ns} ns");
    while !house.wires.state().accepting_stopped {
        house.driver.turn().unwrap();
    }
    let accepting_ns = house.now_ns() - since_ns;
    assert!(accepting_ns < 2 * SECOND_NS, "accepting goes on for {accepting_ns} ns");
    assert!(house.wires.state().accepts > 100, "those who wait are accepted");
    house.pass(8_000);
    assert_eq!(house.exit, Some(0), "the hard stop comes");
}

#[test]
fn an_ordinary_queue_at_the_stop_is_answered() {
    let mut house = House::new(&["--profile", "plain"]);
    let queue: Vec<usize> = (0..500).map(|_| house.wires.connect(0)).collect();
    house.wires.signal(Signal::Stop);
    house.settle();
    assert!(house.wires.state().accepting_stopped);
    for wire in queue {
        assert!(house.output(wire).starts_with(b"HTTP/1.1 503 "));
        assert_eq!(house.end(wire), Some(End::Fin));
    }
}

#[test]
fn the_admin_side_is_asked_between_shares_of_accepting() {
    let mut house = House::new(&[]);
    for _ in 0..64 {
        house.wires.connect(0);
    }
    house.settle();
    let (accepts, most) = {
        let net = house.wires.state();
        (net.accepts, net.most_accepts_in_a_row)
    };
    assert_eq!(accepts, 64);
    assert!(most <= 8, "{most} are accepted before the admin side is asked again");
}

/// The entry of a main listener without descriptors was removed, and all later ones moved.
#[test]
fn listeners_keep_their_numbers_when_others_are_closed() {
    let mut house = House::new(&["--profile", "plain"]);
    let keeps_it_open = Client::upgraded(&mut house, "/echo");
    house.wires.state().descriptors = 0;
    for _ in 0..100 {
        house.wires.connect(0);
    }
    house.wires.signal(Signal::Stop);
    house.pass(1_500);
    assert!(house.wires.state().accepting_stopped);
    house.wires.state().descriptors = 10;
    let probe = house.wires.connect(1);
    house.wires.send(probe, REQUEST);
    house.settle();
    assert!(house.output(probe).starts_with(b"HTTP/1.1 200 "), "the admin listener is alive");
    house.send(keeps_it_open.wire, &peer::close(1001, ""));
}

/// Half a TLS handshake is kept by nobody whom the engine knows.
#[test]
fn what_a_stream_keeps_is_told_when_it_changes() {
    let wires = Network::new();
    let mut driver =
        Driver::new(Watched::new(house::server(&[], 1)), FakeOs::new(Node::Server, &wires));
    let wire = wires.connect(0);
    for held in [0, 5_000, 5_000, 9_000, 0] {
        wires.hold(wire, held);
        wires.send(wire, b"G");
        for _ in 0..3 {
            driver.turn().unwrap();
        }
    }
    assert_eq!(driver.engine().held, [5_000, 9_000, 0]);
}

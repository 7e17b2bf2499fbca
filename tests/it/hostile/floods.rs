//! Floods: the memory that a client can make the server hold is bounded, and other clients are
//! served meanwhile. The floods are just large enough to show the bound.

use super::{Client, REQUEST, end, get, others_are_served};
use crate::harness::Harness;
use crate::peer::{frame, text};

/// Turns within which others must be served, whatever the flood.
const TURNS: usize = 4;
/// The output limit of a client plus one response, allocated in steps of 32 KiB, plus one read that
/// is held back.
const HELD: usize = 64 * 1024 + 512 + 32 * 1024 + 64 * 1024;

/// Turns until this wire has output.
fn turns_until_output(harness: &mut Harness, wire: usize) -> usize {
    for turn in 1..=100 {
        harness.driver.turn().unwrap();
        if harness.net.has_output(wire) {
            return turn;
        }
    }
    panic!("no output in 100 turns");
}

fn held(harness: &Harness) -> usize {
    harness.driver.engine().memory()
}

#[test]
fn a_thousand_requests_in_one_piece() {
    let mut harness = Harness::new(&[]);
    let mut flood = Client::connect(&mut harness);
    let other = Client::connect(&mut harness);
    let nope = b"GET /nope HTTP/1.1\r\nHost: h\r\n\r\n";
    harness.net.send(flood.wire, &[REQUEST, nope].concat().repeat(500));
    harness.net.send(other.wire, REQUEST);
    let turns = turns_until_output(&mut harness, other.wire);
    assert!(turns <= TURNS, "another client is answered after {turns} turns");
    harness.settle();
    let output = flood.receive(&mut harness);
    assert_eq!(output.len(), 1_000);
    let in_order =
        output.chunks(2).all(|two| two[0].starts_with("200") && two[1].starts_with("404"));
    assert!(in_order, "the answers are in the order of the requests");
    assert_eq!(held(&harness), 0);
}

/// Regression: with 1 % of a CPU three turns of a flood took longer than the timeout of a probe.
#[test]
fn new_connections_do_not_wait_behind_a_flood() {
    let mut harness = Harness::new(&[]);
    let flood: Vec<Client> = (0..64).map(|_| Client::upgraded(&mut harness, "/echo")).collect();
    for client in &flood {
        harness.net.send(client.wire, &text("echo").repeat(20_000));
    }
    harness.driver.turn().unwrap();
    let probe = harness.net.connect(0);
    harness.net.send(probe, REQUEST);
    assert_eq!(turns_until_output(&mut harness, probe), 1);
}

/// Regression: each connection caused an error, 67 a second with 200 reconnecting clients.
#[test]
fn connections_without_descriptors_are_refused_in_batches() {
    let mut harness = Harness::new(&[]);
    harness.net.server().descriptors = 0;
    let waiting: Vec<usize> = (0..500)
        .map(|_| {
            harness.pass(2);
            harness.net.connect(0)
        })
        .collect();
    harness.pass(100);
    assert!(waiting.iter().all(|wire| harness.output(*wire).starts_with(b"HTTP/1.1 503 ")));
    let errors = harness.net.server().accepts_without_descriptor;
    assert!((1..=15).contains(&errors), "{errors} errors in a second");
}

#[test]
fn a_hundred_thousand_requests_in_one_piece() {
    let mut harness = Harness::new(&[]);
    let client = Client::connect(&mut harness);
    harness.net.send(client.wire, &REQUEST.repeat(100_000));
    let mut answered = 0;
    for _ in 0..10_000 {
        harness.driver.turn().unwrap();
        answered += harness.output(client.wire).windows(9).filter(|w| w == b"HTTP/1.1 ").count();
        assert!(held(&harness) <= HELD, "{} bytes are held after {answered}", held(&harness));
        if answered == 100_000 {
            return;
        }
    }
    panic!("{answered} answers in 10 000 turns");
}

#[test]
fn requests_before_a_fin_are_answered() {
    let mut harness = Harness::new(&[]);
    let mut client = Client::connect(&mut harness);
    harness.net.send(client.wire, &REQUEST.repeat(1_000));
    harness.net.fin(client.wire);
    harness.settle();
    assert_eq!(client.receive(&mut harness).len(), 1_000, "each is answered before the close");
    assert_eq!(end(&harness, client.wire), "closed");
}

#[test]
fn requests_without_reading_the_answers() {
    let mut harness = Harness::new(&[]);
    let client = Client::connect(&mut harness);
    harness.net.window(client.wire, 0);
    for _ in 0..100 {
        harness.send(client.wire, &get("").repeat(1_000));
        assert!(held(&harness) <= HELD, "{} bytes are held", held(&harness));
    }
    harness.pass(29_900);
    assert_eq!(end(&harness, client.wire), "open");
    others_are_served(&mut harness);
    harness.pass(200);
    assert_eq!(end(&harness, client.wire), "reset");
    assert_eq!((harness.driver.engine().connections(), held(&harness)), (0, 0));
}

#[test]
fn responses_are_read_late() {
    let mut harness = Harness::new(&[]);
    let mut client = Client::connect(&mut harness);
    harness.net.window(client.wire, 0);
    harness.send(client.wire, &REQUEST.repeat(5_000));
    harness.pass(20_000);
    harness.net.window(client.wire, usize::MAX);
    harness.settle();
    let output = client.receive(&mut harness);
    assert_eq!(output.len(), 5_000, "each is answered once");
    assert!(output.iter().all(|line| line.starts_with("200 ")));
}

#[test]
fn ten_thousand_connections_at_once() {
    let mut harness = Harness::new(&[]);
    harness.net.server().descriptors = 20_000;
    for _ in 0..10_000 {
        let wire = harness.net.connect(0);
        harness.net.fin(wire);
    }
    let probe = harness.net.connect(1);
    harness.net.send(probe, REQUEST);
    let turns = turns_until_output(&mut harness, probe);
    assert!(turns <= TURNS, "the admin side is answered after {turns} turns");
    let taken = harness.driver.engine().connections();
    assert!(taken <= 64 * TURNS + 1, "{taken} were accepted in {turns} turns");
    harness.settle();
    harness.net.reset(probe);
    harness.settle();
    assert_eq!((harness.driver.engine().connections(), held(&harness)), (0, 0));
    assert_eq!(harness.net.server().descriptors, 20_000);
    others_are_served(&mut harness);
}

#[test]
fn fragments_of_a_byte() {
    let mut harness = Harness::new(&[]);
    let mut client = Client::upgraded(&mut harness, "/echo");
    client.exchange(&mut harness, &frame(0x02, b""));
    let thousand = frame(0x00, b"x").repeat(1_000);
    for sent in (1_000..=131_000).step_by(1_000) {
        assert_eq!(client.exchange(&mut harness, &thousand), [""; 0]);
        let bound = sent * 3 / 2 + 4_096;
        assert!(held(&harness) <= bound, "{} bytes are held for {sent}", held(&harness));
    }
    others_are_served(&mut harness);
    assert_eq!(client.exchange(&mut harness, &frame(0x80, b"")), ["binary (131000 bytes)"]);
    assert_eq!(held(&harness), 0);
}

#[test]
fn pings_of_a_peer_that_reads() {
    let mut harness = Harness::new(&[]);
    let client = Client::upgraded(&mut harness, "/echo");
    let pings = frame(0x89, &[b'p'; 125]).repeat(500);
    let pong = [&[0x8a, 125][..], &[b'p'; 125]].concat();
    for _ in 0..100 {
        harness.send(client.wire, &pings);
        let output = harness.output(client.wire);
        assert!(
            output.len() == 500 * pong.len() && output.chunks(pong.len()).all(|one| one == pong)
        );
        assert_eq!(held(&harness), 0);
    }
}

#[test]
fn pings_of_a_peer_that_does_not_read() {
    let mut harness = Harness::new(&[]);
    let client = Client::upgraded(&mut harness, "/echo");
    harness.net.window(client.wire, 0);
    for _ in 0..100 {
        harness.send(client.wire, &frame(0x89, &[b'p'; 125]).repeat(500));
        assert!(held(&harness) <= HELD, "{} bytes are held", held(&harness));
    }
    others_are_served(&mut harness);
    harness.pass(30_100);
    assert_eq!(end(&harness, client.wire), "reset");
}

#[test]
fn unsolicited_pongs() {
    let mut harness = Harness::new(&[]);
    let mut client = Client::upgraded(&mut harness, "/echo");
    let other = Client::connect(&mut harness);
    harness.net.send(client.wire, &frame(0x8a, &[b'p'; 125]).repeat(50_000));
    harness.net.send(other.wire, REQUEST);
    let turns = turns_until_output(&mut harness, other.wire);
    assert!(turns <= TURNS, "another client is answered after {turns} turns");
    harness.settle();
    assert_eq!(client.receive(&mut harness), [""; 0]);
    assert_eq!(client.exchange(&mut harness, &text("still here")), ["text \"still here\""]);
    assert_eq!(held(&harness), 0);
}

#[test]
fn a_message_in_segments_of_a_byte() {
    let mut harness = Harness::new(&[]);
    let mut client = Client::upgraded(&mut harness, "/echo");
    let message = frame(0x81, &vec![b'x'; 64 * 1024]);
    let before = harness.net.state().calls;
    let (last, others) = message.split_last().unwrap();
    for (sent, byte) in others.iter().enumerate() {
        assert_eq!(client.exchange(&mut harness, &[*byte]), [""; 0]);
        assert!(held(&harness) <= 2 * sent + 4_096, "{} bytes are held for {sent}", held(&harness));
    }
    assert_eq!(client.exchange(&mut harness, &[*last]), ["text (65536 bytes)"]);
    let calls = harness.net.state().calls - before;
    assert!(calls <= 2 * message.len() as u64, "{calls} calls");
}

#[test]
fn sixty_four_floods_of_tiny_echoes() {
    let mut harness = Harness::new(&[]);
    let floods: Vec<_> = (0..64).map(|_| Client::upgraded(&mut harness, "/echo")).collect();
    let mut other = Client::upgraded(&mut harness, "/echo");
    for flood in &floods {
        harness.net.send(flood.wire, &text("tiny").repeat(10_000));
    }
    harness.net.send(other.wire, &text("hello"));
    let probe = harness.net.connect(1);
    harness.net.send(probe, REQUEST);
    let turns = turns_until_output(&mut harness, probe);
    assert!(turns <= TURNS, "health is answered after {turns} turns");
    let turns = turns_until_output(&mut harness, other.wire);
    assert!(turns <= TURNS, "a quiet peer is answered after {turns} turns");
    assert_eq!(other.receive(&mut harness), ["text \"hello\""]);
    harness.settle();
    for flood in &floods {
        assert_eq!(harness.output(flood.wire).len(), 6 * 10_000);
    }
    assert_eq!(held(&harness), 0);
}

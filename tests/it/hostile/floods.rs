//! Floods: what a peer can make the server hold is bounded, and others are served meanwhile.
//! Smaller than in the list (what is bounded at 100 000 is bounded at a million), so that they
//! run in the time of a test.

use super::{Client, REQUEST, end, get, others_are_served};
use crate::house::House;
use crate::peer::{frame, text};

/// Turns within which others must be served, whatever the flood.
const TURNS: usize = 4;
/// The most that may wait for a peer, plus one answer, in memory that is taken 32 KiB at a time;
/// plus one read that is held back.
const HELD: usize = 64 * 1024 + 512 + 32 * 1024 + 64 * 1024;

/// Turns until this wire has something to read.
fn turns_until_heard(house: &mut House, wire: usize) -> usize {
    for turn in 1..=100 {
        house.driver.turn().unwrap();
        if house.wires.has_output(wire) {
            return turn;
        }
    }
    panic!("nothing is heard in 100 turns");
}

fn held(house: &House) -> usize {
    house.driver.engine().memory()
}

#[test]
fn a_thousand_requests_in_one_piece() {
    let mut house = House::new(&[]);
    let mut flood = Client::connect(&mut house);
    let other = Client::connect(&mut house);
    let nope = b"GET /nope HTTP/1.1\r\nHost: h\r\n\r\n";
    house.wires.send(flood.wire, &[REQUEST, nope].concat().repeat(500));
    house.wires.send(other.wire, REQUEST);
    let turns = turns_until_heard(&mut house, other.wire);
    assert!(turns <= TURNS, "somebody else is answered after {turns} turns");
    house.settle();
    let said = flood.hear(&mut house);
    assert_eq!(said.len(), 1_000);
    let in_order = said.chunks(2).all(|two| two[0].starts_with("200") && two[1].starts_with("404"));
    assert!(in_order, "the answers are in the order of the requests");
    assert_eq!(held(&house), 0);
}

/// At a hundredth of a CPU three turns of a flood took longer than a probe waits.
#[test]
fn who_is_new_does_not_wait_behind_a_flood() {
    let mut house = House::new(&[]);
    let flood: Vec<Client> = (0..64).map(|_| Client::upgraded(&mut house, "/echo")).collect();
    for client in &flood {
        house.wires.send(client.wire, &text("echo").repeat(20_000));
    }
    house.driver.turn().unwrap();
    let probe = house.wires.connect(0);
    house.wires.send(probe, REQUEST);
    assert_eq!(turns_until_heard(&mut house, probe), 1);
}

/// Each of them was an error of its own, 67 a second with 200 clients that came back.
#[test]
fn knocks_without_descriptors_are_answered_together() {
    let mut house = House::new(&[]);
    house.wires.state().descriptors = 0;
    let knocks: Vec<usize> = (0..500)
        .map(|_| {
            house.pass(2);
            house.wires.connect(0)
        })
        .collect();
    house.pass(100);
    assert!(knocks.iter().all(|wire| house.output(*wire).starts_with(b"HTTP/1.1 503 ")));
    let errors = house.wires.state().accepts_without_descriptor;
    assert!((1..=15).contains(&errors), "{errors} errors in a second");
}

#[test]
fn more_requests_than_one_turn_answers() {
    let mut house = House::new(&[]);
    let client = Client::connect(&mut house);
    house.wires.send(client.wire, &REQUEST.repeat(100_000));
    let mut answered = 0;
    for _ in 0..10_000 {
        house.driver.turn().unwrap();
        answered += house.output(client.wire).windows(9).filter(|w| w == b"HTTP/1.1 ").count();
        assert!(held(&house) <= HELD, "{} bytes are held after {answered}", held(&house));
        if answered == 100_000 {
            return;
        }
    }
    panic!("{answered} answers in 10 000 turns");
}

#[test]
fn and_the_end_behind_them() {
    let mut house = House::new(&[]);
    let mut client = Client::connect(&mut house);
    house.wires.send(client.wire, &REQUEST.repeat(1_000));
    house.wires.fin(client.wire);
    house.settle();
    assert_eq!(client.hear(&mut house).len(), 1_000, "each is answered before we hang up");
    assert_eq!(end(&house, client.wire), "closed");
}

#[test]
fn requests_without_reading_the_answers() {
    let mut house = House::new(&[]);
    let client = Client::connect(&mut house);
    house.wires.window(client.wire, 0);
    for _ in 0..100 {
        house.send(client.wire, &get("").repeat(1_000));
        assert!(held(&house) <= HELD, "{} bytes are held", held(&house));
    }
    house.pass(29_900);
    assert_eq!(end(&house, client.wire), "open");
    others_are_served(&mut house);
    house.pass(200);
    assert_eq!(end(&house, client.wire), "reset");
    assert_eq!((house.driver.engine().connections(), held(&house)), (0, 0));
}

#[test]
fn and_then_reading_them() {
    let mut house = House::new(&[]);
    let mut client = Client::connect(&mut house);
    house.wires.window(client.wire, 0);
    house.send(client.wire, &REQUEST.repeat(5_000));
    house.pass(20_000);
    house.wires.window(client.wire, usize::MAX);
    house.settle();
    let said = client.hear(&mut house);
    assert_eq!(said.len(), 5_000, "each is answered once");
    assert!(said.iter().all(|line| line.starts_with("200 ")));
}

#[test]
fn ten_thousand_at_the_door() {
    let mut house = House::new(&[]);
    house.wires.state().descriptors = 20_000;
    for _ in 0..10_000 {
        let wire = house.wires.connect(0);
        house.wires.fin(wire);
    }
    let probe = house.wires.connect(1);
    house.wires.send(probe, REQUEST);
    let turns = turns_until_heard(&mut house, probe);
    assert!(turns <= TURNS, "the admin side is answered after {turns} turns");
    let taken = house.driver.engine().connections();
    assert!(taken <= 64 * TURNS + 1, "{taken} were taken in during {turns} turns");
    house.settle();
    house.wires.reset(probe);
    house.settle();
    assert_eq!((house.driver.engine().connections(), held(&house)), (0, 0));
    assert_eq!(house.wires.state().descriptors, 20_000);
    others_are_served(&mut house);
}

#[test]
fn fragments_of_a_byte() {
    let mut house = House::new(&[]);
    let mut client = Client::upgraded(&mut house, "/echo");
    client.say(&mut house, &frame(0x02, b""));
    let thousand = frame(0x00, b"x").repeat(1_000);
    for sent in (1_000..=131_000).step_by(1_000) {
        assert_eq!(client.say(&mut house, &thousand), [""; 0]);
        let bound = sent * 3 / 2 + 4_096;
        assert!(held(&house) <= bound, "{} bytes are held for {sent}", held(&house));
    }
    others_are_served(&mut house);
    assert_eq!(client.say(&mut house, &frame(0x80, b"")), ["binary (131000 bytes)"]);
    assert_eq!(held(&house), 0);
}

#[test]
fn pings_of_a_peer_that_reads() {
    let mut house = House::new(&[]);
    let client = Client::upgraded(&mut house, "/echo");
    let pings = frame(0x89, &[b'p'; 125]).repeat(500);
    let pong = [&[0x8a, 125][..], &[b'p'; 125]].concat();
    for _ in 0..100 {
        house.send(client.wire, &pings);
        let said = house.output(client.wire);
        assert!(said.len() == 500 * pong.len() && said.chunks(pong.len()).all(|one| one == pong));
        assert_eq!(held(&house), 0);
    }
}

#[test]
fn pings_of_a_peer_that_does_not_read() {
    let mut house = House::new(&[]);
    let client = Client::upgraded(&mut house, "/echo");
    house.wires.window(client.wire, 0);
    for _ in 0..100 {
        house.send(client.wire, &frame(0x89, &[b'p'; 125]).repeat(500));
        assert!(held(&house) <= HELD, "{} bytes are held", held(&house));
    }
    others_are_served(&mut house);
    house.pass(30_100);
    assert_eq!(end(&house, client.wire), "reset");
}

#[test]
fn pongs_that_nobody_asked_for() {
    let mut house = House::new(&[]);
    let mut client = Client::upgraded(&mut house, "/echo");
    let other = Client::connect(&mut house);
    house.wires.send(client.wire, &frame(0x8a, &[b'p'; 125]).repeat(50_000));
    house.wires.send(other.wire, REQUEST);
    let turns = turns_until_heard(&mut house, other.wire);
    assert!(turns <= TURNS, "somebody else is answered after {turns} turns");
    house.settle();
    assert_eq!(client.hear(&mut house), [""; 0]);
    assert_eq!(client.say(&mut house, &text("still here")), ["text \"still here\""]);
    assert_eq!(held(&house), 0);
}

#[test]
fn a_message_in_segments_of_a_byte() {
    let mut house = House::new(&[]);
    let mut client = Client::upgraded(&mut house, "/echo");
    let message = frame(0x81, &vec![b'x'; 64 * 1024]);
    let before = house.wires.state().calls;
    let (last, others) = message.split_last().unwrap();
    for (sent, byte) in others.iter().enumerate() {
        assert_eq!(client.say(&mut house, &[*byte]), [""; 0]);
        assert!(held(&house) <= 2 * sent + 4_096, "{} bytes are held for {sent}", held(&house));
    }
    assert_eq!(client.say(&mut house, &[*last]), ["text (65536 bytes)"]);
    let calls = house.wires.state().calls - before;
    assert!(calls <= 2 * message.len() as u64, "{calls} calls");
}

#[test]
fn sixty_four_floods_of_tiny_echoes() {
    let mut house = House::new(&[]);
    let floods: Vec<_> = (0..64).map(|_| Client::upgraded(&mut house, "/echo")).collect();
    let mut other = Client::upgraded(&mut house, "/echo");
    for flood in &floods {
        house.wires.send(flood.wire, &text("tiny").repeat(10_000));
    }
    house.wires.send(other.wire, &text("hello"));
    let probe = house.wires.connect(1);
    house.wires.send(probe, REQUEST);
    let turns = turns_until_heard(&mut house, probe);
    assert!(turns <= TURNS, "health is answered after {turns} turns");
    let turns = turns_until_heard(&mut house, other.wire);
    assert!(turns <= TURNS, "a quiet peer is answered after {turns} turns");
    assert_eq!(other.hear(&mut house), ["text \"hello\""]);
    house.settle();
    for flood in &floods {
        assert_eq!(house.output(flood.wire).len(), 6 * 10_000);
    }
    assert_eq!(held(&house), 0);
}

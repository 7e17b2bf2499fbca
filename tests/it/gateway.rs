//! The gateway against backends that are slow, wrong and gone: what every client is promised, over
//! many connections and messages, in virtual time and from seeds.

use std::collections::BTreeMap;

use serde_json::Value;
use wspulse::rng::Rng;

use crate::house::House;
use crate::peer::{Reader, text, upgrade};
use crate::world::End;

const STEP_MS: u64 = 50;
/// Longer than any request may take, with the steps' own coarseness.
const PATIENCE_MS: u64 = 29_500;

/// A backend that does whatever its dice say.
struct Dice {
    rng: Rng,
    input: BTreeMap<usize, Vec<u8>>,
    /// When an answer is due, on which wire, and what it is.
    due: Vec<(u64, usize, Fate)>,
    /// What arrived of each client, in order; and when.
    arrived: BTreeMap<String, Vec<(usize, u64)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Fine,
    Wrong,
    Broken,
    Garbage,
    Never,
}

impl Dice {
    fn fate(&mut self) -> (u64, Fate) {
        let after_ms = self.rng.below(400);
        match self.rng.below(100) {
            0..3 => (after_ms, Fate::Wrong),
            3..6 => (after_ms, Fate::Broken),
            6..8 => (after_ms, Fate::Garbage),
            8 if self.rng.below(10) == 0 => (0, Fate::Never),
            _ => (after_ms, Fate::Fine),
        }
    }

    /// Takes requests in, and gives the answers that are due.
    fn serve(&mut self, house: &House, now_ms: u64) {
        let dialled = house.wires.0.borrow().dialled.clone();
        for wire in dialled {
            let fresh = house.wires.take_output(wire);
            if fresh.is_empty() {
                continue;
            }
            self.input.entry(wire).or_default().extend(fresh);
            while let Some((path, body)) = take(self.input.get_mut(&wire).unwrap()) {
                if path == "/connect" {
                    self.due.push((now_ms, wire, Fate::Fine));
                    continue;
                }
                let asked: Value = serde_json::from_slice(&body).unwrap();
                let said = asked["myBody"].as_str().unwrap();
                let (client, number) = said.split_once(' ').unwrap();
                let row = self.arrived.entry(client.to_owned()).or_default();
                row.push((number.parse().unwrap(), now_ms));
                let (after_ms, fate) = self.fate();
                self.due.push((now_ms + after_ms, wire, fate));
            }
        }
        let due: Vec<_> = self.due.extract_if(.., |(at_ms, ..)| *at_ms <= now_ms).collect();
        for (_, wire, fate) in due {
            if house.end(wire).is_some() {
                continue;
            }
            let answer: &[u8] = match fate {
                Fate::Fine => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                Fate::Wrong => b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
                Fate::Garbage => b"SSH-2.0-x\r\n",
                Fate::Broken => {
                    house.wires.reset(wire);
                    continue;
                }
                Fate::Never => continue,
            };
            house.wires.send(wire, answer);
        }
    }
}

/// Path and body of a whole request, off the front.
fn take(input: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let end = input.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(input[..end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    if input.len() < end + length {
        return None;
    }
    let body = input.drain(..end + length).skip(end).collect();
    Some((head.split(' ').nth(1).unwrap().to_owned(), body))
}

struct Client {
    wire: usize,
    reader: Reader,
    sent: usize,
    /// Answers of either kind.
    answers: usize,
    failures: usize,
}

/// Each message is answered exactly once: by the backend's reply or by the error frame; in order,
/// and none later than it may be.
fn play(seed: u64, connections: usize, messages: usize) {
    // These clients answer no pings.
    let args = "--gateway-backend http://127.0.0.1:8501 --gateway-reply on --ping-interval 0";
    let args: Vec<&str> = args.split(' ').collect();
    let mut house = House::seeded(&args, seed);
    house.wires.0.borrow_mut().refuses = false;
    house.wires.0.borrow_mut().descriptors = 10_000;
    let mut rng = Rng::new(seed);
    let mut dice = Dice {
        rng: Rng::new(seed ^ 0xd1ce),
        input: BTreeMap::new(),
        due: Vec::new(),
        arrived: BTreeMap::new(),
    };
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..connections {
        let wire = house.connect();
        house.send(wire, &upgrade("/gateway/prod", &[]));
        let reader = Reader::default();
        clients.push(Client { wire, reader, sent: 0, answers: 0, failures: 0 });
    }
    let all = |clients: &[Client]| clients.iter().all(|client| client.answers == messages);
    let mut idle_ms = 0;
    for step in 0.. {
        dice.serve(&house, step * STEP_MS);
        house.settle();
        for (name, client) in clients.iter_mut().enumerate() {
            let before = client.answers;
            for line in client.reader.read(&house.wires.take_output(client.wire)) {
                if line.starts_with("text \"ok\"") {
                    client.answers += 1;
                } else if line.contains("Internal server error") {
                    client.answers += 1;
                    client.failures += 1;
                }
            }
            idle_ms = if client.answers > before { 0 } else { idle_ms };
            // A few ahead, some of them glued together.
            for _ in 0..rng.below(4) {
                if client.sent < messages && client.sent < client.answers + 40 {
                    house.wires.send(client.wire, &text(&format!("{name} {}", client.sent)));
                    client.sent += 1;
                }
            }
        }
        if all(&clients) {
            break;
        }
        idle_ms += STEP_MS;
        assert!(idle_ms <= PATIENCE_MS, "seed {seed}: nobody is answered any more");
        house.settle();
        house.pass(STEP_MS);
        assert_eq!(house.driver.engine().memory(), house.driver.engine().memory_counted());
    }
    house.pass(200);
    judge(seed, &mut house, &mut clients, &dice, messages);
}

fn judge(seed: u64, house: &mut House, clients: &mut [Client], dice: &Dice, messages: usize) {
    let mut failures = 0;
    for (name, client) in clients.iter_mut().enumerate() {
        let late = client.reader.read(&house.wires.take_output(client.wire));
        assert!(!late.iter().any(|line| line.starts_with("text")), "seed {seed}: {late:?}");
        assert_eq!(house.end(client.wire), None::<End>, "seed {seed}: {name} was cut off");
        let arrived = &dice.arrived[&name.to_string()];
        let numbers: Vec<usize> = arrived.iter().map(|(number, _)| *number).collect();
        // What was reset before it was read can have been sent again, or lost; never overtaken.
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: {numbers:?}");
        let gap = arrived.windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap_or(0);
        assert!(gap <= PATIENCE_MS, "seed {seed}: {name} waited for {gap} ms");
        failures += client.failures;
    }
    let total = clients.len() * messages;
    assert!(failures * 3 < total, "seed {seed}: {failures} of {total} failed");
}

#[test]
fn every_message_is_answered_once_and_in_order() {
    play(1, 200, 50);
}

#[test]
fn and_so_it_is_with_other_seeds() {
    for seed in 2..8 {
        play(seed, 20, 30);
    }
}

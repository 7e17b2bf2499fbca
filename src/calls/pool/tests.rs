//! Single cases, then a simulation in virtual time with faults from a seed.

mod attempts;
mod scarce;

use std::collections::BTreeMap;

use super::*;
use crate::outbox::Block;
use crate::proto::http_client::{Asked, Limits, Request};
use crate::rng::Rng;

const RULES: Rules = Rules {
    per_address: [2, 1],
    connections: 3,
    waiting: 4,
    connect_ms: 400,
    idle_ms: 1_000,
    hold_ms: 0,
};

impl Lane {
    pub(in crate::calls) fn for_test(key: u32) -> Self {
        Self(Id { key, generation: 0 })
    }
}

fn at(ms: u64) -> Now {
    Now { mono_ns: time::ms(ms), wall_ms: 0 }
}

fn call_by(method: &str, path: &str, deadline_ms: u64) -> Call {
    let mut bytes = Vec::new();
    let request = Request { method, target: path, host: "h", fields: &[], body: &[] };
    request.write(&mut bytes).unwrap();
    Call {
        bytes: Block::of(&bytes),
        asked: Asked::Ordinary,
        limits: Limits { head_bytes: 1_000, body_bytes: 1_000 },
        class: Class::Bulk,
        deadline_ns: time::ms(deadline_ms),
        answer_ms: None,
        held_ns: 0,
    }
}

fn call(path: &str, deadline_ms: u64) -> Call {
    call_by("POST", path, deadline_ms)
}

/// A pool with a clock that only a test moves.
struct Bench {
    pool: Pool<u32>,
    target: TargetId,
    now: Now,
}

impl Bench {
    fn new(rules: Rules, target: &str) -> Self {
        let mut pool = Pool::new(rules);
        let target = pool.target(&Target::host(target, 80));
        Self { pool, target, now: at(0) }
    }

    fn ask(&mut self, number: u32, call: Call) -> CallId {
        self.pool.ask(self.now, self.target, call, number).unwrap()
    }

    /// The orders, as text: `connect 0 10.0.0.1:80`.
    fn orders(&mut self) -> Vec<String> {
        attempts::check(&self.pool);
        let mut orders = Vec::new();
        while let Some(order) = self.pool.poll(self.now) {
            orders.push(match order {
                Order::Connect(lane, target) => format!("connect {} {target}", lane.0.key),
                Order::Write(lane) => format!("write {}", lane.0.key),
                Order::Close(lane) => format!("close {}", lane.0.key),
                Order::Resolve(host) => format!("resolve {host}"),
            });
        }
        orders
    }

    fn lane(&self, key: u32) -> Lane {
        Lane(self.pool.lanes.id_at(key).expect("a connection"))
    }

    fn connected(&mut self, key: u32, how: Result<(), HangUp>) {
        let lane = self.lane(key);
        self.pool.connected(self.now, lane, how);
    }

    /// Carries out a write; the request's path.
    fn write(&mut self, key: u32) -> String {
        let mut out = Vec::new();
        let lane = self.lane(key);
        self.pool.render(lane, &mut out);
        let text = String::from_utf8(out).unwrap();
        text.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    fn answer(&mut self, key: u32, bytes: &[u8]) {
        let lane = self.lane(key);
        self.pool.received(self.now, lane, bytes);
    }

    fn ended(&mut self, key: u32, how: HangUp) {
        let lane = self.lane(key);
        self.pool.ended(self.now, lane, how);
    }

    fn closed(&mut self, key: u32) {
        let lane = self.lane(key);
        self.pool.closed(self.now, lane);
    }

    fn to(&mut self, ms: u64) {
        self.now = at(ms);
        if self.pool.next_deadline().is_some_and(|due_ns| due_ns <= self.now.mono_ns) {
            self.pool.fire(self.now);
        }
    }

    fn outcomes(&mut self) -> Vec<(u32, Result<u16, Failure>)> {
        let all = std::iter::from_fn(|| self.pool.outcome());
        all.map(|(number, how)| (number, how.map(|reply| reply.status))).collect()
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const UNREACHABLE: Failure = Failure::NotConnected(HangUp::Refused);

/// A virtual address hides its servers: each connection leads to one of them.
#[test]
fn all_connections_to_a_single_address_are_used() {
    let mut bench = Bench::new(RULES, "10.0.0.1");
    for number in 0..2 {
        bench.ask(number, call("/", 10_000));
        bench.connected(number, Ok(()));
    }
    bench.orders();
    for lane in 0..2 {
        bench.write(lane);
        bench.answer(lane, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
    for (number, lane) in [(2, 0), (3, 1), (4, 0), (5, 1)] {
        bench.ask(number, call("/", 10_000));
        assert_eq!(bench.orders(), [format!("write {lane}")]);
        bench.write(lane);
        bench.answer(lane, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
}

#[test]
fn a_connection_is_reused_until_it_has_been_idle_too_long() {
    let mut bench = Bench::new(RULES, "10.0.0.1");
    bench.ask(0, call("/1", 500));
    assert_eq!(bench.orders(), ["connect 0 10.0.0.1:80"]);
    bench.connected(0, Ok(()));
    assert_eq!((bench.orders(), bench.write(0)), (vec!["write 0".to_owned()], "/1".to_owned()));
    bench.to(10);
    bench.answer(0, OK);
    assert_eq!(bench.outcomes(), [(0, Ok(200))]);
    bench.ask(1, call("/2", 900));
    assert_eq!((bench.orders(), bench.write(0)), (vec!["write 0".to_owned()], "/2".to_owned()));
    bench.to(20);
    for byte in OK {
        bench.answer(0, &[*byte]);
    }
    assert_eq!(bench.outcomes(), [(1, Ok(200))]);
    bench.to(1_019);
    assert_eq!(bench.orders(), [""; 0]);
    bench.to(1_050);
    assert_eq!(bench.orders(), ["close 0"]);
    bench.closed(0);
    assert_eq!((bench.pool.connections(), bench.pool.next_deadline()), (0, None));
    assert_eq!(bench.pool.cost(), 0);
}

#[test]
fn only_what_cannot_have_arrived_is_repeated() {
    for (method, ends) in [("POST", Some(Failure::Answer(Fault::NoAnswer))), ("DELETE", None)] {
        let mut bench = Bench::new(RULES, "10.0.0.1");
        bench.ask(0, call_by(method, "/1", 500));
        bench.orders();
        bench.connected(0, Ok(()));
        // The server has closed before the request is written.
        bench.ended(0, HangUp::Eof);
        assert_eq!(bench.orders(), ["write 0", "close 0", "connect 1 10.0.0.1:80"]);
        bench.closed(0);
        bench.connected(1, Ok(()));
        assert_eq!(bench.write(1), "/1");
        // The kernel's buffer was full: not sent.
        let lane = bench.lane(1);
        bench.pool.held(lane, 0, 9);
        bench.ended(1, HangUp::Reset);
        bench.closed(1);
        bench.orders();
        let key = u32::from(bench.pool.lanes.id_at(0).is_none());
        bench.connected(key, Ok(()));
        let lane = bench.lane(key);
        bench.write(key);
        bench.pool.held(lane, 0, 9);
        bench.pool.sent(lane, 8);
        bench.ended(key, HangUp::Reset);
        assert_eq!(bench.outcomes(), ends.map_or(vec![], |why| vec![(0, Err(why))]), "{method}");
    }
}

#[test]
fn a_safe_request_is_repeated_once() {
    let mut bench = Bench::new(RULES, "10.0.0.1");
    bench.ask(0, call_by("GET", "/1", 500));
    bench.orders();
    bench.connected(0, Ok(()));
    bench.write(0);
    bench.ended(0, HangUp::Reset);
    assert_eq!(bench.orders(), ["write 0", "close 0", "connect 1 10.0.0.1:80"]);
    bench.connected(1, Ok(()));
    bench.write(1);
    bench.ended(1, HangUp::Reset);
    assert_eq!(bench.outcomes(), [(0, Err(Failure::Answer(Fault::NoAnswer)))]);
}

#[test]
fn limits_hold_and_waiting_requests_get_a_connection() {
    let mut bench = Bench::new(RULES, "10.0.0.1");
    for number in 0..4 {
        bench.ask(number, call(&format!("/{number}"), 10_000));
    }
    assert_eq!(bench.orders(), ["connect 0 10.0.0.1:80", "connect 1 10.0.0.1:80"]);
    // The other class has a connection of its own.
    assert_eq!(bench.pool.waiting(), 4);
    assert_eq!(
        bench.pool.ask(bench.now, bench.target, call("/", 1), 9),
        Err(Full),
        "four wait already"
    );
    bench.connected(0, Ok(()));
    let control = Call { class: Class::Control, ..call("/control", 10_000) };
    bench.ask(7, control);
    assert_eq!(bench.orders(), ["write 0", "connect 2 10.0.0.1:80"]);
    assert_eq!(bench.write(0), "/0");
    bench.answer(0, OK);
    assert_eq!((bench.orders(), bench.write(0)), (vec!["write 0".to_owned()], "/2".to_owned()));
    assert_eq!(bench.outcomes(), [(0, Ok(200))]);
}

/// 1 200 clients and a backend that takes 4 s: 304 of them got an error though nothing was sent.
#[test]
fn the_timeout_of_a_response_starts_when_the_request_is_sent() {
    let rules = Rules { waiting: 10, ..RULES };
    let mut bench = Bench::new(rules, "10.0.0.1");
    for number in 0..3 {
        bench.ask(number, Call { answer_ms: Some(1_000), ..call("/", 1_500) });
    }
    bench.orders();
    bench.connected(0, Ok(()));
    bench.connected(1, Ok(()));
    bench.write(1);
    bench.to(900);
    bench.write(0);
    bench.answer(0, OK);
    bench.to(1_100);
    assert_eq!(bench.outcomes(), [(0, Ok(200)), (1, Err(Failure::TimedOut))]);
    bench.to(1_800);
    assert_eq!(bench.outcomes(), [], "sent at 900 ms");
    bench.to(1_950);
    assert_eq!(bench.outcomes(), [(2, Err(Failure::TimedOut))]);
}

#[test]
fn what_waits_too_long_for_a_connection_is_unsent() {
    let mut bench = Bench::new(RULES, "10.0.0.1");
    for number in 0..3 {
        bench.ask(number, Call { answer_ms: Some(9_000), ..call("/", 1_500) });
    }
    bench.orders();
    bench.connected(0, Ok(()));
    bench.connected(1, Ok(()));
    bench.to(1_400);
    assert_eq!(bench.outcomes(), []);
    bench.to(1_520);
    assert_eq!(bench.outcomes(), [(2, Err(Failure::Unsent))]);
}

#[test]
fn unsolicited_bytes_close_the_connection() {
    for answer in [&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK"[..], OK] {
        let mut bench = Bench::new(RULES, "10.0.0.1");
        bench.ask(0, call("/", 500));
        bench.orders();
        bench.connected(0, Ok(()));
        bench.write(0);
        bench.answer(0, answer);
        if answer == OK {
            bench.answer(0, b"HTTP/1.1 408 Too late\r\n\r\n");
        }
        assert_eq!(bench.orders(), ["write 0", "close 0"]);
        assert_eq!(bench.outcomes(), [(0, Ok(200))]);
    }
}

/// A name whose first address swallows SYNs was never tried at its second.
#[test]
fn the_next_address_is_tried_after_250_ms_and_remembered() {
    let mut bench = Bench::new(Rules { connect_ms: 2_000, ..RULES }, "two");
    bench.ask(0, call("/0", 20_000));
    assert_eq!(bench.orders(), ["resolve two"]);
    let ips: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
    bench.pool.resolved(bench.now, "two", Ok(&ips));
    assert_eq!(bench.orders(), ["connect 0 10.0.0.1:80"]);
    bench.to(240);
    assert_eq!(bench.orders(), [""; 0]);
    bench.to(272);
    assert_eq!(bench.orders(), ["connect 1 10.0.0.2:80"]);
    bench.connected(1, Ok(()));
    assert_eq!((bench.orders(), bench.write(1)), (vec!["write 1".to_owned()], "/0".to_owned()));
    bench.answer(1, OK);
    assert_eq!(bench.outcomes(), [(0, Ok(200))]);
    for number in 1..4 {
        bench.ask(number, call("/", 20_000));
        assert_eq!(bench.orders(), ["write 1"]);
        bench.write(1);
        bench.answer(1, OK);
        assert_eq!(bench.outcomes(), [(number, Ok(200))]);
    }
    // The first attempt ends without a request.
    bench.to(1_000);
    bench.connected(0, Err(HangUp::Unreachable));
    assert_eq!((bench.outcomes(), bench.pool.waiting()), (vec![], 0));
}

#[test]
fn a_refused_address_is_skipped_at_once() {
    let mut bench = Bench::new(RULES, "two");
    bench.ask(0, call("/0", 20_000));
    let ips: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
    bench.pool.resolved(bench.now, "two", Ok(&ips));
    bench.orders();
    bench.connected(0, Err(HangUp::Refused));
    assert_eq!(bench.orders()[0..2], ["close 0", "connect 1 10.0.0.2:80"]);
    bench.connected(1, Err(HangUp::Refused));
    assert_eq!(bench.outcomes(), [(0, Err(UNREACHABLE))], "each was tried once");
}

#[test]
fn without_a_hold_an_open_circuit_fails_requests_at_once() {
    let mut bench = Bench::new(RULES, "10.0.0.1");
    for number in 0..5 {
        bench.ask(number, call("/", 20_000));
        bench.orders();
        bench.connected(0, Err(HangUp::Refused));
        bench.closed(0);
        assert_eq!(bench.outcomes(), [(number, Err(UNREACHABLE))]);
    }
    bench.orders();
    bench.ask(5, call("/", 20_000));
    assert_eq!((bench.outcomes(), bench.orders()), (vec![(5, Err(Failure::Circuit))], vec![]));
    bench.to(1_010);
    bench.ask(6, call("/", 20_000));
    bench.ask(7, call("/", 20_000));
    assert_eq!(bench.orders(), ["connect 0 10.0.0.1:80"], "one trial");
    assert_eq!(bench.outcomes(), [(7, Err(Failure::Circuit))]);
    bench.connected(0, Ok(()));
    bench.ask(8, call("/", 20_000));
    assert_eq!(bench.orders(), ["write 0", "connect 1 10.0.0.1:80"]);
}

#[test]
fn with_a_hold_requests_wait_in_order_until_it_is_over() {
    let rules = Rules { hold_ms: 10_000, per_address: [1, 1], ..RULES };
    let mut bench = Bench::new(rules, "10.0.0.1");
    for number in 0..3 {
        bench.ask(number, Call { answer_ms: Some(2_000), ..call("/", 2_000) });
    }
    let mut attempts = 0;
    for ms in (0..6_000).step_by(50) {
        bench.to(ms);
        for order in bench.orders() {
            if order.starts_with("connect") {
                attempts += 1;
                bench.connected(0, Err(HangUp::Refused));
            } else if order == "close 0" {
                bench.closed(0);
            }
        }
        while bench.pool.orders.iter().any(|order| matches!(order, Order::Close(_))) {
            bench.orders();
            bench.closed(0);
        }
    }
    assert!((10..=13).contains(&attempts), "{attempts} in 6 s");
    assert_eq!((bench.outcomes(), bench.pool.waiting()), (vec![], 3));
    bench.to(6_500);
    assert_eq!(bench.orders(), ["connect 0 10.0.0.1:80"]);
    bench.connected(0, Ok(()));
    for number in 0..3 {
        bench.orders();
        bench.write(0);
        bench.answer(0, OK);
        assert_eq!(bench.outcomes(), [(number, Ok(200))]);
    }
}

#[test]
fn a_hold_ends_with_the_failure_or_with_a_drain() {
    for drains in [false, true] {
        let mut bench = Bench::new(Rules { hold_ms: 3_000, ..RULES }, "none");
        bench.ask(0, call("/", 20_000));
        bench.orders();
        bench.pool.resolved(bench.now, "none", Err(NameFault::NotFound));
        assert_eq!(bench.outcomes(), []);
        bench.to(1_100);
        assert_eq!(bench.orders(), ["resolve none"]);
        bench.pool.resolved(bench.now, "none", Err(NameFault::NotFound));
        if drains {
            bench.pool.stop_holding(bench.now);
        } else {
            bench.to(2_990);
            assert_eq!(bench.outcomes(), []);
            bench.to(3_020);
        }
        let failures = [Failure::NotConnected(HangUp::NoSuchName), Failure::NoConnection];
        let ends = bench.outcomes();
        assert!(matches!(&ends[..], [(0, Err(why))] if failures.contains(why)), "{ends:?}");
    }
}

#[test]
fn a_drain_does_not_wait_for_the_resolver() {
    let mut bench = Bench::new(Rules { hold_ms: 30_000, ..RULES }, "silent");
    bench.ask(0, call("/", 20_000));
    bench.to(5_000);
    assert_eq!(bench.outcomes(), []);
    bench.pool.stop_holding(bench.now);
    bench.to(5_040);
    assert_eq!(bench.outcomes(), [(0, Err(Failure::NoConnection))]);
}

#[test]
fn a_name_that_is_not_answered_fails_in_time() {
    let mut bench = Bench::new(RULES, "silent");
    bench.ask(0, call("/", 20_000));
    assert_eq!(bench.orders(), ["resolve silent"]);
    bench.to(390);
    assert_eq!(bench.outcomes(), []);
    bench.to(420);
    assert_eq!(bench.outcomes(), [(0, Err(Failure::NoConnection))]);
}

/// 1 -> 5 backends: the new ones got no request at all.
#[test]
fn new_addresses_get_their_share() {
    let mut bench =
        Bench::new(Rules { per_address: [100, 1], connections: 500, waiting: 500, ..RULES }, "api");
    let ips: Vec<IpAddr> = (1..=5).map(|last| IpAddr::from([10, 0, 0, last])).collect();
    let (mut rng, mut address, mut due) = (Rng::new(1), BTreeMap::new(), Vec::new());
    let (mut counts, mut known) = ([0_u32; 5], 1);
    for ms in 0..40_000 {
        if ms == 10_000 {
            known = 5;
        }
        bench.to(ms);
        bench.ask(0, Call { answer_ms: Some(2_000), ..call("/", ms + 2_000) });
        for (_, key) in due.extract_if(.., |(at_ms, _)| *at_ms <= ms) {
            bench.answer(key, OK);
        }
        let mut orders: VecDeque<String> = bench.orders().into();
        while let Some(order) = orders.pop_front() {
            let words: Vec<&str> = order.split(' ').collect();
            let key = words[1].parse().unwrap_or(0);
            match words[0] {
                "resolve" => bench.pool.resolved(bench.now, "api", Ok(&ips[..known])),
                "connect" => {
                    address.insert(key, words[2].as_bytes()[7] - b'1');
                    bench.connected(key, Ok(()));
                }
                "close" => bench.closed(key),
                _ => {
                    bench.write(key);
                    counts[usize::from(address[&key])] += u32::from(ms >= 25_000);
                    due.push((ms + 20 + rng.below(60), key));
                }
            }
            orders.extend(bench.orders());
        }
        assert!(bench.outcomes().iter().all(|(_, how)| how.is_ok()));
    }
    let total: u32 = counts.iter().sum();
    // 15 s after DNS named them.
    assert!(counts.iter().all(|n| (15..=25).contains(&(100 * n / total))), "{counts:?}");
}

/// A virtual address stands for servers that come and go.
#[test]
fn a_connection_to_a_single_address_does_not_get_old() {
    let mut bench = Bench::new(RULES, "10.0.0.1");
    let mut opened = Vec::new();
    for ms in (0..60_000).step_by(100) {
        bench.to(ms);
        bench.ask(0, call("/", ms + 20_000));
        for order in bench.orders() {
            let key = order.split(' ').nth(1).unwrap().parse().unwrap();
            match order.split(' ').next().unwrap() {
                "connect" => {
                    opened.push(ms);
                    bench.connected(key, Ok(()));
                }
                "close" => bench.closed(key),
                _ => {}
            }
        }
        bench.orders();
        let busy = bench.pool.lanes.iter().find(|(_, lane)| matches!(lane.state, State::Busy(_)));
        let key = busy.unwrap().0.key;
        bench.write(key);
        bench.answer(key, OK);
        assert_eq!(bench.outcomes(), [(0, Ok(200))]);
    }
    let lives: Vec<u64> = opened.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(lives.len() >= 4 && lives.iter().all(|ms| (7_900..=12_200).contains(ms)), "{lives:?}");
    assert!(lives.windows(2).any(|pair| pair[0] != pair[1]), "spread: {lives:?}");
}

/// The server's side of a connection.
struct Peer {
    connected: bool,
    /// The response, and how much of it was sent.
    answer: Vec<u8>,
    sent: usize,
    /// Closed by the server; the pool may not know yet.
    closed: bool,
}

/// A pool, and servers that answer with the path: late, in pieces, or never.
struct Simulation {
    pool: Pool<u32>,
    targets: Vec<TargetId>,
    rng: Rng,
    now_ms: u64,
    peers: BTreeMap<Lane, Peer>,
    /// How often each request may have reached a server.
    written: BTreeMap<String, u32>,
    ends: BTreeMap<u32, u32>,
    answered: u32,
}

impl Simulation {
    fn chance(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    /// Checks what the pool reports.
    fn check(&mut self) {
        attempts::check(&self.pool);
        while let Some((number, how)) = self.pool.outcome() {
            *self.ends.entry(number).or_default() += 1;
            if let Ok(reply) = how {
                self.answered += 1;
                let path = String::from_utf8(reply.body).unwrap();
                assert_eq!(path, format!("/{number}"), "response of another request");
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(order) = self.pool.poll(at(self.now_ms)) {
            match order {
                Order::Connect(lane, _) => {
                    let peer =
                        Peer { connected: false, answer: Vec::new(), sent: 0, closed: false };
                    assert!(self.peers.insert(lane, peer).is_none());
                    assert!(self.peers.len() <= RULES.connections);
                }
                Order::Write(lane) => self.write(lane),
                Order::Close(lane) => {
                    if self.peers.remove(&lane).is_some() {
                        self.pool.closed(at(self.now_ms), lane);
                    }
                }
                Order::Resolve(host) => self.resolve(&host),
            }
        }
        self.check();
    }

    /// Names come and go, and have one to three addresses.
    fn resolve(&mut self, host: &str) {
        let found = match self.rng.below(10) {
            0 => Err(NameFault::NotFound),
            1 => Err(NameFault::Unanswered),
            n => Ok((0..=n % 3).map(|last| IpAddr::from([10, 0, 0, last as u8])).collect()),
        };
        let found: Result<Vec<IpAddr>, NameFault> = found;
        let found = found.as_deref().map_err(|fault| *fault);
        self.pool.resolved(at(self.now_ms), host, found);
    }

    fn write(&mut self, lane: Lane) {
        let Some(peer) = self.peers.get(&lane) else { return };
        let closed = peer.closed;
        let mut out = Vec::new();
        self.pool.render(lane, &mut out);
        if out.is_empty() {
            return;
        }
        let text = String::from_utf8(out).unwrap();
        let path = text.split(' ').nth(1).unwrap().to_owned();
        if closed && self.chance(50) {
            // The kernel has seen the close and takes nothing.
            self.pool.held(lane, 0, 9);
            return;
        }
        let written = self.written.entry(path.clone()).or_default();
        *written += 1;
        assert_eq!(*written, 1, "{path} was sent twice");
        let close = if self.chance(20) { "Connection: close\r\n" } else { "" };
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{close}\r\n{path}", path.len());
        let peer = self.peers.get_mut(&lane).unwrap();
        (peer.answer, peer.sent) = (answer.into_bytes(), 0);
    }

    /// A random event on a random connection.
    fn step(&mut self) {
        let nth = self.rng.below(self.peers.len() as u64) as usize;
        let Some(&lane) = self.peers.keys().nth(nth) else { return };
        let now = at(self.now_ms);
        let (lucky, fatal, silent) = (self.chance(85), self.chance(5), self.chance(30));
        let peer = self.peers.get_mut(&lane).unwrap();
        if !peer.connected {
            peer.connected = true;
            let how = if lucky { Ok(()) } else { Err(HangUp::Refused) };
            self.pool.connected(now, lane, how);
        } else if peer.closed {
            self.peers.remove(&lane);
            let how = if lucky { HangUp::Eof } else { HangUp::Reset };
            self.pool.ended(now, lane, how);
            self.pool.closed(now, lane);
        } else if fatal {
            peer.closed = true;
        } else if peer.sent < peer.answer.len() && !silent {
            let left = peer.answer[peer.sent..].to_vec();
            let n = 1 + self.rng.below(left.len() as u64) as usize;
            self.peers.get_mut(&lane).unwrap().sent += n;
            self.pool.received(now, lane, &left[..n]);
        }
    }
}

#[test]
fn every_request_ends_once_and_is_sent_at_most_once() {
    let mut answered = 0;
    for seed in 0..300 {
        let hold_ms = [0, 500][(seed % 2) as usize];
        let mut pool = Pool::new(Rules { hold_ms, ..RULES });
        let hosts = ["10.0.0.1", "b", "c"].map(|host| Target::host(host, 80));
        let targets = hosts.iter().map(|target| pool.target(target)).collect();
        let mut sim = Simulation {
            pool,
            targets,
            rng: Rng::new(seed),
            now_ms: 0,
            peers: BTreeMap::new(),
            written: BTreeMap::new(),
            ends: BTreeMap::new(),
            answered: 0,
        };
        let mut asked = 0;
        for step in 0..2_000 {
            if step < 1_000 && sim.chance(30) {
                let target = sim.targets[sim.rng.below(3) as usize];
                let deadline_ms = sim.now_ms + 1 + sim.rng.below(300);
                let mut call = call(&format!("/{asked}"), deadline_ms);
                call.class = Class::ALL[sim.rng.below(2) as usize];
                call.answer_ms = (sim.rng.below(2) == 0).then_some(200);
                let taken = sim.pool.ask(at(sim.now_ms), target, call, asked);
                asked += u32::from(taken.is_ok());
            }
            sim.carry_out();
            if !sim.peers.is_empty() {
                sim.step();
            }
            sim.carry_out();
            sim.now_ms += sim.rng.below(6);
            let now = at(sim.now_ms);
            if sim.pool.next_deadline().is_some_and(|due_ns| due_ns <= now.mono_ns) {
                sim.pool.fire(now);
            }
        }
        sim.carry_out();
        assert_eq!(sim.ends.len(), asked as usize, "seed {seed}: a request never ended");
        assert!(sim.ends.values().all(|ends| *ends == 1), "seed {seed}");
        assert_eq!(sim.pool.connections(), sim.peers.len(), "seed {seed}");
        assert_eq!((sim.pool.waiting(), sim.pool.cost()), (0, 0), "seed {seed}");
        answered += sim.answered;
    }
    assert!(answered > 10_000, "{answered}");
}

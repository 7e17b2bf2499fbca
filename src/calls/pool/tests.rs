//! Single cases, then a simulation in virtual time with faults from a seed.

use std::collections::BTreeMap;

use super::*;
use crate::proto::http_client::Request;
use crate::rng::Rng;

const RULES: Rules =
    Rules { per_target: 2, connections: 3, waiting: 4, connect_ms: 400, idle_ms: 1_000 };

fn at(ms: u64) -> Now {
    Now { mono_ns: time::ms(ms), wall_ms: 0 }
}

fn call(host: &str, path: &str, deadline_ms: u64) -> Call {
    let mut bytes = Vec::new();
    let request = Request { method: "GET", target: path, host, fields: &[], body: &[] };
    request.write(&mut bytes).unwrap();
    Call {
        target: Target::host(host, 80),
        bytes: Block::of(&bytes),
        asked: Asked::Ordinary,
        limits: Limits { head_bytes: 1_000, body_bytes: 1_000 },
        deadline_ns: time::ms(deadline_ms),
    }
}

/// What the pool reported, as text.
#[derive(Default)]
struct Log(Vec<String>);

impl Log {
    fn sink(&mut self) -> impl FnMut(CallId, News<'_>) + '_ {
        |id, news| {
            self.0.push(match news {
                News::Answer(Event::Head(head)) => format!("{} head {}", id.0, head.status()),
                News::Answer(Event::Body(body)) => {
                    format!("{} body {}", id.0, String::from_utf8_lossy(body))
                }
                News::Answer(Event::End(_)) => format!("{} end", id.0),
                News::Failed(failure) => format!("{} failed {failure:?}", id.0),
            });
        }
    }

    fn take(&mut self) -> String {
        std::mem::take(&mut self.0).join(", ")
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn lane(order: Option<&Order>) -> Lane {
    match order {
        Some(Order::Connect(lane, _) | Order::Write(lane) | Order::Close(lane)) => *lane,
        None => panic!("no order"),
    }
}

fn rendered(pool: &mut Pool, lane: Lane) -> bool {
    assert_eq!(pool.poll(at(0)), Some(Order::Write(lane)));
    let mut out = Vec::new();
    pool.render(lane, &mut out);
    !out.is_empty()
}

#[test]
fn a_connection_is_reused_until_it_has_been_idle_too_long() {
    let (mut pool, mut log) = (Pool::new(RULES), Log::default());
    pool.ask(call("a", "/1", 500)).unwrap();
    let first = lane(pool.poll(at(0)).as_ref());
    pool.connected(first, Ok(()), &mut log.sink());
    assert!(rendered(&mut pool, first));
    assert_eq!(pool.next_deadline(), Some(time::ms(500)));
    pool.received(at(10), first, OK, &mut log.sink());
    assert_eq!(log.take(), "0 head 200, 0 body ok, 0 end");
    pool.ask(call("a", "/2", 900)).unwrap();
    assert!(rendered(&mut pool, first), "the same connection");
    for byte in OK {
        pool.received(at(20), first, &[*byte], &mut log.sink());
    }
    assert_eq!(log.take(), "1 head 200, 1 body o, 1 body k, 1 end");
    assert_eq!(pool.next_deadline(), Some(time::ms(1_020)));
    pool.fire(at(1_020), &mut log.sink());
    assert_eq!(pool.poll(at(0)), Some(Order::Close(first)));
    pool.closed(first);
    assert_eq!((pool.connections(), pool.poll(at(0)), pool.next_deadline()), (0, None, None));
}

#[test]
fn only_unsent_requests_are_retried() {
    let (mut pool, mut log) = (Pool::new(RULES), Log::default());
    pool.ask(call("a", "/1", 500)).unwrap();
    let first = lane(pool.poll(at(0)).as_ref());
    pool.connected(first, Ok(()), &mut log.sink());
    assert!(rendered(&mut pool, first));
    pool.received(at(10), first, OK, &mut log.sink());
    log.take();
    // The server closes the connection before the next request is written.
    pool.ask(call("a", "/2", 500)).unwrap();
    assert_eq!(pool.poll(at(0)), Some(Order::Write(first)));
    pool.ended(first, HangUp::Eof, &mut log.sink());
    assert_eq!(pool.poll(at(0)), Some(Order::Close(first)));
    pool.closed(first);
    let second = lane(pool.poll(at(0)).as_ref());
    assert!(second != first && log.take().is_empty());
    pool.connected(second, Ok(()), &mut log.sink());
    assert!(rendered(&mut pool, second));
    // Rendered, but the kernel's buffer was full: not sent.
    pool.held(second);
    pool.ended(second, HangUp::Reset, &mut log.sink());
    pool.closed(second);
    assert_eq!(pool.poll(at(0)), Some(Order::Close(second)));
    let third = lane(pool.poll(at(0)).as_ref());
    pool.connected(third, Ok(()), &mut log.sink());
    assert!(rendered(&mut pool, third));
    pool.held(third);
    pool.sent(third);
    pool.ended(third, HangUp::Reset, &mut log.sink());
    assert_eq!(log.take(), "1 failed Answer(NoAnswer)");
}

#[test]
fn limits_hold_and_waiting_requests_get_a_connection() {
    let (mut pool, mut log) = (Pool::new(RULES), Log::default());
    for path in ["/0", "/1", "/2"] {
        pool.ask(call("a", path, 500)).unwrap();
    }
    let (first, second) = (lane(pool.poll(at(0)).as_ref()), lane(pool.poll(at(0)).as_ref()));
    assert_eq!(pool.poll(at(0)), None, "two connections per target");
    for number in 0..3 {
        pool.ask(call("a", &format!("/more/{number}"), 100)).unwrap();
    }
    assert_eq!(pool.ask(call("a", "/toomuch", 500)), Err(Full));
    pool.fire(at(100), &mut log.sink());
    assert_eq!(log.take(), "3 failed TimedOut, 4 failed TimedOut, 5 failed TimedOut");
    pool.connected(first, Err(HangUp::Refused), &mut log.sink());
    pool.connected(second, Ok(()), &mut log.sink());
    assert_eq!(log.take(), "0 failed NotConnected(Refused)");
    assert_eq!(pool.poll(at(0)), Some(Order::Close(first)));
    assert!(rendered(&mut pool, second));
    pool.received(at(110), second, OK, &mut log.sink());
    assert!(rendered(&mut pool, second), "the waiting request");
    pool.closed(first);
    pool.forget(CallId(2));
    assert_eq!(
        pool.poll(at(0)),
        Some(Order::Close(second)),
        "or its response would be misassigned"
    );
}

#[test]
fn the_connect_timeout_is_shorter_than_the_deadline() {
    let (mut pool, mut log) = (Pool::new(RULES), Log::default());
    for path in ["/0", "/1"] {
        pool.ask(call("a", path, 29_000)).unwrap();
    }
    pool.ask(call("b", "/2", 350)).unwrap();
    let lanes = [100, 101, 102].map(|ms| lane(pool.poll(at(ms)).as_ref()));
    assert_eq!(pool.next_deadline(), Some(time::ms(350)), "the request's own deadline");
    pool.fire(at(499), &mut log.sink());
    assert_eq!(log.take(), "2 failed NoConnection");
    pool.connected(lanes[0], Ok(()), &mut log.sink());
    assert_eq!(pool.poll(at(499)), Some(Order::Close(lanes[2])));
    assert!(rendered(&mut pool, lanes[0]));
    assert_eq!(pool.next_deadline(), Some(time::ms(501)), "400 ms after the order");
    pool.fire(at(501), &mut log.sink());
    assert_eq!(log.take(), "1 failed NoConnection");
    assert_eq!(pool.poll(at(501)), Some(Order::Close(lanes[1])));
    pool.connected(lanes[1], Ok(()), &mut log.sink());
    assert_eq!((pool.poll(at(501)), log.take()), (None, String::new()), "too late");
    assert_eq!(pool.next_deadline(), Some(time::ms(29_000)), "no connect timeout once connected");
}

#[test]
fn unsolicited_bytes_close_the_connection() {
    let (mut pool, mut log) = (Pool::new(RULES), Log::default());
    for answer in [&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK"[..], OK] {
        pool.ask(call("a", "/", 500)).unwrap();
        let lane = lane(pool.poll(at(0)).as_ref());
        pool.connected(lane, Ok(()), &mut log.sink());
        assert!(rendered(&mut pool, lane));
        pool.received(at(1), lane, answer, &mut log.sink());
        if answer == OK {
            pool.received(at(1), lane, b"HTTP/1.1 408 Too late\r\n\r\n", &mut log.sink());
        }
        assert_eq!(pool.poll(at(0)), Some(Order::Close(lane)));
        pool.closed(lane);
    }
    assert!(!log.take().contains("failed"));
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
    pool: Pool,
    rng: Rng,
    now_ms: u64,
    peers: BTreeMap<Lane, Peer>,
    /// How often each request may have reached a server.
    written: BTreeMap<String, u32>,
    ends: BTreeMap<CallId, u32>,
    answered: u32,
}

impl Simulation {
    fn chance(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    /// Calls the pool and checks what it reports.
    fn with(&mut self, what: impl FnOnce(&mut Pool, Sink<'_>)) {
        let (ends, answered) = (&mut self.ends, &mut self.answered);
        what(&mut self.pool, &mut |id, news| match news {
            News::Answer(Event::Body(body)) => {
                let whole = format!("/{}", id.0);
                assert!(
                    whole.contains(std::str::from_utf8(body).unwrap()),
                    "response of another request"
                );
            }
            News::Answer(Event::Head(_)) => {}
            News::Answer(Event::End(_)) => {
                *answered += 1;
                *ends.entry(id).or_default() += 1;
            }
            News::Failed(_) => *ends.entry(id).or_default() += 1,
        });
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
                        self.pool.closed(lane);
                    }
                }
            }
        }
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
            self.pool.held(lane);
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
            self.with(|pool, sink| pool.connected(lane, how, sink));
        } else if peer.closed {
            self.peers.remove(&lane);
            let how = if lucky { HangUp::Eof } else { HangUp::Reset };
            self.with(|pool, sink| pool.ended(lane, how, sink));
            self.pool.closed(lane);
        } else if fatal {
            peer.closed = true;
        } else if peer.sent < peer.answer.len() && !silent {
            let left = peer.answer[peer.sent..].to_vec();
            let n = 1 + self.rng.below(left.len() as u64) as usize;
            self.peers.get_mut(&lane).unwrap().sent += n;
            self.with(|pool, sink| pool.received(now, lane, &left[..n], sink));
        }
    }
}

#[test]
fn every_request_ends_once_and_is_sent_at_most_once() {
    let mut answered = 0;
    for seed in 0..300 {
        let mut sim = Simulation {
            pool: Pool::new(RULES),
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
                let host = ["a", "b", "c"][sim.rng.below(3) as usize];
                let deadline_ms = sim.now_ms + 1 + sim.rng.below(300);
                let taken = sim.pool.ask(call(host, &format!("/{asked}"), deadline_ms));
                asked += u64::from(taken.is_ok());
            }
            sim.carry_out();
            if !sim.peers.is_empty() {
                sim.step();
            }
            sim.carry_out();
            sim.now_ms += sim.rng.below(4);
            let now = at(sim.now_ms);
            if sim.pool.next_deadline().is_some_and(|due_ns| due_ns <= now.mono_ns) {
                sim.with(|pool, sink| pool.fire(now, sink));
            }
        }
        sim.carry_out();
        assert_eq!(sim.ends.len() as u64, asked, "seed {seed}: a request never ended");
        assert!(sim.ends.values().all(|ends| *ends == 1), "seed {seed}");
        assert_eq!(sim.pool.connections(), sim.peers.len(), "seed {seed}");
        answered += sim.answered;
    }
    assert!(answered > 10_000, "{answered}");
}

//! One thing after the other first; then a pool and its servers in virtual time, where everything
//! that can go wrong does, from a seed.

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

/// What the calls heard, as text.
#[derive(Default)]
struct Heard(Vec<String>);

impl Heard {
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
        None => panic!("there is nothing to do"),
    }
}

fn rendered(pool: &mut Pool, lane: Lane) -> bool {
    assert_eq!(pool.poll(at(0)), Some(Order::Write(lane)));
    let mut out = Vec::new();
    pool.render(lane, &mut out);
    !out.is_empty()
}

#[test]
fn a_connection_is_used_again_until_it_is_idle_for_too_long() {
    let (mut pool, mut heard) = (Pool::new(RULES), Heard::default());
    pool.ask(call("a", "/1", 500)).unwrap();
    let first = lane(pool.poll(at(0)).as_ref());
    pool.connected(first, Ok(()), &mut heard.sink());
    assert!(rendered(&mut pool, first));
    assert_eq!(pool.next_deadline(), Some(time::ms(500)));
    pool.received(at(10), first, OK, &mut heard.sink());
    assert_eq!(heard.take(), "0 head 200, 0 body ok, 0 end");
    pool.ask(call("a", "/2", 900)).unwrap();
    assert!(rendered(&mut pool, first), "the same one");
    for byte in OK {
        pool.received(at(20), first, &[*byte], &mut heard.sink());
    }
    assert_eq!(heard.take(), "1 head 200, 1 body o, 1 body k, 1 end");
    assert_eq!(pool.next_deadline(), Some(time::ms(1_020)));
    pool.fire(at(1_020), &mut heard.sink());
    assert_eq!(pool.poll(at(0)), Some(Order::Close(first)));
    pool.closed(first);
    assert_eq!((pool.connections(), pool.poll(at(0)), pool.next_deadline()), (0, None, None));
}

#[test]
fn only_what_was_never_written_is_sent_again() {
    let (mut pool, mut heard) = (Pool::new(RULES), Heard::default());
    pool.ask(call("a", "/1", 500)).unwrap();
    let first = lane(pool.poll(at(0)).as_ref());
    pool.connected(first, Ok(()), &mut heard.sink());
    assert!(rendered(&mut pool, first));
    pool.received(at(10), first, OK, &mut heard.sink());
    heard.take();
    // The server hangs up while the next request waits to be written.
    pool.ask(call("a", "/2", 500)).unwrap();
    assert_eq!(pool.poll(at(0)), Some(Order::Write(first)));
    pool.ended(first, HangUp::Eof, &mut heard.sink());
    assert_eq!(pool.poll(at(0)), Some(Order::Close(first)));
    pool.closed(first);
    let second = lane(pool.poll(at(0)).as_ref());
    assert!(second != first && heard.take().is_empty());
    pool.connected(second, Ok(()), &mut heard.sink());
    assert!(rendered(&mut pool, second));
    // Handed over, but the kernel had no room: as good as never written.
    pool.held(second);
    pool.ended(second, HangUp::Reset, &mut heard.sink());
    pool.closed(second);
    assert_eq!(pool.poll(at(0)), Some(Order::Close(second)));
    let third = lane(pool.poll(at(0)).as_ref());
    pool.connected(third, Ok(()), &mut heard.sink());
    assert!(rendered(&mut pool, third));
    pool.held(third);
    pool.sent(third);
    pool.ended(third, HangUp::Reset, &mut heard.sink());
    assert_eq!(heard.take(), "1 failed Answer(NoAnswer)");
}

#[test]
fn limits_hold_and_who_waits_gets_a_turn() {
    let (mut pool, mut heard) = (Pool::new(RULES), Heard::default());
    for path in ["/0", "/1", "/2"] {
        pool.ask(call("a", path, 500)).unwrap();
    }
    let (first, second) = (lane(pool.poll(at(0)).as_ref()), lane(pool.poll(at(0)).as_ref()));
    assert_eq!(pool.poll(at(0)), None, "two to a target");
    for number in 0..3 {
        pool.ask(call("a", &format!("/more/{number}"), 100)).unwrap();
    }
    assert_eq!(pool.ask(call("a", "/toomuch", 500)), Err(Full));
    pool.fire(at(100), &mut heard.sink());
    assert_eq!(heard.take(), "3 failed TimedOut, 4 failed TimedOut, 5 failed TimedOut");
    pool.connected(first, Err(HangUp::Refused), &mut heard.sink());
    pool.connected(second, Ok(()), &mut heard.sink());
    assert_eq!(heard.take(), "0 failed NotConnected(Refused)");
    assert_eq!(pool.poll(at(0)), Some(Order::Close(first)));
    assert!(rendered(&mut pool, second));
    pool.received(at(110), second, OK, &mut heard.sink());
    assert!(rendered(&mut pool, second), "the one that waited");
    pool.closed(first);
    pool.forget(CallId(2));
    assert_eq!(pool.poll(at(0)), Some(Order::Close(second)), "its answer must not be another's");
}

#[test]
fn a_connection_has_less_time_to_come_about_than_an_answer() {
    let (mut pool, mut heard) = (Pool::new(RULES), Heard::default());
    for path in ["/0", "/1"] {
        pool.ask(call("a", path, 29_000)).unwrap();
    }
    pool.ask(call("b", "/2", 350)).unwrap();
    let lanes = [100, 101, 102].map(|ms| lane(pool.poll(at(ms)).as_ref()));
    assert_eq!(pool.next_deadline(), Some(time::ms(350)), "a request's own time");
    pool.fire(at(499), &mut heard.sink());
    assert_eq!(heard.take(), "2 failed NoConnection");
    pool.connected(lanes[0], Ok(()), &mut heard.sink());
    assert_eq!(pool.poll(at(499)), Some(Order::Close(lanes[2])));
    assert!(rendered(&mut pool, lanes[0]));
    assert_eq!(pool.next_deadline(), Some(time::ms(501)), "400 ms after it was begun");
    pool.fire(at(501), &mut heard.sink());
    assert_eq!(heard.take(), "1 failed NoConnection");
    assert_eq!(pool.poll(at(501)), Some(Order::Close(lanes[1])));
    pool.connected(lanes[1], Ok(()), &mut heard.sink());
    assert_eq!((pool.poll(at(501)), heard.take()), (None, String::new()), "too late");
    assert_eq!(pool.next_deadline(), Some(time::ms(29_000)), "who is connected has all of it");
}

#[test]
fn what_a_server_says_unasked_ends_the_connection() {
    let (mut pool, mut heard) = (Pool::new(RULES), Heard::default());
    for answer in [&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK"[..], OK] {
        pool.ask(call("a", "/", 500)).unwrap();
        let lane = lane(pool.poll(at(0)).as_ref());
        pool.connected(lane, Ok(()), &mut heard.sink());
        assert!(rendered(&mut pool, lane));
        pool.received(at(1), lane, answer, &mut heard.sink());
        if answer == OK {
            pool.received(at(1), lane, b"HTTP/1.1 408 Too late\r\n\r\n", &mut heard.sink());
        }
        assert_eq!(pool.poll(at(0)), Some(Order::Close(lane)));
        pool.closed(lane);
    }
    assert!(!heard.take().contains("failed"));
}

/// A connection as the other side sees it.
struct Line {
    stands: bool,
    /// What it has to answer, and what of that is said.
    answer: Vec<u8>,
    said: usize,
    /// The end that the pool may not know of yet.
    gone: bool,
}

/// Servers that answer with the path, late, in pieces or never, and everyone who asks.
struct World {
    pool: Pool,
    rng: Rng,
    now_ms: u64,
    lines: BTreeMap<Lane, Line>,
    /// How often a request may have reached a server.
    written: BTreeMap<String, u32>,
    ends: BTreeMap<CallId, u32>,
    answered: u32,
}

impl World {
    fn chance(&mut self, percent: u64) -> bool {
        self.rng.below(100) < percent
    }

    /// Calls the pool, with someone who listens.
    fn with(&mut self, what: impl FnOnce(&mut Pool, Sink<'_>)) {
        let (ends, answered) = (&mut self.ends, &mut self.answered);
        what(&mut self.pool, &mut |id, news| match news {
            News::Answer(Event::Body(body)) => {
                let whole = format!("/{}", id.0);
                assert!(whole.contains(std::str::from_utf8(body).unwrap()), "another's answer");
            }
            News::Answer(Event::Head(_)) => {}
            News::Answer(Event::End(_)) => {
                *answered += 1;
                *ends.entry(id).or_default() += 1;
            }
            News::Failed(_) => *ends.entry(id).or_default() += 1,
        });
    }

    fn obey(&mut self) {
        while let Some(order) = self.pool.poll(at(self.now_ms)) {
            match order {
                Order::Connect(lane, _) => {
                    let far = Line { stands: false, answer: Vec::new(), said: 0, gone: false };
                    assert!(self.lines.insert(lane, far).is_none());
                    assert!(self.lines.len() <= RULES.connections);
                }
                Order::Write(lane) => self.write(lane),
                Order::Close(lane) => {
                    if self.lines.remove(&lane).is_some() {
                        self.pool.closed(lane);
                    }
                }
            }
        }
    }

    fn write(&mut self, lane: Lane) {
        let Some(far) = self.lines.get(&lane) else { return };
        let gone = far.gone;
        let mut out = Vec::new();
        self.pool.render(lane, &mut out);
        if out.is_empty() {
            return;
        }
        let text = String::from_utf8(out).unwrap();
        let path = text.split(' ').nth(1).unwrap().to_owned();
        if gone && self.chance(50) {
            // The kernel knows it already and takes nothing.
            self.pool.held(lane);
            return;
        }
        let written = self.written.entry(path.clone()).or_default();
        *written += 1;
        assert_eq!(*written, 1, "{path} was sent twice");
        let close = if self.chance(20) { "Connection: close\r\n" } else { "" };
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{close}\r\n{path}", path.len());
        let far = self.lines.get_mut(&lane).unwrap();
        (far.answer, far.said) = (answer.into_bytes(), 0);
    }

    /// Something happens on one connection.
    fn stir(&mut self) {
        let nth = self.rng.below(self.lines.len() as u64) as usize;
        let Some(&lane) = self.lines.keys().nth(nth) else { return };
        let now = at(self.now_ms);
        let (lucky, fatal, silent) = (self.chance(85), self.chance(5), self.chance(30));
        let far = self.lines.get_mut(&lane).unwrap();
        if !far.stands {
            far.stands = true;
            let how = if lucky { Ok(()) } else { Err(HangUp::Refused) };
            self.with(|pool, sink| pool.connected(lane, how, sink));
        } else if far.gone {
            self.lines.remove(&lane);
            let how = if lucky { HangUp::Eof } else { HangUp::Reset };
            self.with(|pool, sink| pool.ended(lane, how, sink));
            self.pool.closed(lane);
        } else if fatal {
            far.gone = true;
        } else if far.said < far.answer.len() && !silent {
            let left = far.answer[far.said..].to_vec();
            let n = 1 + self.rng.below(left.len() as u64) as usize;
            self.lines.get_mut(&lane).unwrap().said += n;
            self.with(|pool, sink| pool.received(now, lane, &left[..n], sink));
        }
    }
}

#[test]
fn every_request_has_one_end_and_is_written_at_most_once() {
    let mut answered = 0;
    for seed in 0..300 {
        let mut world = World {
            pool: Pool::new(RULES),
            rng: Rng::new(seed),
            now_ms: 0,
            lines: BTreeMap::new(),
            written: BTreeMap::new(),
            ends: BTreeMap::new(),
            answered: 0,
        };
        let mut asked = 0;
        for step in 0..2_000 {
            if step < 1_000 && world.chance(30) {
                let host = ["a", "b", "c"][world.rng.below(3) as usize];
                let deadline_ms = world.now_ms + 1 + world.rng.below(300);
                let taken = world.pool.ask(call(host, &format!("/{asked}"), deadline_ms));
                asked += u64::from(taken.is_ok());
            }
            world.obey();
            if !world.lines.is_empty() {
                world.stir();
            }
            world.obey();
            world.now_ms += world.rng.below(4);
            let now = at(world.now_ms);
            if world.pool.next_deadline().is_some_and(|due_ns| due_ns <= now.mono_ns) {
                world.with(|pool, sink| pool.fire(now, sink));
            }
        }
        world.obey();
        assert_eq!(world.ends.len() as u64, asked, "seed {seed}: somebody waits for ever");
        assert!(world.ends.values().all(|ends| *ends == 1), "seed {seed}");
        assert_eq!(world.pool.connections(), world.lines.len(), "seed {seed}");
        answered += world.answered;
    }
    assert!(answered > 10_000, "{answered}");
}

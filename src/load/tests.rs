//! Clients against a server in virtual time, which is slow, stopped or away: nothing that was due
//! may be missing from the report.

use super::*;
use crate::behaviours::Kind;
use crate::engine::Target;
use crate::proto::upgrade::Ask;
use crate::time::ms;

const FOREVER: u64 = u64::MAX;

/// When it is answered, its number, its client and its bytes.
type Received = (u64, u64, Id, Vec<u8>);

/// A plain echo, which needs no handshake, and the driver of its clients.
struct Run {
    load: Load,
    now_ns: u64,
    /// Frames that the server has, and when it answers them.
    server: BinaryHeap<Reverse<Received>>,
    received: u64,
    /// The server answers after this time.
    delay_ns: u64,
    /// It works this long for each message, one at a time.
    work_ns: u64,
    free_ns: u64,
    /// While it is stopped it answers nothing.
    stopped: std::ops::Range<u64>,
    /// At this time it drops all connections, and it accepts none until then.
    away: std::ops::Range<u64>,
    /// The clients' process gets no CPU.
    starved: std::ops::Range<u64>,
    interrupts: Vec<u64>,
    /// The server accepts connections and reads nothing.
    deaf: bool,
    exited: bool,
}

pub(super) fn plan(life: Life, pace: Pace, clients: usize) -> Plan {
    Plan {
        targets: vec![Target::Tcp(([127, 0, 0, 1], 1).into())],
        ask: Ask { host: "h".to_owned(), path: "/".to_owned(), ..Ask::default() },
        clients,
        ramp: None,
        life,
        when_lost: WhenLost::Leave,
        size: 0,
        kind: Kind::Text,
        pace,
        fragment: 0,
        server_kind: ServerKind::PlainEcho,
        answers: Answers::Any,
        patience_ms: 60_000,
        progress_ms: None,
        start_ms: None,
    }
}

/// Messages per second of each client.
fn rate(per_second: u64) -> Pace {
    Pace::Open { interval_ns: 1_000_000_000 / per_second }
}

fn for_ms(ms: u64) -> Life {
    Life::Time { ms }
}

impl Run {
    fn of(plan: Plan) -> Self {
        Self {
            load: Load::new(plan, 1),
            now_ns: ms(1_000),
            server: BinaryHeap::new(),
            received: 0,
            delay_ns: ms(1),
            work_ns: 0,
            free_ns: 0,
            stopped: 0..0,
            away: 0..0,
            starved: 0..0,
            interrupts: Vec::new(),
            deaf: false,
            exited: false,
        }
    }

    fn now(&self) -> Now {
        Now { mono_ns: self.now_ns, wall_ms: (self.now_ns / 1_000_000) as i64 }
    }

    fn report(mut self) -> Report {
        for _ in 0..10_000_000 {
            self.turn();
            if self.exited {
                return self.load.report().clone();
            }
        }
        panic!("it does not end: {:?}", self.load.report());
    }

    fn turn(&mut self) {
        self.act();
        let next_ns = self.load.next_deadline().unwrap_or(FOREVER);
        let answer_ns = self.server.peek().map_or(FOREVER, |Reverse((at, ..))| *at);
        let others = [Some(&self.away.start), self.interrupts.first()].into_iter().flatten();
        let others = others.copied().filter(|at| *at > self.now_ns);
        self.now_ns = self.now_ns.max(others.chain([next_ns, answer_ns]).min().unwrap());
        if self.starved.contains(&self.now_ns) {
            self.now_ns = self.starved.end;
        }
        if self.away.contains(&self.now_ns) {
            self.server.clear();
            let open: Vec<Id> = self.load.clients.iter().map(|(id, _)| id).collect();
            for id in open {
                self.load.ended(self.now(), id, HangUp::Reset, &mut Out::default());
                self.load.closed(self.now(), id);
            }
        }
        if self.interrupts.first().is_some_and(|at| *at <= self.now_ns) {
            self.interrupts.remove(0);
            self.load.signal(self.now(), Signal::Stop);
        }
        self.answer();
        self.load.fire(self.now());
    }

    fn act(&mut self) {
        while let Some(action) = self.load.poll() {
            let mut out = Out::default();
            match action {
                Action::Connect(id, _) if self.away.contains(&self.now_ns) => {
                    self.load.connected(self.now(), id, Err(HangUp::Refused), &mut out);
                }
                Action::Connect(id, _) => {
                    self.load.connected(self.now(), id, Ok(()), &mut out);
                    self.receive(id, &out);
                }
                Action::Write(id) => {
                    self.load.render(self.now(), id, &mut out);
                    self.receive(id, &out);
                }
                Action::Close(id) | Action::Reset(id) => self.load.closed(self.now(), id),
                Action::Exit(_) => self.exited = true,
                Action::Show(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The server receives short frames, with their masks.
    fn receive(&mut self, id: Id, out: &Out) {
        let mut bytes = if self.deaf { &[][..] } else { &out.bytes[..] };
        while let [_, length, ..] = bytes {
            let (frame, rest) = bytes.split_at(2 + 4 + usize::from(length & 0x7f));
            let start_ns = self.free_ns.max(self.now_ns);
            self.free_ns = start_ns + self.work_ns;
            let mut at_ns = self.free_ns + self.delay_ns;
            if self.stopped.contains(&at_ns) {
                at_ns = self.stopped.end;
            }
            self.received += 1;
            self.server.push(Reverse((at_ns, self.received, id, frame.to_vec())));
            bytes = rest;
        }
    }

    fn answer(&mut self) {
        let mut shared = vec![0; 64 * 1024];
        while let Some(Reverse((at_ns, _, id, frame))) = self.server.peek().cloned() {
            if at_ns > self.now_ns {
                return;
            }
            self.server.pop();
            let room = self.load.room(id, &mut shared);
            if let Some(room) = room.get_mut(..frame.len()) {
                room.copy_from_slice(&frame);
                let mut out = Out::default();
                self.load.received(self.now(), id, frame.len(), &mut shared, &mut out);
                self.receive(id, &out);
                self.act();
            }
        }
    }
}

/// Each message that was due has exactly one fate, and a value in the histogram.
fn check(report: &Report) {
    let Report { due, sent, repeated, answered, failed, lost, unsent, unanswered, .. } = *report;
    assert_eq!(due, sent - repeated + unsent, "{report:?}");
    // A message that was lost may have been repeated, or not.
    let fates = answered + failed + unsent + unanswered;
    assert!((fates..=fates + lost).contains(&due), "{due}, not {fates}: {report:?}");
    assert_eq!(report.latency.total(), due - failed, "{report:?}");
}

#[test]
fn a_healthy_server_leaves_nothing_unanswered() {
    for pace in [rate(100), Pace::Closed { depth: 1 }, Pace::Closed { depth: 16 }] {
        for delay_ms in [1, 50, 2_000] {
            let mut run = Run::of(plan(for_ms(1_000), pace, 4));
            run.delay_ns = ms(delay_ms);
            let report = run.report();
            check(&report);
            assert_eq!(report.unanswered + report.unsent + report.lost, 0, "{pace:?} {delay_ms}");
            assert_eq!(report.ends, [(Outcome::Closed(1000), 4)].into());
            if pace == rate(100) {
                assert_eq!((report.due, report.answered), (400, 400));
            }
            // The rate is that of the planned time, not that until the last answer.
            assert_eq!(report.until_ns - report.began_ns, ms(1_000));
            assert!(report.lag.most() == 0, "{:?}", report.lag);
        }
    }
}

/// The server is stopped (SIGSTOP) for the second half, and does not come back.
#[test]
fn a_stopped_server_cannot_hide_what_was_due() {
    let limits = Thresholds { p99_ns: Some(ms(50)), errors: Some(0), downtime_ns: None };
    for pace in [rate(100), Pace::Closed { depth: 2 }] {
        let plan = Plan { patience_ms: 3_000, ..plan(for_ms(1_000), pace, 4) };
        let mut run = Run::of(plan.clone());
        run.stopped = ms(1_500)..FOREVER;
        let report = run.report();
        check(&report);
        assert!(report.unanswered > 0 && report.unsent == 0, "{report:?}");
        let mut summary = Summary::new("", &plan, &report);
        assert_eq!(summary.errors, report.unanswered + 4, "the connections failed as well");
        assert!(report.latency.most() >= ms(3_000), "{:?}", report.latency);
        assert_eq!(summary.judge(&limits), 3);
        assert_eq!(summary.limited, 0);
        let missed = summary.missed;
        if pace == rate(100) {
            assert!((report.due, report.sent) == (400, 400), "{report:?}");
            assert!(report.latency.quantile(990) > ms(2_900), "{:?}", report.latency);
            assert_eq!(missed.len(), 2, "{missed:?}");
        } else {
            // A closed loop waits, so that few messages were due. They count as errors.
            assert_eq!(report.unanswered, 8);
            assert!(missed.iter().any(|missed| missed == "--max-errors 0: was 12 errors"));
        }
    }
}

/// It comes back: everything is answered, late.
#[test]
fn a_stall_is_in_the_latency() {
    let mut run = Run::of(plan(for_ms(1_000), rate(100), 4));
    run.stopped = ms(1_200)..ms(1_700);
    let report = run.report();
    check(&report);
    assert_eq!((report.due, report.answered, report.unanswered), (400, 400, 0));
    assert!(report.latency.quantile(500) > ms(0) && report.latency.quantile(900) > ms(350));
    assert!(report.lag.most() == 0, "the generator was not late");
}

/// `/throttled` answers ten messages a second: 10 clients × 1000/s for 4 s.
#[test]
fn an_overloaded_server_cannot_hide_what_was_never_sent() {
    let plan = plan(for_ms(4_000), rate(1_000), 10);
    let mut run = Run::of(plan.clone());
    run.work_ns = ms(100);
    let report = run.report();
    check(&report);
    assert_eq!((report.due, report.begun), (40_000, 10));
    assert!(report.unsent > 25_000 && report.unanswered > 9_000, "{report:?}");
    assert_eq!(report.until_ns - report.began_ns, ms(4_000));
    assert!(report.latency.quantile(500) > ms(10_000), "{}", report.latency.quantile(500));
    let summary = Summary::new("", &plan, &report);
    assert!(summary.errors >= report.unsent + report.unanswered);
    assert_eq!(summary.limited, 0);
    assert!(report.lag.most() == 0, "the server held messages up, not the generator");
}

#[test]
fn what_is_due_while_a_client_is_away_counts() {
    for (when_lost, back_ms) in
        [(WhenLost::Reconnect, 1_500), (WhenLost::Reconnect, 90_000), (WhenLost::Leave, 1_500)]
    {
        let life = Life::Time { ms: 10_000 };
        let mut run = Run::of(Plan { when_lost, ..plan(life, rate(100), 2) });
        (run.delay_ns, run.away) = (ms(30), ms(1_300)..ms(back_ms));
        let report = run.report();
        check(&report);
        assert!(report.lost > 0, "{report:?}");
        if when_lost == WhenLost::Leave {
            // All clients are gone, and the test ends.
            assert_eq!(report.due, report.sent + report.unsent);
        } else if back_ms == 1_500 {
            assert_eq!((report.due, report.answered, report.unsent), (2_000, 2_000, 0));
            assert_eq!(report.repeated, report.lost);
            assert!(report.latency.most() >= ms(200), "from when it was due");
            assert!(report.lag.most() == 0, "the client could not send");
        } else {
            assert!(report.due == 2_000 && report.unsent > 1_900, "{report:?}");
            assert!(report.latency.quantile(100) > 0);
            assert!(report.latency.quantile(500) > ms(4_000));
        }
    }
}

/// A lost message is sent again, and its latency counts from the first time.
#[test]
fn a_repeated_message_counts_from_when_it_was_first_sent() {
    let pace = Pace::Closed { depth: 4 };
    let life = Life::Messages(2_000);
    let mut run = Run::of(Plan { when_lost: WhenLost::Reconnect, ..plan(life, pace, 3) });
    run.away = ms(1_050)..ms(1_400);
    let report = run.report();
    check(&report);
    assert_eq!((report.answered, report.repeated), (6_000, 12));
    assert_eq!((report.lost, report.unanswered), (12, 0));
    assert!(report.latency.most() >= ms(350), "{}", report.latency.most());
}

/// Nothing is recorded twice however often the user presses Ctrl-C.
#[test]
fn interrupts() {
    for interrupts in [vec![ms(1_500)], vec![ms(1_500), ms(1_600), ms(1_600), ms(1_700)]] {
        let mut run = Run::of(plan(for_ms(60_000), rate(100), 4));
        let cut = interrupts.len() > 1;
        run.stopped = if cut { ms(1_400)..FOREVER } else { 0..0 };
        run.interrupts = interrupts;
        let report = run.report();
        check(&report);
        assert!(report.interrupted);
        let mut summary = Summary::new("", &plan(for_ms(60_000), rate(100), 4), &report);
        assert_eq!(summary.judge(&Thresholds { p99_ns: Some(1), ..Thresholds::default() }), 4);
        assert_eq!(summary.missed.len(), 1, "thresholds are still compared");
        assert_eq!((report.due, report.unsent), (200, 0));
        assert_eq!(report.unanswered > 0, cut, "{report:?}");
        assert!(report.latency.most() < ms(300));
    }
}

/// Only a late generator is late.
#[test]
fn a_starved_generator_says_so() {
    let mut run = Run::of(plan(for_ms(1_000), rate(100), 4));
    run.starved = ms(1_200)..ms(1_700);
    let report = run.report();
    check(&report);
    assert_eq!((report.due, report.answered), (400, 400));
    assert!(report.lag.most() > ms(480) && report.lag.total() == 400, "{:?}", report.lag.most());
    let summary = Summary::new("", &plan(for_ms(1_000), rate(100), 4), &report);
    assert_eq!(summary.limited, 1);
    assert!(summary.page().contains(
        "\n            the generator, not the server, was the limit: more CPU or more generators\n"
    ));
}

/// It was stopped (SIGSTOP) until after the end, and the server was blamed for what was never sent.
#[test]
fn a_generator_that_is_starved_past_the_end_says_so() {
    let mut run = Run::of(plan(for_ms(1_000), rate(100), 4));
    run.starved = ms(1_500)..ms(4_000);
    let report = run.report();
    check(&report);
    assert!(report.unsent > 190 && report.lag.total() == 400, "{report:?}");
    assert!(report.lag.most() > ms(2_400) && report.lag.quantile(700) > ms(2_000));
    assert_eq!(Summary::new("", &plan(for_ms(1_000), rate(100), 4), &report).limited, 1);
    // If the server held the messages up, it is not the generator.
    let mut run = Run::of(plan(for_ms(4_000), rate(1_000), 4));
    (run.stopped, run.starved) = (ms(1_500)..FOREVER, ms(4_500)..ms(7_000));
    let report = run.report();
    check(&report);
    assert!(report.unsent > 1_000, "{report:?}");
    assert_eq!(report.lag.most(), 0);
}

/// Clients that are interrupted while they connect say nothing about the server, unless the test
/// was long enough.
#[test]
fn clients_that_never_connected() {
    for interrupts in [vec![ms(1_300)], vec![]] {
        let plan = Plan { server_kind: ServerKind::WebSocket, ..plan(for_ms(500), rate(9), 4) };
        let mut run = Run::of(plan.clone());
        run.deaf = true;
        run.interrupts = interrupts.clone();
        let report = run.report();
        let mut summary = Summary::new("", &plan, &report);
        let code = summary.judge(&Thresholds::default());
        let page = summary.page();
        if interrupts.is_empty() {
            assert_eq!((code, summary.errors, summary.not_yet_connected), (1, 4, 0), "{page}");
            assert!(page.contains("\nfailed      4 clients never connected\n"), "{page}");
        } else {
            assert_eq!((code, summary.errors, summary.not_yet_connected), (4, 0, 4), "{page}");
            assert!(
                page.contains("\n            4 clients still connecting at the end\n"),
                "{page}"
            );
            assert!(!page.contains("failed"), "{page}");
        }
    }
}

/// Several generators start together.
#[test]
fn a_start_at_a_given_time() {
    for (start_ms, began_ms) in [(2_500, 2_500), (-1_000, 1_000)] {
        let plan = Plan { start_ms: Some(start_ms), ..plan(for_ms(500), rate(100), 4) };
        let report = Run::of(plan).report();
        check(&report);
        assert_eq!((report.began_ns, report.due), (ms(began_ms), 200));
    }
    let plan = Plan { start_ms: Some(60_000), ..plan(for_ms(500), rate(100), 4) };
    let mut run = Run::of(plan.clone());
    run.interrupts = vec![ms(1_300)];
    let report = run.report();
    assert_eq!((report.begun, report.due, report.interrupted), (0, 0, true));
    assert!(Summary::new("", &plan, &report).page().contains("connected   none\n"));
}

/// Pongs were queued until memory ran out.
#[test]
fn a_server_that_pings_and_does_not_read() {
    // With a mask, as a plain echo sends frames.
    let pings = [&[0x89, 0xfd][..], &[b'x'; 129]].concat().repeat(400);
    let mut run = Run::of(plan(for_ms(60_000), rate(100), 1));
    run.load.fire(run.now());
    run.act();
    let (id, _) = run.load.clients.iter().next().unwrap();
    let mut shared = vec![0; 64 * 1024];
    let mut pinged = |run: &mut Run, pings: &[u8]| {
        let (now, mut out) = (run.now(), Out::default());
        run.load.room(id, &mut shared)[..pings.len()].copy_from_slice(pings);
        run.load.received(now, id, pings.len(), &mut shared, &mut out);
        run.load.keep(now, id, &[], &mut out, 0);
    };
    (0..100).for_each(|_| pinged(&mut run, &pings));
    let mut queued = 0;
    while !run.load.unsent(id).is_empty() {
        let piece = run.load.unsent(id).len();
        run.load.sent(run.now(), id, piece);
        queued += piece;
    }
    assert!((1_000..100_000).contains(&queued), "{queued}");
    // Once it reads, its pings are answered again.
    pinged(&mut run, &pings[..131]);
    assert_eq!(run.load.unsent(id).len(), 131);
}

fn used(cpu: u64, waiting: u64, wall_ms: u64) -> Usage {
    let part = |percent: u64| ms(wall_ms) / 100 * percent;
    Usage { cpu_ns: part(cpu), waiting_ns: part(waiting), wall_ns: ms(wall_ms) }
}

/// In a closed loop, a generator that never waits for answers is the limit.
#[test]
fn a_busy_generator_says_so() {
    for (usage, limited, starved) in [
        (used(99, 1, 5_000), 1, 0),
        (used(96, 1, 5_000), 0, 0),
        (used(97, 2, 5_000), 0, 0),
        (used(50, 49, 5_000), 0, 1),
        (used(99, 0, 900), 0, 0),
    ] {
        let plan = plan(for_ms(1_000), Pace::Closed { depth: 1 }, 4);
        let report = Report { usage: Some(usage), ..Run::of(plan.clone()).report() };
        let summary = Summary::new("", &plan, &report);
        assert_eq!((summary.limited, summary.starved), (limited, starved), "{usage:?}");
    }
    // An open loop that keeps up is no limit, however busy it is.
    let plan = plan(for_ms(1_000), rate(100), 4);
    let report = Report { usage: Some(used(99, 0, 5_000)), ..Run::of(plan.clone()).report() };
    assert_eq!(Summary::new("", &plan, &report).limited, 0);
}

//! Connections being opened: how many to one address, and what attempts that hang do to others.

use super::*;
use crate::calls::balancer::ATTEMPTS_MAX;

const MANY: Rules =
    Rules { per_address: [200, 100], connections: 500, waiting: 1_000, connect_ms: 2_000, ..RULES };
const LIMIT: usize = ATTEMPTS_MAX;

/// Exactly the connections that are being opened are counted as such.
pub(super) fn check<A: Copy>(pool: &Pool<A>) {
    for (at, group) in pool.targets.iter().enumerate() {
        let own = pool.lanes.iter().filter(|(_, lane)| lane.target == TargetId(at));
        let connecting = own.filter(|(_, lane)| matches!(lane.state, State::Connecting(_)));
        assert_eq!(group.balancer.attempts(), connecting.count(), "target {at}");
    }
}

/// The lanes of orders that begin so, such as `connect`, and contain this.
fn lanes(orders: &[String], verb: &str, to: &str) -> Vec<u32> {
    let matching = orders.iter().filter(|order| order.starts_with(verb) && order.contains(to));
    matching.map(|order| order.split(' ').nth(1).unwrap().parse().unwrap()).collect()
}

fn connects(bench: &mut Bench) -> Vec<u32> {
    lanes(&bench.orders(), "connect", "")
}

fn ask_many(bench: &mut Bench, count: usize) -> Vec<CallId> {
    (0..count).map(|_| bench.ask(0, call("/", 60_000))).collect()
}

/// Two addresses; the first swallows SYNs.
fn with_a_black_hole() -> Bench {
    let mut bench = Bench::new(MANY, "two");
    bench.ask(0, call("/", 60_000));
    let ips: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
    bench.pool.resolved(bench.now, "two", Ok(&ips));
    bench
}

/// 1 000 clients at once: SYNs beyond the server's queue were sent again after 1 s.
#[test]
fn a_burst_opens_some_connections_at_a_time() {
    let mut bench = Bench::new(MANY, "10.0.0.1");
    ask_many(&mut bench, 300);
    let mut opening: VecDeque<u32> = connects(&mut bench).into();
    let mut opened = 0;
    assert_eq!(opening.len(), LIMIT);
    while let Some(key) = opening.pop_front() {
        // One of them fails; the next one begins when it is closed.
        if opened == 50 {
            bench.connected(key, Err(HangUp::Refused));
            assert_eq!(lanes(&bench.orders(), "close", ""), [key]);
            bench.closed(key);
        } else {
            bench.connected(key, Ok(()));
        }
        opened += 1;
        opening.extend(connects(&mut bench));
        assert_eq!(opening.len(), LIMIT.min(201 - opened), "after {opened}");
    }
    assert_eq!(opened, 201);
}

#[test]
fn classes_do_not_wait_for_each_others_attempts() {
    let mut bench = Bench::new(MANY, "10.0.0.1");
    ask_many(&mut bench, 300);
    assert_eq!(connects(&mut bench).len(), LIMIT);
    bench.ask(1, Call { class: Class::Control, ..call("/", 60_000) });
    assert_eq!(connects(&mut bench).len(), 1);
}

#[test]
fn idle_connections_are_used_while_attempts_hang() {
    let mut bench = Bench::new(MANY, "10.0.0.1");
    ask_many(&mut bench, 1);
    bench.connected(0, Ok(()));
    bench.orders();
    bench.write(0);
    ask_many(&mut bench, LIMIT);
    assert_eq!(connects(&mut bench).len(), LIMIT);
    bench.answer(0, OK);
    bench.outcomes();
    for _ in 0..5 {
        ask_many(&mut bench, 1);
        assert_eq!(bench.orders(), ["write 0"]);
        bench.write(0);
        bench.answer(0, OK);
        assert_eq!(bench.outcomes(), [(0, Ok(200))]);
    }
    // What waits for an attempt takes the first connection that is idle.
    ask_many(&mut bench, 2);
    assert_eq!(bench.orders(), ["write 0"]);
    bench.write(0);
    bench.answer(0, OK);
    assert_eq!(bench.orders(), ["write 0"]);
}

#[test]
fn attempts_that_hang_leave_other_addresses_alone() {
    let mut bench = with_a_black_hole();
    ask_many(&mut bench, 149);
    let (mut hanging, mut served) = (0, 0);
    loop {
        let orders = bench.orders();
        hanging += lanes(&orders, "connect", "10.0.0.1").len();
        let opening = lanes(&orders, "connect", "10.0.0.2");
        if opening.is_empty() {
            break;
        }
        assert!(opening.len() <= LIMIT);
        served += opening.len();
        for key in opening {
            bench.connected(key, Ok(()));
        }
    }
    assert_eq!((hanging, served), (LIMIT, 150 - LIMIT));
    // Those that hang change over.
    bench.to(300);
    assert_eq!(lanes(&bench.orders(), "connect", "10.0.0.2").len(), LIMIT);
}

/// It stayed with the address that hangs until the timeout.
#[test]
fn a_slow_attempt_looks_again_for_another_address() {
    let mut bench = with_a_black_hole();
    ask_many(&mut bench, 2 * LIMIT - 1);
    let orders = bench.orders();
    let other = lanes(&orders, "connect", "10.0.0.2");
    assert_eq!((lanes(&orders, "connect", "10.0.0.1").len(), other.len()), (LIMIT, LIMIT));
    bench.to(200);
    for key in other {
        bench.connected(key, Ok(()));
    }
    ask_many(&mut bench, LIMIT);
    let other = lanes(&bench.orders(), "connect", "10.0.0.2");
    assert_eq!(other.len(), LIMIT);
    bench.to(290);
    assert_eq!(bench.orders(), [""; 0], "no address has room");
    for key in other {
        bench.connected(key, Ok(()));
    }
    assert_eq!(connects(&mut bench), [0; 0]);
    bench.to(600);
    assert_eq!(lanes(&bench.orders(), "connect", "10.0.0.2").len(), LIMIT);
}

/// A request that one address refused does not keep those behind it from using that address.
#[test]
fn a_request_that_was_refused_waits_for_any_address() {
    let mut bench = with_a_black_hole();
    ask_many(&mut bench, 2 * LIMIT - 1);
    let other = lanes(&bench.orders(), "connect", "10.0.0.2");
    bench.connected(other[0], Err(HangUp::Refused));
    bench.orders();
    bench.closed(other[0]);
    assert_eq!(lanes(&bench.orders(), "connect", "10.0.0.2").len(), 1);
    bench.connected(other[1], Ok(()));
    bench.orders();
    ask_many(&mut bench, 1);
    assert_eq!(lanes(&bench.orders(), "connect", "10.0.0.2").len(), 1);
}

#[test]
fn attempts_of_withdrawn_requests_end_with_their_timeout() {
    let mut bench = Bench::new(MANY, "10.0.0.1");
    let ids = ask_many(&mut bench, LIMIT);
    let lanes = connects(&mut bench);
    assert!(ids.into_iter().all(|id| bench.pool.withdraw(id)));
    bench.to(1_000);
    ask_many(&mut bench, 2);
    assert_eq!(bench.orders(), [""; 0]);
    bench.connected(lanes[0], Ok(()));
    assert_eq!(bench.orders(), ["write 0", "connect 32 10.0.0.1:80"]);
    bench.to(2_050);
    let orders = bench.orders();
    assert_eq!(orders.len(), LIMIT - 1, "{orders:?}");
    for key in &lanes[1..] {
        bench.closed(*key);
    }
    bench.connected(LIMIT as u32, Ok(()));
    assert_eq!((bench.outcomes(), bench.pool.waiting()), (vec![], 0));
}

/// All fail at once, not after a timeout for each group of them.
#[test]
fn requests_behind_a_black_hole_fail_with_the_first_timeout() {
    let mut bench = Bench::new(MANY, "10.0.0.1");
    ask_many(&mut bench, 200);
    let lanes = connects(&mut bench);
    bench.to(2_050);
    bench.orders();
    for key in lanes {
        bench.closed(key);
    }
    assert_eq!((bench.outcomes().len(), bench.pool.connections()), (200, 0));
    assert_eq!((bench.pool.waiting(), bench.pool.cost()), (0, 0));
}

#[test]
fn the_trial_of_a_circuit_does_not_wait_for_attempts_that_hang() {
    let mut bench = with_a_black_hole();
    ask_many(&mut bench, 2 * LIMIT - 1);
    let other = lanes(&bench.orders(), "connect", "10.0.0.2");
    bench.to(100);
    for key in other {
        bench.connected(key, Ok(()));
    }
    bench.to(300);
    bench.orders();
    bench.to(1_400);
    ask_many(&mut bench, 1);
    assert_eq!(lanes(&bench.orders(), "connect", "10.0.0.1").len(), 1, "the trial");
    ask_many(&mut bench, 1);
    assert_eq!(lanes(&bench.orders(), "connect", "10.0.0.1").len(), 0);
}

#[test]
fn a_lane_that_closes_before_its_result_is_not_counted() {
    let mut bench = Bench::new(MANY, "10.0.0.1");
    ask_many(&mut bench, 2);
    bench.orders();
    bench.closed(0);
    bench.answer(1, b"early");
    bench.orders();
    bench.closed(1);
    let ends = bench.outcomes();
    let is_reset = |end: &(u32, _)| end.1 == Err(Failure::NotConnected(HangUp::Reset));
    assert!(ends.len() == 2 && ends.iter().all(is_reset), "{ends:?}");
    check(&bench.pool);
    assert_eq!((bench.pool.connections(), bench.pool.cost()), (0, 0));
}

/// The server would read the rest of the request as the next one.
#[test]
fn a_connection_with_half_a_request_is_not_reused() {
    for (taken, then, reused) in
        [(5, None, false), (5, Some(2), false), (0, Some(2), false), (5, Some(0), true)]
    {
        let mut bench = Bench::new(RULES, "10.0.0.1");
        bench.ask(0, call("/1", 500));
        bench.orders();
        bench.connected(0, Ok(()));
        bench.write(0);
        let lane = bench.lane(0);
        bench.pool.held(lane, taken, 9);
        if let Some(left) = then {
            bench.pool.sent(lane, left);
        }
        bench.orders();
        bench.answer(0, OK);
        assert_eq!(bench.outcomes(), [(0, Ok(200))]);
        assert_eq!(bench.orders().is_empty(), reused, "{taken} {then:?}");
    }
}

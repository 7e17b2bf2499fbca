//! Which address is chosen, and when a name is resolved.

use super::*;

fn at(ms: u64) -> Now {
    Now { mono_ns: time::ms(ms), wall_ms: 0 }
}

fn ips(last: &[u8]) -> Vec<IpAddr> {
    last.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect()
}

fn named(holds: bool) -> Balancer {
    let mut balancer = Balancer::new(Target::host("backend", 80), holds);
    assert_eq!(balancer.poll(at(0)).as_deref(), Some("backend"));
    assert_eq!(balancer.poll(at(0)), None, "asked once");
    balancer
}

/// The last byte of the address of the next request.
fn next(balancer: &mut Balancer, now: Now) -> Option<u8> {
    let Choice::Connect(id, _) = balancer.choose(now, Class::Bulk, 1_000, &[]) else { return None };
    match balancer.target_of(id) {
        Target::Tcp(SocketAddr::V4(address)) => Some(address.ip().octets()[3]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_least_busy_address_wins_and_ties_go_in_turn() {
    let mut balancer = named(false);
    assert_eq!(balancer.choose(at(0), Class::Bulk, 9, &[]), Choice::Unresolved);
    balancer.resolved(at(0), "another", Ok(&ips(&[9])));
    assert_eq!(balancer.choose(at(0), Class::Bulk, 9, &[]), Choice::Unresolved);
    balancer.resolved(at(0), "backend", Ok(&ips(&[1, 2, 3])));
    let first: Vec<_> = (0..6).filter_map(|_| next(&mut balancer, at(1))).collect();
    assert_eq!(first, [1, 2, 3, 1, 2, 3]);
    // Two requests to the second address are over: it is the next one twice.
    let second = balancer.addresses[1].id;
    balancer.done(second, Class::Bulk);
    balancer.done(second, Class::Bulk);
    assert_eq!([next(&mut balancer, at(2)), next(&mut balancer, at(2))], [Some(2); 2]);
    // A new address gets its share.
    balancer.resolved(at(5_000), "backend", Ok(&ips(&[1, 2, 3, 4])));
    assert_eq!([next(&mut balancer, at(5_001)), next(&mut balancer, at(5_001))], [Some(4); 2]);
}

#[test]
fn classes_have_shares_of_their_own() {
    let mut balancer = Balancer::new(Target::host("10.0.0.1", 80), false);
    for _ in 0..3 {
        assert!(matches!(balancer.choose(at(0), Class::Bulk, 3, &[]), Choice::Connect(..)));
    }
    assert_eq!(balancer.choose(at(0), Class::Bulk, 3, &[]), Choice::Full);
    assert!(matches!(balancer.choose(at(0), Class::Control, 1, &[]), Choice::Connect(..)));
    assert_eq!(balancer.choose(at(0), Class::Control, 1, &[]), Choice::Full);
    assert_eq!(balancer.outage(at(0), &[]), None, "it only has to wait");
}

#[test]
fn an_address_that_left_dns_gets_no_request() {
    let mut balancer = named(false);
    balancer.resolved(at(0), "backend", Ok(&ips(&[1, 2])));
    let lanes = [1, 2].map(Lane::for_test);
    for lane in lanes {
        let Choice::Connect(id, _) = balancer.choose(at(0), Class::Bulk, 9, &[]) else { panic!() };
        balancer.done(id, Class::Bulk);
        assert!(balancer.keep(id, lane));
    }
    let gone = balancer.addresses[0].id;
    assert_eq!(balancer.resolved(at(5_000), "backend", Ok(&ips(&[2]))), [lanes[0]]);
    assert!(balancer.is_single());
    for _ in 0..3 {
        let choice = balancer.choose(at(5_000), Class::Bulk, 9, &[]);
        assert!(matches!(choice, Choice::Idle(lane) if lane == lanes[1]) || choice != Choice::Full);
    }
    assert!(!balancer.keep(gone, lanes[0]), "a connection that was busy until now");
    balancer.closed(gone);
    assert_eq!(balancer.addresses.len(), 1, "forgotten with its last connection");
}

#[test]
fn names_are_resolved_again_and_old_answers_are_used_meanwhile() {
    let mut balancer = named(false);
    balancer.resolved(at(0), "backend", Ok(&ips(&[1])));
    assert_eq!(balancer.refresh_ns(), Some(time::ms(5_000)));
    assert_eq!(balancer.poll(at(4_999)), None);
    assert!(balancer.poll(at(5_000)).is_some());
    assert_eq!(next(&mut balancer, at(5_001)), Some(1), "while it is refreshed");
    balancer.resolved(at(15_000), "backend", Err(NameFault::Unanswered));
    assert_eq!(balancer.refresh_ns(), Some(time::ms(16_000)), "soon, since it failed");
    assert_eq!(next(&mut balancer, at(60_000)), Some(1), "an old answer is better than none");
    balancer.resolved(at(61_000), "backend", Err(NameFault::NotFound));
    assert_eq!(next(&mut balancer, at(61_000)), None);
    assert_eq!(balancer.outage(at(61_000), &[]), Some(Outage::NoAddress));
    balancer.resolved(at(62_000), "backend", Ok(&ips(&[2])));
    assert_eq!(next(&mut balancer, at(62_000)), Some(2));
    // Unused for long: its addresses may be anybody's by now.
    assert_eq!(balancer.choose(at(93_000), Class::Bulk, 9, &[]), Choice::Unresolved);
}

#[test]
fn an_address_that_stalls_is_avoided_and_one_that_works_is_remembered() {
    let mut balancer = named(false);
    balancer.resolved(at(0), "backend", Ok(&ips(&[1, 2])));
    let Choice::Connect(first, false) = balancer.choose(at(0), Class::Bulk, 9, &[]) else {
        panic!("no address")
    };
    balancer.stalled(at(250), first, false);
    let Choice::Connect(second, false) = balancer.choose(at(250), Class::Bulk, 9, &[first]) else {
        panic!("no other address")
    };
    balancer.reached(second);
    for _ in 0..20 {
        assert_eq!(next(&mut balancer, at(500)), Some(2));
    }
    assert_eq!(next(&mut balancer, at(1_300)), Some(1), "one trial");
    assert_eq!(next(&mut balancer, at(1_300)), Some(2));
}

#[test]
fn there_is_a_bound_on_addresses() {
    let mut balancer = named(false);
    let many: Vec<IpAddr> = (0..=255).map(|last| IpAddr::from([10, 0, 0, last])).collect();
    balancer.resolved(at(0), "backend", Ok(&many));
    assert_eq!(balancer.addresses.len(), ADDRESSES_MAX);
}

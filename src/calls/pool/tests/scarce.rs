//! Too few addresses, or too few connections for all targets.

use super::*;

/// A pod that ends keeps its old connections but takes no new ones, and DNS has dropped it.
#[test]
fn an_address_that_is_gone_is_no_reason_to_try_again() {
    let rules = Rules { hold_ms: 30_000, per_address: [1, 1], connect_ms: 2_000, ..RULES };
    let mut bench = Bench::new(rules, "api");
    let ips: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
    bench.ask(0, Call { answer_ms: Some(60_000), ..call("/0", 90_000) });
    bench.orders();
    bench.pool.resolved(bench.now, "api", Ok(&ips[..1]));
    bench.orders();
    bench.connected(0, Ok(()));
    bench.orders();
    bench.write(0);
    // It refuses a second connection.
    bench.ask(1, Call { class: Class::Control, ..call("/1", 90_000) });
    assert_eq!(bench.orders(), ["connect 1 10.0.0.1:80"]);
    bench.connected(1, Err(HangUp::Refused));
    bench.orders();
    bench.closed(1);
    bench.to(510);
    assert_eq!(bench.orders(), ["connect 1 10.0.0.1:80"]);
    bench.connected(1, Err(HangUp::Refused));
    bench.orders();
    bench.closed(1);
    // The other one refuses as well.
    bench.to(1_005);
    assert_eq!(bench.orders(), ["resolve api"]);
    bench.pool.resolved(bench.now, "api", Ok(&ips[1..]));
    assert_eq!(bench.orders(), ["connect 1 10.0.0.2:80"]);
    bench.connected(1, Err(HangUp::Refused));
    bench.orders();
    bench.closed(1);
    let mut woken = 0;
    while bench.pool.next_deadline().is_some_and(|due_ns| due_ns < time::ms(1_500)) && woken < 100 {
        bench.now.mono_ns = bench.pool.next_deadline().unwrap().max(bench.now.mono_ns);
        bench.pool.fire(bench.now);
        bench.orders();
        woken += 1;
    }
    assert!(woken < 10, "{woken} times in half a second");
}

/// Connections that became idle are no use to other targets while they are kept.
#[test]
fn an_idle_connection_gives_way_to_another_target() {
    let mut bench = Bench::new(Rules { connections: 2, idle_ms: 4_000, ..RULES }, "10.0.0.1");
    let first = bench.target;
    for number in 0..2 {
        bench.ask(number, call("/", 10_000));
    }
    bench.orders();
    for key in 0..2 {
        bench.connected(key, Ok(()));
        bench.write(key);
    }
    bench.orders();
    bench.target = bench.pool.target(&Target::host("10.0.0.2", 80));
    bench.ask(2, call("/", 10_000));
    assert_eq!(bench.orders(), [""; 0]);
    bench.to(100);
    bench.answer(0, OK);
    assert_eq!(bench.outcomes(), [(0, Ok(200))]);
    assert_eq!(bench.orders(), ["close 0"]);
    bench.closed(0);
    assert_eq!(bench.orders(), ["connect 0 10.0.0.2:80"]);
    // It keeps its only one, even while the other target has more to send.
    bench.connected(0, Ok(()));
    bench.write(0);
    bench.target = first;
    bench.ask(3, call("/", 10_000));
    bench.answer(0, OK);
    assert_eq!(
        (bench.orders(), bench.outcomes()),
        (vec!["write 0".to_owned()], vec![(2, Ok(200))])
    );
    bench.answer(1, OK);
    assert_eq!(bench.orders(), ["write 1"]);
}

/// A target that was served late takes its turn before one that has more connections.
#[test]
fn a_free_connection_goes_to_the_target_with_the_fewest() {
    let mut bench = Bench::new(Rules { connections: 2, ..RULES }, "10.0.0.1");
    for number in 0..4 {
        bench.ask(number, call("/", 10_000));
    }
    bench.orders();
    for key in 0..2 {
        bench.connected(key, Ok(()));
        bench.write(key);
    }
    bench.orders();
    bench.target = bench.pool.target(&Target::host("10.0.0.2", 80));
    bench.ask(4, call("/", 10_000));
    bench.answer(0, OK);
    assert_eq!(bench.orders(), ["close 0"]);
    bench.closed(0);
    assert_eq!(bench.orders(), ["connect 0 10.0.0.2:80"]);
    bench.connected(0, Ok(()));
    bench.write(0);
    bench.answer(1, OK);
    assert_eq!(bench.orders(), ["write 0", "write 1"]);
}

/// A target whose servers hang does not take the connections of the others.
#[test]
fn a_target_has_a_share_of_the_connections() {
    let rules = Rules { connections: 4, per_address: [8, 1], waiting: 8, ..RULES };
    let mut bench = Bench::new(rules, "10.0.0.1");
    let (hanging, other) = (bench.target, bench.pool.target(&Target::host("10.0.0.2", 80)));
    for number in 0..5 {
        bench.ask(number, call("/", 10_000));
    }
    assert_eq!(bench.orders().len(), 3);
    bench.target = other;
    bench.ask(5, call("/", 10_000));
    assert_eq!(bench.orders(), ["connect 3 10.0.0.2:80"]);
    // Its requests go on as soon as one of its own connections is closed.
    bench.target = hanging;
    bench.connected(0, Err(HangUp::Refused));
    assert_eq!(bench.orders(), ["close 0"]);
    bench.closed(0);
    assert_eq!(bench.orders(), ["connect 0 10.0.0.1:80"]);
}

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

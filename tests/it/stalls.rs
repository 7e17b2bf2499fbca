//! Stalls: the process is stopped or gets no CPU. Input that has arrived by the end of a stall is
//! read before any timer fires.

use crate::harness::Harness;
use crate::hostile::{Client, end};
use crate::peer::{frame, text};

/// Clients that have received a ping, and the payloads of their pings.
fn pinged(harness: &mut Harness, clients: usize) -> Vec<(Client, Vec<u8>)> {
    let mut waiting: Vec<Client> =
        (0..clients).map(|_| Client::upgraded(harness, "/echo")).collect();
    let mut pinged = Vec::new();
    for _ in 0..400 {
        harness.pass(1);
        for at in (0..waiting.len()).rev() {
            let output = harness.output(waiting[at].wire);
            if let [0x89, 8, payload @ ..] = &output[..] {
                pinged.push((waiting.swap_remove(at), payload.to_vec()));
            }
        }
        if waiting.is_empty() {
            return pinged;
        }
    }
    panic!("{} clients received no ping", waiting.len());
}

/// A wait returns 16 events here, as it returns 1024 in production, so one wait is not enough.
#[test]
fn pongs_received_during_a_stall_count() {
    let mut harness = Harness::new(&["--ping-interval", "200ms", "--pong-timeout", "300ms"]);
    let clients = pinged(&mut harness, 100);
    harness.net.state().batch = 16;
    for (client, payload) in &clients {
        harness.net.send(client.wire, &frame(0x8a, payload));
    }
    harness.net.state().now_ns += 5_000_000_000;
    harness.settle();
    let lost = clients.iter().filter(|(client, _)| end(&harness, client.wire) != "open").count();
    assert_eq!(lost, 0, "connections are closed although their pongs had arrived");
}

/// The same for a stall that the engine has requested.
#[test]
fn pongs_received_while_the_loop_is_blocked_count() {
    let mut harness =
        Harness::new(&["--ping-interval", "200ms", "--pong-timeout", "300ms", "--faults"]);
    let freezer = Client::upgraded(&mut harness, "/echo?block=5s");
    let clients = pinged(&mut harness, 100);
    harness.net.state().batch = 16;
    harness.send(freezer.wire, &text("freeze"));
    for (client, payload) in &clients {
        harness.net.send(client.wire, &frame(0x8a, payload));
    }
    harness.pass(5_001);
    let lost = clients.iter().filter(|(client, _)| end(&harness, client.wire) != "open").count();
    assert_eq!(lost, 0, "connections are closed although their pongs had arrived");
}

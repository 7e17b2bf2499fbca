//! Standstills: the process is stopped, or gets no CPU. What has arrived by the end of it is read
//! before any timer is judged.

use crate::harness::Harness;
use crate::hostile::{Client, end};
use crate::peer::{frame, text};

/// Clients that have been pinged, and the pings' payloads.
fn pinged(harness: &mut Harness, clients: usize) -> Vec<(Client, Vec<u8>)> {
    let mut waiting: Vec<Client> =
        (0..clients).map(|_| Client::upgraded(harness, "/echo")).collect();
    let mut pinged = Vec::new();
    for _ in 0..400 {
        harness.pass(1);
        for at in (0..waiting.len()).rev() {
            let said = harness.output(waiting[at].wire);
            if let [0x89, 8, payload @ ..] = &said[..] {
                pinged.push((waiting.swap_remove(at), payload.to_vec()));
            }
        }
        if waiting.is_empty() {
            return pinged;
        }
    }
    panic!("{} are not pinged", waiting.len());
}

/// The loop takes no more than 16 events at once, as it takes no more than 1024 of the kernel.
#[test]
fn who_has_answered_during_a_standstill_is_not_lost() {
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

/// The same where the engine itself asked for the standstill.
#[test]
fn who_has_answered_while_the_loop_was_frozen_is_not_lost() {
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

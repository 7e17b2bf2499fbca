//! Random operations that make the server hold memory, with a memory limit: enough connections are
//! closed, none of those own nothing, and nothing is left behind.

use wspulse::rng::Rng;

use crate::harness::Harness;
use crate::peer::{self, frame, text};
use crate::watched::PROCESS_BYTES;

const SEEDS: u64 = 30;
const STEPS: u64 = 200;
const LIMIT: u64 = 16 << 20;
const MIB: usize = 1 << 20;

struct Attack {
    harness: Harness,
    rng: Rng,
    wires: Vec<usize>,
    /// An idle client.
    bystander: usize,
}

impl Attack {
    fn new(seed: u64) -> Self {
        let mut harness =
            Harness::seeded(&["--memory-limit", "16MiB", "--ping-interval", "0"], seed);
        let used = harness.driver.engine().used.clone();
        harness.net.server().memory_used = Some(used);
        let bystander = harness.connect();
        harness.send(bystander, &peer::upgrade("/echo", &[]));
        harness.output(bystander);
        Self { harness, rng: Rng::new(seed), wires: Vec::new(), bystander }
    }

    fn step(&mut self) {
        let some = self.rng.below(self.wires.len().max(1) as u64) as usize;
        let Some(&wire) = self.wires.get(some) else { return self.come() };
        match self.rng.below(20) {
            0..6 if self.wires.len() < 60 => self.come(),
            6 => {
                self.wires.swap_remove(some);
                match self.rng.below(2) {
                    0 => self.harness.net.reset(wire),
                    _ => self.harness.net.fin(wire),
                }
            }
            // It stops reading.
            7 | 8 => self.harness.net.window(wire, 0),
            9 => self.harness.net.send(wire, &text("a").repeat(1500)),
            10 => self.harness.net.send(wire, &text("probe:count").repeat(1500)),
            11..14 => {
                let size = [1000, 60_000, 200_000, MIB][self.rng.below(4) as usize];
                self.harness.net.send(wire, &frame(0x82, &vec![7; size]));
            }
            14 => self.harness.net.send(wire, &frame(0x81, &vec![1; MIB])),
            // An incomplete message.
            15..18 => {
                let whole = frame(0x82, &vec![7; MIB]);
                self.harness.net.send(wire, &whole[..self.rng.below(MIB as u64) as usize]);
            }
            // Half a TLS record.
            18 => self.harness.net.hold(wire, self.rng.below(80_000) as usize),
            _ => self.harness.pass(self.rng.below(200)),
        }
        self.harness.settle();
        self.check();
    }

    fn come(&mut self) {
        let paths =
            ["/echo", "/echo?delay=5s", "/throttled", "/socket", "/websocket", "/echo?probe=1"];
        let wire = self.harness.connect();
        let path = paths[self.rng.below(6) as usize];
        self.harness.send(wire, &peer::upgrade(path, &[]));
        self.wires.push(wire);
    }

    fn check(&mut self) {
        for wire in &self.wires {
            self.harness.net.take_output(*wire);
        }
        let server = self.harness.driver.engine();
        assert_eq!(server.memory(), server.memory_counted(), "the account is wrong");
        // Connections are closed from 92 % on; one read and its answer may exceed that.
        let most = LIMIT / 100 * 92 - PROCESS_BYTES + 2 * MIB as u64;
        assert!(server.memory() as u64 <= most, "{} bytes", server.memory());
    }

    fn end(mut self) {
        self.harness.send(self.bystander, &text("unharmed"));
        let output = self.harness.output(self.bystander);
        assert!(output.ends_with(b"unharmed"), "the idle client is closed: {output:?}");
        assert_eq!(self.harness.end(self.bystander), None);
        for wire in &self.wires {
            self.harness.net.reset(*wire);
        }
        self.harness.settle();
        self.harness.pass(40_000);
        let server = self.harness.driver.engine();
        assert_eq!((server.connections(), server.memory(), server.timers()), (1, 0, 0));
    }
}

#[test]
fn enough_connections_are_closed_under_memory_pressure() {
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| {
            let mut attack = Attack::new(seed);
            for _ in 0..STEPS {
                attack.step();
            }
            attack.end();
        });
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

//! The real server and the real loop on the fake operating system, driven step by step by a test.

use std::ffi::OsString;

use wspulse::engine::Signal;
use wspulse::net::driver::Driver;
use wspulse::options::{self, Command, Surroundings};
use wspulse::server::{Assets, Server};
use wspulse::time::Now;

use crate::os::{End, FakeOs, Network};
use crate::watched::Watched;

/// More turns than this without a pause are an endless loop.
const TURNS_MAX: usize = 100_000;

/// A server, its loop and its network.
pub(crate) struct Harness {
    pub(crate) driver: Driver<Watched, FakeOs>,
    pub(crate) net: Network,
    pub(crate) exit: Option<u8>,
}

pub(crate) fn server(args: &[&str], seed: u64) -> Server {
    let args = args.iter().map(OsString::from);
    let surroundings = Surroundings { host_name: "pod-1".to_owned() };
    let Ok(Command::Serve(mut serve)) = options::parse(args, Vec::new(), &surroundings) else {
        panic!("these arguments start no server");
    };
    serve.server.fit_memory();
    if serve.server.limits.max_connections == 0 {
        serve.server.limits.max_connections = 1000;
    }
    let parts = wspulse::parts::build(serve.parts, seed);
    Server::new(serve.server, parts, Assets::embedded(Now::default()), seed)
}

impl Harness {
    pub(crate) fn new(args: &[&str]) -> Self {
        Self::seeded(args, 1)
    }

    pub(crate) fn seeded(args: &[&str], seed: u64) -> Self {
        let net = Network::new();
        let server = server(args, seed);
        let driver = Driver::new(Watched::new(server), FakeOs::new(&net));
        Self { driver, net, exit: None }
    }

    /// Connects to the main listener.
    pub(crate) fn connect(&mut self) -> usize {
        let wire = self.net.connect(0);
        self.settle();
        wire
    }

    /// Sends bytes and runs the loop until it is idle.
    pub(crate) fn send(&mut self, wire: usize, bytes: &[u8]) {
        self.net.send(wire, bytes);
        self.settle();
    }

    /// Runs the loop until it is idle, without time passing.
    pub(crate) fn settle(&mut self) {
        self.pass_ns(0);
    }

    /// Runs the loop while this much time passes.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.pass_ns(ms * 1_000_000);
    }

    fn pass_ns(&mut self, ns: u64) {
        let limit_ns = self.now_ns() + ns;
        for _ in 0..TURNS_MAX {
            if self.exit.is_some() {
                return;
            }
            self.exit = self.driver.turn().unwrap();
            if !self.net.state().advance(limit_ns) {
                return;
            }
        }
        panic!("the loop spins");
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.net.signal(signal);
        self.settle();
    }

    pub(crate) fn output(&mut self, wire: usize) -> Vec<u8> {
        self.net.take_output(wire)
    }

    pub(crate) fn end(&self, wire: usize) -> Option<End> {
        self.net.end(wire)
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.net.state().now_ns
    }
}

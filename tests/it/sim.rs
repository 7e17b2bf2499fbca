//! Simulation: the real server and the real clients of `load`, each on the real loop, connected by
//! faulty wires in virtual time. A seed draws the options, the clients and the faults.
//!
//! `SEEDS=1000000 cargo test --release simulation` runs longer, `FIRST=` sets the first seed. A
//! failing seed prints the command that repeats it: `SEED=… cargo test simulation`.

use wspulse::behaviours::Kind;
use wspulse::engine::{Signal, Target};
use wspulse::load::{
    Answers, ConnectError, Life, Load, Outcome, Pace, Plan, Report, ServerKind, WhenLost,
};
use wspulse::net::driver::Driver;
use wspulse::proto::upgrade::Ask;
use wspulse::rng::Rng;
use wspulse::server::Server;
use wspulse::time;

use crate::harness;
use crate::os::{FakeOs, Network, Odds, SERVER, address};
use crate::watched::{PROCESS_BYTES, Watched};

/// The host of the clients.
const CLIENTS: usize = 1;
const SEEDS: u64 = 1_000;
/// Found in longer runs: a stream that broke during a write, before a message for the worker; a
/// little output in a mapping of which an earlier message had touched many pages.
const FOUND_LATER: [u64; 2] = [11_738, 43_723];
/// More rounds than this are an endless loop.
const ROUNDS_MAX: u64 = 2_000_000;
/// More virtual time than this is a hang.
const TIME_MAX_MS: u64 = 7_200_000;
/// What the clients connect to.
const PATHS: [&str; 8] = [
    "/echo",
    "/ws",
    "/websocket",
    "/echo?delay=50ms",
    "/echo?every=200ms",
    "/?hello=1",
    "/work",
    "/work?delay=20ms&hello=1",
];
/// A message is at most this long.
const MAX_MESSAGE: usize = 300 * 1024;

/// What clients offer.
const OFFERS: [&str; 5] = [
    "",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=12",
    "permessage-deflate; unknown, x-other; a=\"b,c\"",
];

/// The configuration of a seed.
#[derive(Debug)]
struct Draw {
    args: Vec<String>,
    plan: Plan,
    odds: Odds,
    /// When the server is asked to stop.
    stop_ms: Option<u64>,
    /// The server's memory limit.
    limit_mib: Option<u64>,
}

impl Draw {
    fn new(seed: u64) -> Self {
        let rng = &mut Rng::new(seed);
        // Many seeds have few kinds of faults, so that one kind does not hide another.
        let mut draw = |most: u64| if rng.below(3) == 0 { rng.below(most + 1) } else { 0 };
        let mut odds = Odds {
            short: draw(300),
            interrupted: draw(100),
            spurious: draw(100),
            stale_events: draw(200),
            exhausted: draw(300),
            clock_gap: draw(20),
            cut: draw(200),
            half_closed: draw(200),
            stalled: draw(200),
            latency_ms: draw(200),
            capacity: [300, 5_000, 60_000, 1_000_000][rng.below(4) as usize],
            ..Odds::NONE
        };
        let mut pick = |of: &[usize]| of[rng.below(of.len() as u64) as usize];
        let size = pick(&[0, 0, 5, 125, 126, 1_000, 9_000, 20_000, 66_000, 150_000]);
        // A message needs at most ten round trips, which limits the running time.
        odds.capacity = odds.capacity.max(size / 10);
        let path = PATHS[pick(&[0, 1, 2, 3, 4, 5, 6, 7])];
        let mut plan = Plan {
            targets: vec![Target::Tcp(address(SERVER, 0))],
            ask: Ask {
                host: "sim".to_owned(),
                path: path.to_owned(),
                extensions: OFFERS[pick(&[0, 0, 1, 2, 3, 4])].to_owned(),
                ..Ask::default()
            },
            ramp: None,
            when_lost: WhenLost::Leave,
            clients: pick(&[1, 2, 5, 20]),
            life: match pick(&[0, 0, 0, 1]) {
                0 => Life::Messages(pick(&[1, 3, 20]) as u64),
                _ => Life::Churn { connections: pick(&[1, 10, 60]) as u64 },
            },
            size,
            kind: if pick(&[0, 1]) == 0 { Kind::Text } else { Kind::Binary },
            pace: Pace::Closed { depth: pick(&[1, 2, 16]) },
            fragment: pick(&[0, 0, 1, 100, 70_000]).max(size / 200),
            server_kind: ServerKind::WebSocket,
            answers: Answers::Same,
            patience_ms: 60_000,
            progress_ms: None,
            start_ms: None,
        };
        let stop_ms = (rng.below(3) == 0).then(|| rng.below(3_000));
        if matches!(plan.life, Life::Messages(_)) && rng.below(2) == 0 {
            plan.when_lost = WhenLost::Reconnect;
        }
        if rng.below(4) == 0 {
            plan.pace = Pace::Open { interval_ns: time::ms(1 + rng.below(300)) };
        }
        plan.ramp = (rng.below(4) == 0).then(|| 1 + rng.below(50));
        let profile = ["plain", "kubernetes"][rng.below(2) as usize];
        let mounts = "--mount /work=echo?work=5ms";
        let args =
            format!("--max-message {MAX_MESSAGE} --profile {profile} --pong-timeout 50s {mounts}");
        let mut args: Vec<String> = args.split(' ').map(str::to_owned).collect();
        let limit_mib = (rng.below(6) == 0).then_some(8);
        args.extend(limit_mib.map(|mib| format!("--memory-limit={mib}MiB")));
        Self { args, plan, odds, stop_ms, limit_mib }
    }

    fn is_faultless(&self) -> bool {
        let Odds { exhausted, cut, half_closed, stalled, clock_gap, .. } = self.odds;
        exhausted + cut + half_closed + stalled + clock_gap == 0
    }
}

struct Simulation {
    net: Network,
    server: Driver<Watched, FakeOs>,
    clients: Driver<Load, FakeOs>,
    server_exit: Option<u8>,
    clients_exit: Option<u8>,
}

#[test]
fn simulation() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    // With one seed, RUST_LOG=debug shows the log.
    let logs = number("SEED").map(|_| env_logger::builder().is_test(true).try_init());
    assert!(logs.is_none_or(|logs| logs.is_ok()));
    let seeds: Vec<u64> = if let Some(seed) = number("SEED") {
        vec![seed]
    } else {
        let first = number("FIRST").unwrap_or(0);
        let seeds = first..first + number("SEEDS").unwrap_or(SEEDS);
        FOUND_LATER.into_iter().chain(seeds).collect()
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let draw = Draw::new(seed);
        assert!(outcome.is_ok(), "{draw:#?}\nSEED={seed} cargo test simulation");
    }
}

fn run(seed: u64) {
    let draw = Draw::new(seed);
    let args: Vec<&str> = draw.args.iter().map(String::as_str).collect();
    let server = Watched::new(harness::server(&args, seed));
    let net = Network::faulty(2, seed, draw.odds);
    net.server().memory_used = draw.limit_mib.map(|_| server.used.clone());
    let load = Load::new(draw.plan.clone(), seed);
    let mut simulation = Simulation {
        server: Driver::new(server, FakeOs::new(&net)),
        clients: Driver::new(load, FakeOs::on(CLIENTS, &net, &[])),
        net,
        server_exit: None,
        clients_exit: None,
    };
    simulation.play(&draw);
    simulation.judge(&draw);
}

impl Simulation {
    fn play(&mut self, draw: &Draw) {
        let start_ns = self.net.state().now_ns;
        let stop_ns = draw.stop_ms.map(|ms| start_ns + time::ms(ms));
        let mut stopped = false;
        for _ in 0..ROUNDS_MAX {
            let now_ns = self.net.state().now_ns;
            if !stopped && stop_ns.is_some_and(|at| at <= now_ns) {
                stopped = true;
                self.net.signal(Signal::Stop);
            }
            if self.server_exit.is_none() {
                self.server_exit = self.server.turn().unwrap();
                self.check(draw);
                if self.server_exit.is_some() {
                    self.net.state().exit(SERVER);
                }
            }
            if self.clients_exit.is_none() {
                self.clients_exit = self.clients.turn().unwrap();
                if self.clients_exit.is_some() {
                    self.net.state().exit(CLIENTS);
                }
            }
            let clients_done = self.clients_exit.is_some();
            if clients_done && (self.server_exit.is_some() || self.engine().connections() == 0) {
                return;
            }
            assert!(now_ns < start_ns + time::ms(TIME_MAX_MS), "it hangs: {:?}", self.report());
            self.net.state().advance(stop_ns.filter(|_| !stopped).unwrap_or(u64::MAX));
        }
        panic!("it spins: {:?}", self.report());
    }

    fn engine(&self) -> &Server {
        &self.server.engine().server
    }

    fn report(&self) -> &Report {
        self.clients.engine().report()
    }

    /// Checked after each turn of the server.
    fn check(&self, draw: &Draw) {
        let server = self.engine();
        let bound = server.connections() * (2 * (MAX_MESSAGE + 64 * 1024) + 256 * 1024);
        assert!(
            server.memory() == server.memory_counted(),
            "the account has {} bytes instead of {}",
            server.memory(),
            server.memory_counted()
        );
        assert!(
            server.memory() <= bound,
            "{} B for {} connections",
            server.memory(),
            server.connections()
        );
        assert!(server.timers() <= server.connections());
        // The memory limit holds, but for what one read may add.
        if let Some(mib) = draw.limit_mib {
            let most = (mib << 20) - PROCESS_BYTES + 2 * MAX_MESSAGE as u64;
            assert!(server.memory() as u64 <= most, "{} B of {mib} MiB", server.memory());
        }
    }

    fn judge(&mut self, draw: &Draw) {
        let ends = self.report().ends.clone();
        let count = |wanted: &dyn Fn(&Outcome) -> bool| -> u64 {
            ends.iter().filter(|(outcome, _)| wanted(outcome)).map(|(_, n)| n).sum()
        };
        assert_eq!(
            count(&|outcome| {
                matches!(
                    outcome,
                    Outcome::Wrong | Outcome::InvalidFrame | Outcome::InvalidCompression
                )
            }),
            0,
            "an answer was wrong: {ends:?}"
        );
        // Clients succeed unless a fault struck their wire or the server was stopping.
        let stops = draw.stop_ms.is_some();
        let fine = count(&|outcome| match outcome {
            Outcome::Closed(1000) => true,
            Outcome::Closed(1001)
            | Outcome::ClosedEarly(1001)
            | Outcome::Refused(503)
            | Outcome::NotConnected(ConnectError::Refused) => stops || draw.limit_mib.is_some(),
            _ => false,
        });
        let all = count(&|_| true);
        let harmed = self.net.state().harmed() as u64;
        assert!(
            all - fine <= harmed || draw.limit_mib.is_some(),
            "{} of {all} ended badly, {harmed} were harmed: {ends:?}",
            all - fine
        );
        // Clients that reconnect finish their messages.
        if let (Life::Messages(messages), WhenLost::Reconnect) =
            (draw.plan.life, draw.plan.when_lost)
            && !stops
            && draw.limit_mib.is_none()
            && self.report().still_down == 0
        {
            let report = self.report();
            assert_eq!(
                report.answered,
                report.connected * messages,
                "a client has not reconnected"
            );
        }
        if draw.is_faultless() && !stops && draw.limit_mib.is_none() {
            let report = self.report();
            assert_eq!(report.answered, report.sent, "an answer is missing");
        }
        let server = self.engine();
        if self.server_exit.is_none() {
            assert_eq!((server.connections(), server.timers(), server.memory()), (0, 0, 0));
        }
        assert_eq!(self.clients.engine().timers(), 0);
    }
}

//! Whole probes in virtual time: the real server, a hop that does one thing wrong, and the real
//! engine of `wspulse probe`. Exactly the findings that name this thing must be reported.
//!
//! `SEEDS=100000 cargo test --release probes` runs more random hops, `SEED=…` repeats one.

mod bytes;
mod cases;
mod hop;
mod hostile;
mod random;
mod report;
mod wrong;

use std::ffi::OsString;
use std::net::IpAddr;

use allocation_counter::measure;
use serde_json::Value;
use wspulse::engine::{Engine, Side, Signal, Target, TlsFacts, TlsFault};
use wspulse::net::driver::Driver;
use wspulse::options::{self, Command, Surroundings};
use wspulse::probe::{Probe, Report, Severity};
use wspulse::rng::Rng;
use wspulse::time;

use crate::harness;
use crate::os::{FakeOs, Network, Odds, SERVER, address};
use crate::watched::Watched;
use hop::Hop;
use wrong::Wrong;

/// The hosts of the hop, or of what takes the server's place, and of the probe.
const HOP: usize = 1;
const PROBE: usize = 2;
const NAME: &str = "app.test";
/// More steps than this are an endless loop.
const STEPS_MAX: usize = 300_000;

/// A probe and what is between it and the server.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    wrong: Wrong,
    /// Without it the probe connects to the server.
    has_hop: bool,
    path: &'static str,
    /// What a name resolves to beside the address of the hop; the URL then has the name.
    others: Option<Vec<IpAddr>>,
    /// What a TLS handshake results in; the URL then begins with wss.
    certificate: Option<Result<TlsFacts, TlsFault>>,
    /// Whether the server sends no intermediate certificates.
    lacks_issuer: bool,
    /// Options of the probe.
    args: String,
    /// Options of the server.
    server_args: &'static str,
    odds: Odds,
    seed: u64,
    jitter: bool,
    /// When the probe gets no CPU, from and until.
    stopped_ms: Option<(u64, u64)>,
    interrupt_ms: Option<u64>,
    /// Descriptors of the probe, if they are few.
    descriptors: Option<usize>,
    /// Findings above `info`; with `|` between alternatives, of which one may be `nothing`.
    want: Vec<&'static str>,
    most_ms: u64,
}

impl Case {
    fn quick(name: &str, wrong: Wrong) -> Self {
        Self {
            name: name.to_owned(),
            wrong,
            has_hop: true,
            path: "/echo",
            others: None,
            certificate: None,
            lacks_issuer: false,
            args: "--quick".to_owned(),
            server_args: "",
            odds: Odds::NONE,
            seed: 1,
            jitter: false,
            stopped_ms: None,
            interrupt_ms: None,
            descriptors: None,
            want: Vec::new(),
            most_ms: 5_000,
        }
    }

    /// Idle sockets are watched as well.
    fn patient(name: &str, wrong: Wrong) -> Self {
        Self { args: "--patience 8s".to_owned(), most_ms: 20_000, ..Self::quick(name, wrong) }
    }

    fn finds(mut self, want: &[&'static str]) -> Self {
        self.want = want.to_vec();
        self
    }

    fn within(mut self, ms: u64) -> Self {
        self.most_ms = ms;
        self
    }
}

/// What came of it.
struct Outcome {
    report: Report,
    took_ms: u64,
    /// The most that the probe has allocated at once.
    most_bytes: i64,
}

impl Outcome {
    /// An experiment in the report.
    fn experiment(&self, id: &str) -> Value {
        let json: Value = serde_json::from_str(&self.report.json()).unwrap();
        let experiments = json["experiments"].as_array().unwrap();
        experiments.iter().find(|one| one["id"] == id).unwrap().clone()
    }

    /// What the report says about it.
    fn note(&self, id: &str) -> String {
        self.experiment(id)["note"].as_str().unwrap().to_owned()
    }
}

/// A process at the address that is probed.
trait Between: Engine {
    /// Connections that it holds.
    fn connections(&self) -> usize;
}

fn probe(case: &Case, net: &Network) -> Driver<Probe, FakeOs> {
    let address = address(if case.has_hop { HOP } else { SERVER }, 0);
    let scheme = if case.certificate.is_some() { "wss" } else { "ws" };
    let mut url = format!("{scheme}://{address}{}", case.path);
    if let Some(others) = &case.others {
        url = format!("{scheme}://{NAME}:{}{}", address.port(), case.path);
        let addresses = [&[address.ip()], &others[..]].concat();
        net.state().names.insert(NAME.to_owned(), addresses);
    }
    if let Some(certificate) = &case.certificate {
        net.state().certificate = certificate.clone().map(Some);
        net.state().lacks_issuer = case.lacks_issuer;
    }
    let words = ["probe", &url].into_iter().chain(case.args.split_whitespace());
    let words = words.map(|word| OsString::from(word.replace("ADMIN", &admin())));
    let Ok(Command::Probe(options)) = options::parse(words, Vec::new(), &Surroundings::default())
    else {
        panic!("{}: these arguments do not probe", case.name);
    };
    let options::Probe { goal, mut plan, .. } = *options;
    plan.target = goal.targets(&[])[0].clone();
    let mut os = FakeOs::on(PROBE, net, &[]);
    let now = wspulse::net::os::Os::now(&mut os);
    Driver::new(Probe::new(plan, case.seed, now), os)
}

fn admin() -> String {
    format!("http://{}", address(SERVER, 1))
}

fn play(case: &Case) -> Outcome {
    let net = Network::faulty(3, case.seed, case.odds);
    let hop = case.has_hop.then(|| {
        let jitter = case.jitter.then(|| Rng::new(case.seed));
        Hop::new(case.wrong, Target::Tcp(address(SERVER, 0)), jitter)
    });
    play_with(case, &net, hop)
}

/// Runs until the probe has ended and everybody has closed everything.
fn play_with<B: Between>(case: &Case, net: &Network, between: Option<B>) -> Outcome {
    let args: Vec<&str> = case.server_args.split_whitespace().collect();
    let server = Watched::new(harness::server(&args, case.seed));
    let mut server = Some(Driver::new(server, FakeOs::new(net)));
    let between = between.map(|engine| Driver::new(engine, FakeOs::on(HOP, net, &[Side::Main])));
    let mut between = between;
    if let Some(descriptors) = case.descriptors {
        net.state().hosts[PROBE].descriptors = descriptors;
    }
    let start_ns = net.state().now_ns;
    let mut probe = probe(case, net);
    let mut ended_ns = None;
    let mut interrupted = false;
    let (mut bytes, mut most_bytes) = (0, 0);
    for _ in 0..STEPS_MAX {
        let now_ns = net.state().now_ns;
        let passed_ms = (now_ns - start_ns) / 1_000_000;
        if case.interrupt_ms.is_some_and(|ms| ms <= passed_ms) && !interrupted {
            interrupted = true;
            net.state().signal(PROBE, Signal::Stop);
        }
        let (from_ms, until_ms) = case.stopped_ms.unwrap_or_default();
        let stopped = (from_ms..until_ms).contains(&passed_ms);
        net.state().stopped = stopped.then_some(PROBE);
        if let Some(driver) = &mut server
            && driver.turn().unwrap().is_some()
        {
            net.state().exit(SERVER);
            server = None;
        }
        if let Some(between) = &mut between {
            assert_eq!(between.turn().unwrap(), None);
        }
        let mut has_ended = false;
        if !stopped && ended_ns.is_none() {
            let counted = measure(|| has_ended = probe.turn().unwrap().is_some());
            most_bytes = most_bytes.max(bytes + counted.bytes_max as i64);
            bytes += counted.bytes_current;
        }
        if has_ended {
            ended_ns = Some(now_ns);
            let all = case.descriptors.unwrap_or(1_000);
            let left = all - net.state().hosts[PROBE].descriptors;
            // After a short write the kernel has not taken all of the last message.
            let is_exact = !interrupted && case.odds.short == 0;
            assert!(left == 0 || !is_exact, "{}: {left} connections are open", case.name);
            net.state().exit(PROBE);
        }
        let open = server.as_ref().map_or(0, |driver| driver.engine().server.connections());
        let open = open + between.as_ref().map_or(0, |driver| driver.engine().connections());
        if let Some(ended_ns) = ended_ns
            && open == 0
        {
            let took_ms = (ended_ns - start_ns) / 1_000_000;
            return Outcome { report: probe.engine().report(), took_ms, most_bytes };
        }
        let limits = [case.interrupt_ms, Some(from_ms), Some(until_ms)];
        let limits = limits.into_iter().flatten().map(|ms| start_ns + time::ms(ms));
        let limit_ns = limits.filter(|at_ns| *at_ns > now_ns).min().unwrap_or(u64::MAX);
        net.state().advance(limit_ns);
        let passed_ms = (now_ns - start_ns) / 1_000_000;
        assert!(passed_ms < 200_000, "{}: it does not end: {}", case.name, state(&probe, open));
    }
    panic!("{}: it spins: {}", case.name, state(&probe, 0));
}

fn state(probe: &Driver<Probe, FakeOs>, open: usize) -> String {
    let report = probe.engine().report().page();
    format!("{open} connections; next {:?}\n{report}", probe.engine().next_deadline())
}

/// Plays a case; returns what is wrong with the report.
fn check(case: &Case) -> Result<Outcome, String> {
    let outcome = play(case);
    judge(case, &outcome)?;
    Ok(outcome)
}

fn judge(case: &Case, outcome: &Outcome) -> Result<(), String> {
    let Outcome { report, took_ms, .. } = outcome;
    let fail = |why: String| Err(format!("{}: {why}\n{}", case.name, report.page()));
    let findings = report.findings();
    let all = findings.iter().filter(|(_, found)| found.severity > Severity::Info);
    let mut got: Vec<&str> = all.map(|(_, found)| found.id.as_str()).collect();
    got.sort_unstable();
    let mut want = case.want.clone();
    want.sort_unstable();
    let same = got.len() == want.len()
        && got.iter().zip(&want).all(|(got, want)| want.split('|').any(|want| want == *got));
    let may_be_nothing = |want: &&str| want.split('|').any(|want| want == "nothing");
    let is_nothing = got.is_empty() && want.iter().all(may_be_nothing);
    if !same && !is_nothing {
        return fail(format!("{got:?} instead of {want:?}"));
    }
    if *took_ms > case.most_ms {
        return fail(format!("{took_ms} ms"));
    }
    let is_usual = case.args.contains("--quick") && !case.args.contains("--sockets");
    report::check(report, is_usual).or_else(fail)
}

/// Plays all of them; fails with all that is wrong.
fn check_all(cases: &[Case]) {
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

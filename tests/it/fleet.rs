//! Several gateways in one network, in virtual time: callbacks arrive at any replica while
//! processes are killed, drained and restarted at the same address, replicas are cut off from each
//! other, wires break, clocks differ and step, and keys are rotated. A seed draws all of it.
//!
//! `SEEDS=100000 cargo test --release fleets` runs longer, `FIRST=` sets the first seed, `SEED=…`
//! repeats one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use wspulse::aws::callbacks::UNKNOWN_CONNECTION;
use wspulse::engine::{File, Side, Signal};
use wspulse::net::driver::Driver;
use wspulse::options::{self, Command, Surroundings};
use wspulse::parts::gateway::connection_id::ConnectionId;
use wspulse::parts::gateway::peers::channel::Dialler;
use wspulse::parts::gateway::peers::keys::PeerKeys;
use wspulse::parts::gateway::peers::message::{Answer, Request};
use wspulse::parts::gateway::peers::sealed_id::Boot;
use wspulse::parts::gateway::{CallbackOutcome, CallbackRequest};
use wspulse::rng::Rng;
use wspulse::server::{Assets, Server};
use wspulse::time::{self, Now};

use crate::gateway::take;
use crate::harness::Harness;
use crate::os::{FakeOs, Network, Odds, OnConnect, SERVER, address};
use crate::peer::{Reader, close, upgrade};
use crate::watched::Watched;

const SEEDS: u64 = 150;
const KEY_FILE: &str = "keys";
/// The duration of a play.
const PLAY_MS: u64 = 150_000;
/// The longest time to an answer: two connections, each with its timeouts.
const ANSWER_MS: u64 = 26_500;
/// More steps than this are an endless loop.
const STEPS_MAX: usize = 2_000_000;

struct Client {
    wire: usize,
    host: usize,
    run: u64,
    id: String,
    reader: Reader,
    /// Messages that it received.
    got: Vec<String>,
    /// Closed by the client, by a callback or by its server.
    is_over: bool,
    /// A callback has closed it.
    is_deleted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Get,
    Post,
    Delete,
}

struct Callback {
    wire: usize,
    host: usize,
    run: u64,
    /// `None`: a forged id.
    client: Option<usize>,
    verb: Verb,
    began_ns: u64,
    reader: Reader,
    /// The client was open at the start, and its owner reachable.
    was_reachable: bool,
    status: Option<u16>,
    is_lost: bool,
}

struct Fleet {
    seed: u64,
    rng: Rng,
    net: Network,
    drivers: Vec<Option<Driver<Watched, FakeOs>>>,
    /// Processes that each host has started.
    runs: Vec<u64>,
    /// Hosts that are draining.
    stopping: Vec<bool>,
    keys: Vec<Vec<u8>>,
    clients: Vec<Client>,
    callbacks: Vec<Callback>,
    /// Bytes that the backend has received.
    input: BTreeMap<usize, Vec<u8>>,
    last_id: Option<String>,
    ids: BTreeSet<String>,
    /// When a partition last ended.
    healed_ns: BTreeMap<(usize, usize), u64>,
    steps: usize,
}

thread_local! {
    /// Ids and boots must differ between processes, and be the same for the same seed.
    static RANDOM: RefCell<Rng> = RefCell::new(Rng::new(0));
}

fn draw(_: u64) -> Option<[u8; 16]> {
    RANDOM.with(|rng| {
        let mut rng = rng.borrow_mut();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&rng.below(u64::MAX).to_be_bytes());
        bytes[8..].copy_from_slice(&rng.below(u64::MAX).to_be_bytes());
        Some(bytes)
    })
}

fn server(host: usize, key_file: &[u8], seed: u64) -> (Server, Side) {
    let args = format!(
        "--gateway-backend http://127.0.0.1:8501 --gateway-peer-key-file {KEY_FILE} \
         --ping-interval 0 --gateway-open --drain-delay 1s --drain-window 2s"
    );
    let surroundings = Surroundings { host_name: "pod".to_owned() };
    let args = args.split(' ').map(OsString::from);
    let Ok(Command::Serve(mut serve)) = options::parse(args, Vec::new(), &surroundings) else {
        panic!("these arguments do not serve");
    };
    serve.server.limits.max_connections = 1_000;
    let mut side = Side::Main;
    for (at, plan) in (0..).zip(&mut serve.parts) {
        let file = File {
            name: KEY_FILE.to_owned(),
            bytes: key_file.to_vec(),
            modified_ms: 0,
            prepared: None,
        };
        plan.resolve(&[file], options::Reach::Open).unwrap();
        plan.draw_from(draw);
        let own = plan.listener().map(|_| address(host, 2).to_string());
        side = if own.is_some() { Side::Part(at) } else { side };
        plan.bound(own.as_deref(), Some("0.0.0.0:8081")).unwrap();
    }
    let parts = wspulse::parts::build(serve.parts, seed);
    (Server::new(serve.server, parts, Assets::embedded(Now::default()), seed), side)
}

fn key(byte: u64) -> String {
    format!("{:02x}", byte % 256).repeat(32) + "\n"
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        RANDOM.with(|rng| *rng.borrow_mut() = Rng::new(seed ^ 0xd1ce));
        let hosts = 2 + rng.below(3) as usize;
        let mut draw = |of: &[u64]| of[rng.below(of.len() as u64) as usize];
        let odds = Odds {
            cut: draw(&[0, 0, 300]),
            cut_within: 600,
            counts_both_ends: true,
            short: draw(&[0, 0, 200]),
            latency_ms: draw(&[0, 3, 40, 400]),
            interrupted: draw(&[0, 0, 50]),
            spurious: draw(&[0, 0, 50]),
            stale_events: draw(&[0, 0, 50]),
            capacity: draw(&[100, 5_000, u64::MAX]) as usize,
            ..Odds::NONE
        };
        Self::with(seed, rng, hosts, odds)
    }

    fn with(seed: u64, rng: Rng, hosts: usize, odds: Odds) -> Self {
        let net = Network::faulty(hosts, seed, odds);
        net.state().on_connect = OnConnect::Accept;
        let mut fleet = Self {
            seed,
            rng,
            net,
            drivers: (0..hosts).map(|_| None).collect(),
            runs: vec![0; hosts],
            stopping: vec![false; hosts],
            keys: vec![key(1).into_bytes(); hosts],
            clients: Vec::new(),
            callbacks: Vec::new(),
            input: BTreeMap::new(),
            last_id: None,
            ids: BTreeSet::new(),
            healed_ns: BTreeMap::new(),
            steps: 0,
        };
        (0..hosts).for_each(|host| fleet.start(host));
        fleet
    }

    fn now_ns(&self) -> u64 {
        self.net.state().now_ns
    }

    fn start(&mut self, host: usize) {
        let (server, peers) = server(host, &self.keys[host], self.seed ^ host as u64);
        self.net.state().hosts[host].files =
            Some(vec![(KEY_FILE.to_owned(), self.keys[host].clone())]);
        let os = FakeOs::on(host, &self.net, &[Side::Main, Side::Admin, peers]);
        self.drivers[host] = Some(Driver::new(Watched::new(server), os));
        self.runs[host] += 1;
        self.stopping[host] = false;
    }

    fn kill(&mut self, host: usize) {
        // Like the kernel: all connections at once.
        self.net.state().exit(host);
        self.drivers[host] = None;
        for client in &mut self.clients {
            client.is_over |= client.host == host && client.run == self.runs[host];
        }
    }

    /// Runs everything that can happen now, then advances the time, up to `until_ns`.
    fn step(&mut self, until_ns: u64) {
        self.steps += 1;
        assert!(self.steps < STEPS_MAX, "it spins");
        self.net.state().deliver_due();
        for host in 0..self.drivers.len() {
            let Some(driver) = &mut self.drivers[host] else { continue };
            if driver.turn().unwrap().is_some() {
                self.kill(host);
                continue;
            }
            let server = &driver.engine().server;
            assert_eq!(server.memory(), server.memory_counted());
        }
        self.backend();
        self.listen();
        self.net.state().advance(until_ns);
    }

    fn pass(&mut self, ms: u64) {
        let until_ns = self.now_ns() + time::ms(ms);
        while self.now_ns() < until_ns {
            self.step(until_ns);
        }
        // What arrived in the last step.
        self.listen();
    }

    /// The test's end of a wire: its bytes, and whether nothing follows.
    fn take(&self, wire: usize) -> (Vec<u8>, bool) {
        (self.net.take_output(wire), self.net.is_over(wire))
    }

    /// Answers every request with 200.
    fn backend(&mut self) {
        let wires = self.net.state().outgoing.clone();
        for wire in wires {
            let (bytes, is_over) = self.take(wire);
            let input = self.input.entry(wire).or_default();
            input.extend(bytes);
            while let Some((_, _, id)) = taken(input) {
                // `$disconnect` has its id as well.
                if let Some(id) = id.filter(|id| self.ids.insert(id.clone())) {
                    self.last_id = Some(id);
                }
                self.net.send(wire, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
            if is_over {
                self.net.state().outgoing.retain(|open| *open != wire);
            }
        }
    }

    /// Clients and callers read their sockets.
    fn listen(&mut self) {
        for client in &mut self.clients {
            let (bytes, is_over) =
                (self.net.take_output(client.wire), self.net.is_over(client.wire));
            for line in client.reader.read(&bytes) {
                if let Some(text) = line.strip_prefix("text ") {
                    client.got.push(text.trim_matches('"').to_owned());
                }
                client.is_over |= line.starts_with("close");
            }
            client.is_over |= is_over;
        }
        for at in 0..self.callbacks.len() {
            if self.callbacks[at].status.is_none() && !self.callbacks[at].is_lost {
                let (bytes, is_over) = self.take(self.callbacks[at].wire);
                let lines = self.callbacks[at].reader.read(&bytes);
                if let Some(line) = lines.first() {
                    let status = line.split(' ').next().unwrap().parse().unwrap();
                    self.callbacks[at].status = Some(status);
                    let says_gone = status == 410 && !line.contains(UNKNOWN_CONNECTION);
                    self.judge(at, status, says_gone);
                } else if is_over {
                    self.callbacks[at].is_lost = true;
                }
            }
        }
    }

    /// The owner runs, its client is connected, and the replica can reach it.
    fn is_reachable(&self, from: usize, client: &Client) -> bool {
        let net = self.net.state();
        let pair = (from.min(client.host), from.max(client.host));
        let healed_ns = self.healed_ns.get(&pair).copied();
        // An attempt may have begun before the end of a partition: 2 s, then a pause of 8 s.
        let is_fresh = healed_ns.is_some_and(|ns| net.now_ns < ns + time::ms(10_100));
        self.runs[client.host] == client.run
            && self.drivers[client.host].is_some()
            && !self.stopping[client.host]
            && !client.is_over
            && !client.is_deleted
            && (from == client.host || !(net.partitions.contains(&pair) || is_fresh))
    }

    fn judge(&self, at: usize, status: u16, says_gone: bool) {
        let callback = &self.callbacks[at];
        let took_ms = (self.now_ns() - callback.began_ns) / 1_000_000;
        assert!(took_ms <= ANSWER_MS, "{took_ms} ms");
        let fine = if callback.verb == Verb::Delete { 204 } else { 200 };
        let known = [fine, 410, 429, 502, 503];
        assert!(known.contains(&status), "{:?} {status}", callback.verb);
        if status == 503 && self.stopping[callback.host] {
            // The request arrived while its connection was being closed.
            return;
        }
        let Some(client) = callback.client.map(|client| &self.clients[client]) else {
            assert_eq!((status, says_gone), (410, false), "a forged id");
            return;
        };
        // Also if the owner cannot be reached.
        let is_open = !client.is_over && !client.is_deleted && !self.stopping[client.host];
        assert!(!(says_gone && is_open), "gone, but {} holds {}", client.host, client.id);
        let is_certain = callback.was_reachable && self.is_reachable(callback.host, client);
        assert!(
            status != 410 || !is_certain,
            "410 from {} while {} holds {}",
            callback.host,
            client.host,
            client.id
        );
    }

    fn join(&mut self, host: usize) {
        if self.drivers[host].is_none() || self.stopping[host] {
            return;
        }
        let wire = self.net.state().connect(host, 0);
        self.net.send(wire, &upgrade("/gateway/prod", &[]));
        let run = self.runs[host];
        self.last_id = None;
        let mut reader = Reader::of_pieces();
        let until_ns = self.now_ns() + time::ms(5_000);
        while self.now_ns() < until_ns {
            self.step(until_ns);
            let (bytes, is_over) = self.take(wire);
            if reader.read(&bytes).iter().any(|line| line.starts_with("101")) {
                let id = self.last_id.clone().expect("the backend received a request");
                assert_eq!(id.len(), 63);
                let client = Client {
                    wire,
                    host,
                    run,
                    id,
                    reader,
                    got: Vec::new(),
                    is_over: false,
                    is_deleted: false,
                };
                return self.clients.push(client);
            }
            if is_over {
                return;
            }
        }
    }

    fn call_back(&mut self, host: usize) {
        if self.drivers[host].is_none() || self.clients.is_empty() {
            return;
        }
        let wire = self.net.state().connect(host, 1);
        let number = self.rng.below(self.clients.len() as u64) as usize;
        let is_forged = self.rng.below(10) == 0;
        let mut id = self.clients[number].id.clone();
        if is_forged {
            let at = 2 + self.rng.below(60) as usize;
            let other = if &id[at..=at] == "A" { "B" } else { "A" };
            id.replace_range(at..=at, other);
        }
        let verb = [Verb::Post, Verb::Post, Verb::Post, Verb::Get][self.rng.below(4) as usize];
        let verb = if self.rng.below(20) == 0 { Verb::Delete } else { verb };
        let was_reachable = !is_forged && self.is_reachable(host, &self.clients[number]);
        if verb == Verb::Delete && !is_forged {
            self.clients[number].is_deleted = true;
        }
        let token = format!("m{}", self.callbacks.len());
        let (name, body) = match verb {
            Verb::Get => ("GET", ""),
            Verb::Post => ("POST", &*token),
            Verb::Delete => ("DELETE", ""),
        };
        let head = format!(
            "{name} /prod/@connections/{id} HTTP/1.1\r\nHost: h\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.net.send(wire, head.as_bytes());
        let run = self.runs[host];
        self.callbacks.push(Callback {
            wire,
            host,
            run,
            client: (!is_forged).then_some(number),
            verb,
            began_ns: self.now_ns(),
            reader: Reader::of_pieces(),
            was_reachable,
            status: None,
            is_lost: false,
        });
    }

    fn part(&mut self) {
        let hosts = self.drivers.len() as u64;
        let (one, other) = (self.rng.below(hosts) as usize, self.rng.below(hosts) as usize);
        let pair = (one.min(other), one.max(other));
        let mut net = self.net.state();
        if net.partitions.remove(&pair) {
            self.healed_ns.insert(pair, net.now_ns);
        } else if one != other {
            net.partitions.insert(pair);
        }
    }

    /// Each replica learns the keys by SIGHUP, one after the other.
    fn give_keys(&mut self, text: &str) {
        for host in 0..self.drivers.len() {
            self.keys[host] = text.as_bytes().to_vec();
            self.net.state().hosts[host].files =
                Some(vec![(KEY_FILE.to_owned(), self.keys[host].clone())]);
            self.net.state().signal(host, Signal::Reload);
            let pause_ms = self.rng.below(500);
            self.pass(pause_ms);
        }
    }

    fn play(&mut self) {
        for host in 0..self.drivers.len() {
            self.join(host);
        }
        let mut rotation = 0;
        let until_ns = self.now_ns() + time::ms(PLAY_MS);
        while self.now_ns() < until_ns {
            let host = self.rng.below(self.drivers.len() as u64) as usize;
            match self.rng.below(100) {
                0..5 if self.clients.len() < 30 => self.join(host),
                5..7 if self.drivers[host].is_some() => self.kill(host),
                7..15 if self.drivers[host].is_none() => self.start(host),
                15..17 if self.drivers[host].is_some() => {
                    self.stopping[host] = true;
                    self.net.state().signal(host, Signal::Stop);
                }
                17..21 => self.part(),
                21..23 => {
                    let skew_ms = self.rng.below(3_000_000).cast_signed() - 1_500_000;
                    self.net.state().hosts[host].skew_ms = skew_ms;
                }
                // The new key is appended; later it is in front; the old one stays for the ids.
                23..25 if rotation < 2 => {
                    rotation += 1;
                    let order = if rotation == 1 { [1, 2] } else { [2, 1] };
                    self.give_keys(&(key(order[0]) + &key(order[1])));
                }
                25 if !self.clients.is_empty() => {
                    let client = self.rng.below(self.clients.len() as u64) as usize;
                    self.clients[client].is_over = true;
                    let wire = self.clients[client].wire;
                    self.net.send(wire, &close(1000, ""));
                }
                _ => self.call_back(host),
            }
            let pause_ms = if self.rng.below(30) == 0 { 20_000 } else { 500 };
            let pause_ms = self.rng.below(pause_ms);
            self.pass(pause_ms);
        }
        self.net.state().partitions.clear();
        self.pass(ANSWER_MS + 5_000);
    }

    fn conclude(&mut self) {
        let mut delivered: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (number, client) in self.clients.iter().enumerate() {
            for token in &client.got {
                delivered.entry(token.clone()).or_default().push(number);
            }
        }
        for (number, callback) in self.callbacks.iter().enumerate() {
            let ended = callback.status.is_some() || callback.is_lost;
            let is_same_run = self.runs[callback.host] == callback.run;
            assert!(ended, "callback {number} has no answer");
            // Only a kill of the called replica may lose the answer.
            let runs_on = is_same_run && self.drivers[callback.host].is_some();
            assert!(
                !(callback.is_lost && runs_on && !self.stopping[callback.host]),
                "callback {number} at {} got no answer: {:?} after {} ms",
                callback.host,
                callback.verb,
                callback.began_ns / 1_000_000
            );
            let to = delivered.remove(&format!("m{number}")).unwrap_or_default();
            assert!(to.len() <= 1, "callback {number} was delivered twice: {to:?}");
            assert!(to.iter().all(|client| Some(*client) == callback.client), "to another");
            match (callback.verb, callback.status) {
                (Verb::Post, Some(200)) => {
                    let client = &self.clients[callback.client.unwrap()];
                    assert!(client.is_over || to.len() == 1, "callback {number} is lost");
                }
                (Verb::Post, Some(410 | 429 | 503)) => assert_eq!(to, [0; 0], "{number}"),
                _ => {}
            }
        }
        assert!(delivered.is_empty(), "{delivered:?}");
        let open = self.drivers.iter().flatten().map(|driver| driver.engine().server.connections());
        assert!(open.sum::<usize>() < 200);
    }
}

/// The path, body and connection id of a request.
fn taken(input: &mut Vec<u8>) -> Option<(String, Vec<u8>, Option<String>)> {
    let text = String::from_utf8_lossy(input).into_owned();
    let id = text.split("ConnectionId: ").nth(1).and_then(|rest| rest.split('\r').next());
    let (path, body) = take(input)?;
    Some((path, body, id.map(str::to_owned)))
}

#[test]
fn fleets() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds: Vec<u64> = if let Some(seed) = number("SEED") {
        let _ = env_logger::builder().is_test(true).try_init();
        vec![seed]
    } else {
        let first = number("FIRST").unwrap_or(0);
        (first..first + number("SEEDS").unwrap_or(SEEDS)).collect()
    };
    let mut statuses: BTreeMap<Option<u16>, u64> = BTreeMap::new();
    for seed in seeds.iter().copied() {
        let outcome = std::panic::catch_unwind(|| {
            let mut fleet = Fleet::new(seed);
            fleet.play();
            fleet.conclude();
            fleet.callbacks.iter().map(|callback| callback.status).collect::<Vec<_>>()
        });
        let Ok(seen) = outcome else { panic!("SEED={seed} cargo test fleets") };
        for status in seen {
            *statuses.entry(status).or_default() += 1;
        }
    }
    println!("{statuses:?}");
    if seeds.len() >= 100 {
        for status in [200, 410, 502, 503] {
            assert!(statuses.contains_key(&Some(status)), "none was {status}: {statuses:?}");
        }
    }
}

/// Clients without the key fill the peer listener: replicas still reach each other, and each such
/// client is closed after 2 s without a byte.
#[test]
fn clients_without_the_key_do_not_lock_replicas_out() {
    let mut fleet = Fleet::with(3, Rng::new(3), 2, Odds::NONE);
    fleet.join(0);
    fleet.pass(1_000);
    let mut strangers = Vec::new();
    for number in 0..600 {
        let wire = fleet.net.state().connect(0, 2);
        if number % 2 == 0 {
            fleet.net.send(wire, &[1; 20]);
        }
        strangers.push(wire);
        fleet.pass(1);
        let open = fleet.drivers[0].as_ref().unwrap().engine().server.connections();
        assert!(open < 270, "{open} connections");
    }
    let client = fleet.clients[0].id.clone();
    for host in [1, 0] {
        let wire = fleet.net.state().connect(host, 1);
        let head = format!("GET /@connections/{client} HTTP/1.1\r\nHost: h\r\n\r\n");
        fleet.net.send(wire, head.as_bytes());
        fleet.pass(50);
        let answer = fleet.take(wire).0;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
    }
    fleet.pass(2_100);
    for wire in strangers {
        assert_eq!(fleet.take(wire), (Vec::new(), true));
    }
}

/// A replica that does not read its answers is not read either, so that few answers are pending;
/// once it reads, every answer arrives.
#[test]
fn a_replica_that_does_not_read_its_answers_is_not_read() {
    const REQUESTS: u32 = 20_000;
    RANDOM.with(|rng| *rng.borrow_mut() = Rng::new(1));
    let file = key(1);
    let (server, side) = server(0, file.as_bytes(), 1);
    let net = Network::new();
    let os = FakeOs::on(SERVER, &net, &[Side::Main, Side::Admin, side]);
    let driver = Driver::new(Watched::new(server), os);
    let mut harness = Harness { driver, net, exit: None };
    // The boot is drawn first: see `RANDOM`.
    let mut rng = Rng::new(1);
    let boot = Boot(rng.below(u64::MAX).to_be_bytes());
    let keys = PeerKeys::parse(file.as_bytes()).unwrap();
    let mut dialler = Dialler::new(keys.first().clone(), boot, [9; 16]);
    let wire = harness.net.connect(2);
    let mut bytes = Vec::new();
    dialler.hello(&mut bytes);
    harness.send(wire, &bytes);
    dialler
        .received(&harness.output(wire), &mut |_| panic!("an answer without a request"))
        .unwrap();
    assert!(dialler.is_open());
    harness.net.window(wire, 0);
    let mut bytes = Vec::new();
    dialler.confirm(&mut bytes);
    for number in 0..REQUESTS {
        let connection = ConnectionId([7; 16]);
        let callback = CallbackRequest::Get;
        let request = Request { number, connection, callback, trace: None };
        dialler.seal(&[&request.pieces().0], &mut bytes);
    }
    harness.send(wire, &bytes);
    let memory = harness.driver.engine().memory();
    assert!((64 * 1024..256 * 1024).contains(&memory), "{memory} bytes");
    harness.net.window(wire, usize::MAX);
    harness.settle();
    let mut answers = 0;
    dialler
        .received(&harness.output(wire), &mut |message| {
            let answer = Answer { number: answers, outcome: CallbackOutcome::Gone };
            assert_eq!(Answer::read(message), Some(answer));
            answers += 1;
            true
        })
        .unwrap();
    assert_eq!(answers, REQUESTS);
    harness.net.reset(wire);
    harness.settle();
    assert!(harness.driver.engine().memory() < 16 * 1024);
}

const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Ten thousand forged ids: all get 410, and none causes a packet.
#[test]
fn random_ids_cause_no_packet() {
    let mut fleet = Fleet::with(3, Rng::new(3), 2, Odds::NONE);
    fleet.join(0);
    // Each connects to its own address first.
    fleet.pass(1_000);
    let syns = fleet.net.state().syns_between_hosts;
    let minted = fleet.clients[0].id.clone();
    let wire = fleet.net.state().connect(1, 1);
    let mut reader = Reader::of_pieces();
    for number in 0..10_000 {
        let chars = [22, 63, 79, fleet.rng.below(200) as usize][number % 4];
        let digit = |rng: &mut Rng| char::from(DIGITS[rng.below(64) as usize]);
        let mut id: String = (0..chars).map(|_| digit(&mut fleet.rng)).collect();
        if number % 3 == 0 && chars == 63 {
            // The right key id, and the right owner.
            id.replace_range(..22, &minted[..22]);
        }
        let head = format!("GET /@connections/{id}x HTTP/1.1\r\nHost: h\r\n\r\n");
        let head = if number % 5 == 0 { head } else { head.replace("x HTTP", " HTTP") };
        fleet.net.send(wire, head.as_bytes());
        let mut lines = Vec::new();
        for _ in 0..10 {
            fleet.step(fleet.now_ns() + 1_000_000);
            lines.extend(reader.read(&fleet.take(wire).0));
            if !lines.is_empty() {
                break;
            }
        }
        let status = lines.first().map(|line| line[..3].to_owned()).unwrap_or_default();
        assert!(status == "410" || (chars <= 1 && status == "404"), "{id}: {lines:?}");
    }
    assert_eq!(fleet.net.state().syns_between_hosts, syns);
}

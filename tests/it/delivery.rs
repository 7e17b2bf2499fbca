//! Each message, Close and reset reaches the client it is for and no other, with random clients on
//! several mounts, a backend with random delays, callbacks, clients that leave, and connections
//! that are closed for several reasons at once.

use std::collections::BTreeMap;

use wspulse::rng::Rng;

use crate::harness::Harness;
use crate::os::{End, OnConnect};
use crate::peer::{self, Reader};

const SEEDS: u64 = 300;
const STEPS: u64 = 120;
const CLIENTS: usize = 8;

#[derive(Default)]
struct Client {
    wire: usize,
    reader: Reader,
    path: &'static str,
    /// Its connection id for callbacks.
    id: Option<String>,
    /// A callback has closed it.
    deleted: bool,
    /// It has left on its own.
    left: bool,
    closed: bool,
}

struct Play {
    harness: Harness,
    rng: Rng,
    clients: Vec<Client>,
    /// A connection to the admin listener; its responses are not checked.
    admin: usize,
    /// Connections of the backend with an unanswered request, once for each.
    pending: Vec<usize>,
    shed: bool,
}

impl Play {
    fn new(seed: u64) -> Self {
        let args = "--gateway-backend http://127.0.0.1:8501 --gateway-open --ping-interval 0 \
                    --max-age 3s --max-age-jitter 30%";
        let args: Vec<&str> = args.split_whitespace().collect();
        let mut harness = Harness::seeded(&args, seed);
        harness.net.state().on_connect = OnConnect::Accept;
        let admin = harness.net.connect(1);
        harness.settle();
        let rng = Rng::new(seed);
        Self { harness, rng, clients: Vec::new(), admin, pending: Vec::new(), shed: false }
    }

    /// A random client that has not left.
    fn some(&mut self) -> Option<usize> {
        let here = |client: &&Client| !client.left && !client.closed;
        let count = self.clients.iter().filter(here).count() as u64;
        let at = self.rng.below(count.max(1)) as usize;
        let mut here = (0..self.clients.len()).filter(|at| here(&&self.clients[*at]));
        here.nth(at)
    }

    fn step(&mut self) {
        match self.rng.below(12) {
            0..3 if self.clients.len() < CLIENTS => self.open(),
            0..5 => self.send(),
            5..8 => self.answer(),
            8 => self.call_back(false),
            9 => self.call_back(true),
            10 if self.rng.below(8) == 0 => self.shed(),
            10 => self.leave(),
            _ => self.harness.pass(self.rng.below(400)),
        }
        self.harness.settle();
        self.serve();
        self.look();
    }

    fn open(&mut self) {
        let paths = ["/gateway/prod", "/gateway/prod", "/socket", "/echo", "/echo?delay=300ms"];
        let path = paths[self.rng.below(5) as usize];
        let wire = self.harness.connect();
        self.harness.send(wire, &peer::upgrade(path, &[]));
        let mut client = Client { wire, path, ..Client::default() };
        if path == "/gateway/prod" {
            client.id = self.serve();
        }
        self.clients.push(client);
    }

    /// Sends the client's index, which no other client may receive.
    fn send(&mut self) {
        if let Some(at) = self.some() {
            self.harness.net.send(self.clients[at].wire, &peer::text(&format!("<{at}>")));
        }
    }

    fn leave(&mut self) {
        if let Some(at) = self.some() {
            self.clients[at].left = true;
            let wire = self.clients[at].wire;
            match self.rng.below(3) {
                0 => self.harness.net.reset(wire),
                1 => self.harness.net.fin(wire),
                _ => self.harness.net.send(wire, &peer::frame(0x88, &1000_u16.to_be_bytes())),
            }
        }
    }

    fn shed(&mut self) {
        self.shed = true;
        let shed = b"POST /shed?percent=50 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        self.harness.net.send(self.admin, shed);
    }

    fn call_back(&mut self, close: bool) {
        let Some(at) = self.some() else { return };
        let Some(id) = self.clients[at].id.clone() else { return };
        let text = format!("<{at}>");
        let (method, body) = if close { ("DELETE", "") } else { ("POST", &*text) };
        let request = format!(
            "{method} /@connections/{id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n\
             {body}",
            body.len()
        );
        self.clients[at].deleted |= close;
        self.harness.net.send(self.admin, request.as_bytes());
    }

    /// Reads the backend's requests; returns the connection id of a $connect.
    fn serve(&mut self) -> Option<String> {
        let outgoing = self.harness.net.state().outgoing.clone();
        let mut fresh = None;
        for wire in outgoing {
            let asked = String::from_utf8(self.harness.net.take_output(wire)).unwrap();
            for request in asked.split("POST ").skip(1) {
                self.pending.push(wire);
                let id =
                    request.split("ConnectionId: ").nth(1).filter(|_| request.starts_with("/c"));
                fresh = fresh.or_else(|| id.map(|id| id.split("\r\n").next().unwrap().to_owned()));
            }
        }
        fresh
    }

    /// The backend answers one of the pending requests or resets its connection.
    fn answer(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let wire = self.pending.swap_remove(self.rng.below(self.pending.len() as u64) as usize);
        if self.harness.end(wire).is_some() {
            return;
        }
        if self.rng.below(12) == 0 {
            return self.harness.net.reset(wire);
        }
        self.harness.net.send(wire, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }

    /// Checks that each client receives only what is meant for it.
    fn look(&mut self) {
        self.harness.net.take_output(self.admin);
        for (at, client) in self.clients.iter_mut().enumerate() {
            let received = client.reader.read(&self.harness.net.take_output(client.wire));
            for line in received {
                // Names have one digit, so `reverse` changes only the brackets around them.
                let name = line.split(['<', '>']).nth(1).filter(|_| line.contains('<'));
                if let Some(name) = name {
                    assert_eq!(
                        name,
                        at.to_string(),
                        "client {at} on {} receives {line}",
                        client.path
                    );
                }
                if line.starts_with("close") {
                    let explained = match &*line {
                        "close 1000 \"\"" => client.deleted || client.left,
                        "close 1001 \"shed\"" => self.shed,
                        "close 1001 \"max age\"" => true,
                        _ => client.left,
                    };
                    assert!(explained, "client {at} on {} receives {line}", client.path);
                    client.closed = true;
                }
            }
            match self.harness.net.end(client.wire) {
                Some(End::Reset) => panic!("client {at} on {} was reset", client.path),
                Some(_) => client.closed = true,
                None => {}
            }
        }
    }
}

#[test]
fn messages_and_closes_reach_the_right_client() {
    let mut received = BTreeMap::new();
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| {
            let mut play = Play::new(seed);
            for _ in 0..STEPS {
                play.step();
            }
            play.clients.iter().filter(|client| client.closed).count()
        });
        let over = outcome.unwrap_or_else(|_| panic!("seed {seed}"));
        *received.entry(over).or_insert(0) += 1;
    }
    // The test would prove nothing if no client were closed.
    assert!(received.iter().any(|(over, plays)| *over >= 4 && *plays >= 10), "{received:?}");
}

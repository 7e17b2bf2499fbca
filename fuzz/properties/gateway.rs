//! Clients, backends and callbacks in any order: one request of a connection at a time, its
//! messages in order, each with one answer or one error; no memory is left at the end.

/// A build without the gateway has none of this.
#[cfg(not(feature = "gateway"))]
pub fn gateway(_: &[u8]) {}

/// See the module's head.
#[cfg(feature = "gateway")]
pub fn gateway(data: &[u8]) {
    model::Model::new().play(data);
}

#[cfg(feature = "gateway")]
mod model {
    use std::collections::BTreeMap;

    use wspulse::behaviours::Kind;
    use wspulse::calls::pool::{Failure, Reply};
    use wspulse::engine::{HangUp, Id, Now};
    use wspulse::parts::gateway::plan::{Backend, Domain, Order, routes};
    use wspulse::parts::gateway::{
        Asker, CallbackRequest, ConnectRequest, Expression, Format, Gateway, NoResponse, Plan,
        Step, Verdict, connection_id,
    };

    /// Connections at once.
    const PLACES: u32 = 4;

    /// A client's view of its connection.
    #[derive(Debug, Default)]
    struct Client {
        generation: u32,
        is_open: bool,
        sent: u32,
        answered: u32,
    }

    pub(super) struct Model {
        gateway: Gateway,
        clients: Vec<Client>,
        /// Requests in flight, and their connections.
        asked: BTreeMap<Asker, (String, Vec<u8>)>,
        /// The last message of each client that was requested.
        last: BTreeMap<String, u32>,
        now: Now,
    }

    impl Model {
        pub(super) fn new() -> Self {
            let backend = Backend::parse("http://127.0.0.1:1").expect("a backend");
            let plan = Plan {
                backend,
                stage: "prod".to_owned(),
                expression: Expression::parse("$request.body.a").ok(),
                routes: routes("1=http://127.0.0.1:2,2").expect("routes"),
                format: Format::Proxy,
                domain: Domain::Host,
                pod_ip: None,
                peers: None,
                order: Order::Kept,
                reply: true,
                binary: true,
                time_scale: 1,
                open: true,
                ca_file: String::new(),
                token_file: String::new(),
                credentials_file: String::new(),
                hold_ms: 0,
                in_flight: 8,
                connections_max: 8,
                draw: connection_id::counted,
            };
            let clients = (0..PLACES).map(|_| Client::default()).collect();
            Self {
                gateway: Gateway::new(plan, 1),
                clients,
                asked: BTreeMap::new(),
                last: BTreeMap::new(),
                now: Now { mono_ns: 1, wall_ms: 0 },
            }
        }

        /// Two bytes per operation: which one, and its connection.
        pub(super) fn play(&mut self, data: &[u8]) {
            for pair in data[..data.len().min(2_000)].chunks_exact(2) {
                let place = u32::from(pair[1]) % PLACES;
                self.operate(pair[0] % 13, place, usize::from(pair[1]));
                self.follow();
            }
            for place in 0..PLACES {
                self.operate(4, place, 0);
                self.follow();
            }
            while let Some(&ticket) = self.asked.keys().next() {
                self.answer(ticket, 200);
                self.follow();
            }
            assert_eq!(self.gateway.cost(), 0, "memory is left");
            assert_eq!(self.gateway.sessions(), (0, 0));
            assert_eq!(self.gateway.flights(), 0);
        }

        fn id(&self, place: u32) -> Id {
            Id { key: place, generation: self.clients[place as usize].generation }
        }

        fn operate(&mut self, what: u8, place: u32, byte: usize) {
            let (id, now) = (self.id(place), self.now);
            let is_open = self.clients[place as usize].is_open;
            match what {
                0 | 1 if !is_open => self.ask_to_connect(place),
                0..=2 if is_open => {
                    let client = &mut self.clients[place as usize];
                    client.sent += 1;
                    let text = format!("{{\"a\":{},\"n\":{}}}", byte % 4, client.sent);
                    let kind = if byte.is_multiple_of(8) { Kind::Binary } else { Kind::Text };
                    self.gateway.message(now, id, kind, text.as_bytes());
                }
                3 => self.collect(place),
                4 => {
                    self.gateway.left(now, id, 1006, true);
                    self.leave(place);
                }
                5 if is_open => {
                    self.collect(place);
                    self.gateway.closing(id, 1000, "bye");
                    self.gateway.left(now, id, 1000, false);
                    self.leave(place);
                }
                6..=10 => {
                    let count = self.asked.len().max(1);
                    if let Some(&asker) = self.asked.keys().nth(byte % count) {
                        self.answer(
                            asker,
                            if what == 10 { 0 } else { [200, 200, 500, 204][byte % 4] },
                        );
                    }
                }
                11 => {
                    let name =
                        connection_id::counted(byte as u64 / 4).map(connection_id::ConnectionId);
                    let name = name.map_or_else(String::new, |name| name.to_string());
                    let asked_for = [
                        CallbackRequest::Get,
                        CallbackRequest::Close,
                        CallbackRequest::Post(Kind::Text, b"push"),
                    ][byte % 3];
                    drop(self.gateway.callback(now, &name, asked_for));
                }
                12 => {
                    let ms = byte as u64 * 10;
                    self.now.mono_ns += ms * 1_000_000;
                    self.now.wall_ms += i64::try_from(ms).unwrap_or(0);
                }
                _ => {}
            }
        }

        fn ask_to_connect(&mut self, place: u32) {
            let client = ConnectRequest {
                source_ip: "192.0.2.1".to_owned(),
                user_agent: "",
                host: "h",
                fields: Vec::new(),
                raw_query: "",
                query: Vec::new(),
            };
            let (id, now) = (self.id(place), self.now);
            self.gateway.ask_to_connect(now, id, &client);
            self.follow();
            // Some leave before the answer; the others get it at once.
            let own = self.asked.keys().max_by_key(|asker| asker.ticket()).copied();
            let own = own.filter(|asker| asker.ticket() % 4 != 3);
            if let Some(asker) = own.filter(|_| !self.gateway.has_verdict(id)) {
                self.answer(asker, 200);
            }
            let welcome = matches!(self.gateway.verdict(now, id), Verdict::Welcome(_));
            self.clients[place as usize].is_open = welcome;
            if !welcome {
                self.leave(place);
            }
        }

        /// Reads pushes: each answer is the reply or an error frame.
        fn collect(&mut self, place: u32) {
            let (now, id) = (self.now, self.id(place));
            let client = &mut self.clients[place as usize];
            while self.gateway.take_push(now, id, |_, bytes| {
                client.answered += u32::from(bytes != b"push");
            }) {
                assert!(client.answered <= client.sent, "answered twice");
            }
        }

        fn leave(&mut self, place: u32) {
            self.gateway.gone(self.now, self.id(place));
            let generation = self.clients[place as usize].generation + 1;
            self.clients[place as usize] = Client { generation, ..Client::default() };
        }

        fn answer(&mut self, asker: Asker, status: u16) {
            self.asked.remove(&asker);
            let how = match status {
                0 => Err(NoResponse::Failed(Failure::NotConnected(HangUp::Refused))),
                status => Ok(Reply::new(status, b"reply")),
            };
            self.gateway.answered(self.now, asker, how);
        }

        /// Reads the requests: never two of one connection, never an older message.
        fn follow(&mut self) {
            while let Some(step) = self.gateway.poll() {
                match step {
                    Step::Ask(asker, _, call) => {
                        let text = String::from_utf8_lossy(call.bytes.bytes()).into_owned();
                        let name = text.split("ConnectionId: ").nth(1).unwrap_or_default();
                        let name = name.split('\r').next().unwrap_or_default().to_owned();
                        let alone = self.asked.values().all(|(other, _)| *other != name);
                        assert!(alone, "two requests of one connection");
                        if let Some((_, number)) = text.rsplit_once("\"n\":") {
                            let number = number.trim_end_matches('}').parse().unwrap_or(0);
                            let last = self.last.insert(name.clone(), number).unwrap_or(0);
                            assert!(last < number, "{number} after {last}");
                        }
                        self.asked.insert(asker, (name, call.bytes.bytes().to_vec()));
                    }
                    Step::Forget(asker, _) => drop(self.asked.remove(&asker)),
                    Step::Withdraw(asker) => {
                        let is_unsent = asker.ticket() % 8 == 3;
                        if is_unsent && self.asked.remove(&asker).is_some() {
                            self.gateway.withdrawn(asker);
                        }
                    }
                    Step::Wake(_) => {}
                }
            }
        }
    }
}

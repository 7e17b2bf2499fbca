//! A replica's external input: key files, ids, and the bytes of peer connections. Only sealed data
//! is opened, once and in order.

/// A build without the gateway has none of this.
#[cfg(not(feature = "gateway"))]
pub fn peers(_: &[u8]) {}

/// The first byte chooses the kind of the rest.
#[cfg(feature = "gateway")]
pub fn peers(data: &[u8]) {
    let Some((what, rest)) = data.split_first() else { return };
    match what % 5 {
        0 => model::key_file(rest),
        1 => model::id(rest),
        2 => model::unauthenticated(rest),
        3 => model::messages(rest),
        _ => model::Pair::new().play(rest),
    }
}

#[cfg(feature = "gateway")]
mod model {
    use std::collections::VecDeque;

    use wspulse::parts::gateway::peers::channel::{
        Acceptor, ChannelFault, Dialler, GREETING_BYTES, HELLO_BYTES,
    };
    use wspulse::parts::gateway::peers::keys::{KEYS_MAX, PeerKeys};
    use wspulse::parts::gateway::peers::message::{Answer, Request};
    use wspulse::parts::gateway::peers::sealed_id::{Boot, Minter, Owner, SealedId};

    const BOOT: Boot = Boot([1; 8]);

    fn keys() -> PeerKeys {
        let file = "11".repeat(32) + "\n" + &"22".repeat(32);
        PeerKeys::parse(file.as_bytes()).expect("two keys")
    }

    /// A file is 1 to 3 keys, or an error that contains no part of it.
    pub(super) fn key_file(data: &[u8]) {
        match PeerKeys::parse(data) {
            Ok(keys) => {
                assert!(keys.find(keys.first().id()) == Some(keys.first()));
                let lines = data.split(|byte| *byte == b'\n');
                let filled = lines.filter(|line| !line.trim_ascii().is_empty());
                assert!((1..=KEYS_MAX).contains(&filled.count()));
            }
            Err(why) => assert!(why.to_string().is_ascii()),
        }
    }

    /// The first byte of `data` chooses the owner; then pairs: a position and its new character.
    pub(super) fn id(data: &[u8]) {
        // Each owner has its own keys: an id of one is a forgery to the other.
        let (address, keys) = if data.first().is_some_and(|byte| byte % 2 == 0) {
            ("10.0.0.1:8082", keys())
        } else {
            let key = "33".repeat(32);
            ("[fd00::1]:8082", PeerKeys::parse(key.as_bytes()).expect("a key"))
        };
        let owner = Owner { address: address.parse().expect("an address"), boot: BOOT };
        let mut minter = Minter::new(owner, "prod", &keys, 5).expect("a minter");
        let (connection, text) = minter.mint(1_795_230_000_000).expect("an id");
        let mut changed = text.as_bytes().to_vec();
        for pair in data.get(1..).unwrap_or_default().chunks_exact(2) {
            let at = usize::from(pair[0]) % changed.len();
            changed[at] = pair[1];
        }
        for given in [&changed[..], data] {
            let Ok(given) = str::from_utf8(given) else { continue };
            match SealedId::open(given, "prod", &keys) {
                Ok(id) => {
                    assert_eq!(given.trim_end_matches('='), &*text, "another spelling");
                    assert_eq!((id.owner, id.connection), (owner, connection));
                }
                Err(_) => assert_ne!(given, &*text),
            }
        }
    }

    /// Bytes of a client without the key, in parts of 1 to 8: no output, and little is kept.
    pub(super) fn unauthenticated(data: &[u8]) {
        let mut acceptor = Acceptor::new(BOOT, [3; 16]);
        let mut out = Vec::new();
        let size = 1 + data.first().map_or(0, |byte| usize::from(byte % 8));
        for part in data.chunks(size) {
            let how = acceptor
                .received(&keys(), part, &mut out, &mut |_| panic!("served without the key"));
            assert!(out.is_empty(), "answered without the key");
            if how.is_err() {
                return;
            }
        }
        assert!(data.len() < HELLO_BYTES, "too much is kept");
        assert!(acceptor.held_bytes() <= 2 * HELLO_BYTES);
    }

    /// Decoding and encoding give the same bytes.
    pub(super) fn messages(data: &[u8]) {
        if let Some(request) = Request::read(data) {
            let (head, trace, body) = request.pieces();
            assert_eq!([&head[..], trace, body].concat(), data);
        }
        if let Some(answer) = Answer::read(data) {
            // Another replica's answer may have a longer User-Agent.
            let bytes = answer.bytes();
            assert!(bytes == data || data.len() > 1_000);
        }
    }

    /// Both ends of a connection, and the wire between them.
    pub(super) struct Pair {
        keys: PeerKeys,
        dialler: Dialler,
        acceptor: Acceptor,
        /// To the owner, and to the dialler.
        wires: [Vec<u8>; 2],
        /// Earlier bytes of the wires.
        past: [Vec<u8>; 2],
        /// Sealed requests that are not served yet, and answers.
        sealed: VecDeque<Vec<u8>>,
        answers: VecDeque<Vec<u8>>,
        is_over: [bool; 2],
        is_confirmed: bool,
        /// The wire was tampered with: later data need not arrive.
        is_tampered: [bool; 2],
        count: u8,
    }

    impl Pair {
        pub(super) fn new() -> Self {
            let keys = keys();
            let dialler = Dialler::new(keys.first().clone(), BOOT, [2; 16]);
            let mut hello = Vec::new();
            dialler.hello(&mut hello);
            Self {
                keys,
                dialler,
                acceptor: Acceptor::new(BOOT, [3; 16]),
                wires: [hello, Vec::new()],
                past: [Vec::new(), Vec::new()],
                sealed: VecDeque::new(),
                answers: VecDeque::new(),
                is_over: [false; 2],
                is_confirmed: false,
                is_tampered: [false; 2],
                count: 0,
            }
        }

        /// Two bytes per operation: deliver, send, change, cut out, replay.
        pub(super) fn play(mut self, data: &[u8]) {
            for pair in data[..data.len().min(1_000)].chunks_exact(2) {
                let (to, amount) = (usize::from(pair[0] & 1), usize::from(pair[1]));
                match pair[0] / 2 % 8 {
                    0..3 => self.deliver(to, amount),
                    3 | 4 => self.send(amount),
                    5 if !self.wires[to].is_empty() => {
                        let at = amount % self.wires[to].len();
                        self.wires[to][at] ^= pair[1] | 1;
                        self.is_tampered[to] = true;
                    }
                    6 if !self.wires[to].is_empty() => {
                        let at = amount % self.wires[to].len();
                        self.wires[to].remove(at);
                        self.is_tampered[to] = true;
                    }
                    7 => {
                        let start = amount.min(self.past[to].len());
                        let again = self.past[to][start..].to_vec();
                        self.wires[to].extend(again);
                        self.is_tampered[to] = true;
                    }
                    _ => {}
                }
            }
            // Without tampering, everything arrives.
            for _ in 0..3 {
                self.deliver(0, usize::MAX);
                self.deliver(1, usize::MAX);
            }
            if self.is_tampered == [false; 2] {
                assert!(self.is_confirmed && self.sealed.is_empty() && self.answers.is_empty());
            }
        }

        fn send(&mut self, amount: usize) {
            if self.dialler.is_open() {
                self.count = self.count.wrapping_add(1);
                let message = vec![self.count; 1 + amount % 50];
                self.dialler.seal(&[&message], &mut self.wires[0]);
                self.sealed.push_back(message);
            }
        }

        fn deliver(&mut self, to: usize, amount: usize) {
            let count = amount.min(self.wires[to].len());
            let bytes: Vec<u8> = self.wires[to].drain(..count).collect();
            self.past[to].extend_from_slice(&bytes);
            if self.is_over[to] {
                return;
            }
            let how = if to == 0 { self.serve(&bytes) } else { self.receive(&bytes) };
            if how.is_err() {
                self.is_over[to] = true;
                assert!(self.is_tampered.contains(&true), "{how:?} on a wire without tampering");
            }
        }

        fn serve(&mut self, bytes: &[u8]) -> Result<(), ChannelFault> {
            let Self { sealed, answers, .. } = self;
            self.acceptor.received(&self.keys, bytes, &mut self.wires[1], &mut |message| {
                assert_eq!(sealed.pop_front().as_deref(), Some(message));
                answers.push_back(message.to_vec());
                Some(message.to_vec())
            })
        }

        fn receive(&mut self, bytes: &[u8]) -> Result<(), ChannelFault> {
            let answers = &mut self.answers;
            self.dialler.received(bytes, &mut |message| {
                assert_eq!(answers.pop_front().as_deref(), Some(message));
                true
            })?;
            if self.dialler.is_open() && !std::mem::replace(&mut self.is_confirmed, true) {
                assert!(self.past[1].len() >= GREETING_BYTES);
                self.dialler.confirm(&mut self.wires[0]);
            }
            Ok(())
        }
    }
}

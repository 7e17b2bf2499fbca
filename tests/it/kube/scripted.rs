//! An informer with scripted responses: the test supplies the bytes, whatever the request is.

use wspulse::engine::{HangUp, Id, Now};
use wspulse::options::proxies::Proxies;
use wspulse::parts::informer::access::Access;
use wspulse::parts::informer::{Filter, Format, Informer, Plan, Resource, Step};

/// An informer, its one viewer, and the clock.
pub(super) struct Scripted {
    pub(super) informer: Informer,
    pub(super) now_ns: u64,
    pub(super) asked: Vec<String>,
    pub(super) hung_up: usize,
    pub(super) output: Vec<String>,
}

pub(super) const VIEWER: Id = Id { key: 1, generation: 0 };

impl Scripted {
    /// With a viewer, at a server that does not stream lists: the first page is asked for.
    pub(super) fn new(format: Format) -> Self {
        let mut scripted = Self::streaming(format);
        scripted.receive(NO_STREAM, usize::MAX);
        (scripted.asked, scripted.hung_up) = (vec![scripted.asked.remove(1)], 0);
        scripted
    }

    /// With a viewer and an established connection, on which a streamed list is asked for.
    pub(super) fn streaming(format: Format) -> Self {
        let access = Access::from_url("http://127.0.0.1:8001").unwrap();
        let (resource, namespace) = (Resource::Deployments, String::new());
        let (origin, proxies) = (None, Proxies::default());
        let plan = Plan { access, resource, namespace, always: false, origin, proxies };
        let mut informer = Informer::new(plan, 1);
        informer.feed.join(VIEWER, Filter { format, ..Filter::default() });
        let mut scripted = Self {
            informer,
            now_ns: 1_000_000_000,
            asked: Vec::new(),
            hung_up: 0,
            output: Vec::new(),
        };
        scripted.settle();
        scripted
    }

    pub(super) fn now(&self) -> Now {
        Now { mono_ns: self.now_ns, wall_ms: 1_795_230_000_000 }
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            self.informer.update_demand(self.now());
            match self.informer.poll() {
                None => break,
                Some(Step::Connect(_)) => {
                    let mut out = Vec::new();
                    self.informer.connected(self.now(), Ok(()), &mut out);
                    self.note(&out);
                }
                Some(Step::HangUp) => self.hung_up += 1,
                Some(Step::Read(_)) => {}
            }
        }
        let (now, output) = (self.now(), &mut self.output);
        self.informer.feed.speak(now, VIEWER, &mut |encoded| {
            output.extend(
                encoded.payloads().map(|payload| String::from_utf8(payload.to_vec()).unwrap()),
            );
            1
        });
    }

    pub(super) fn last_asked(&self) -> &str {
        self.asked.last().unwrap()
    }

    fn note(&mut self, out: &[u8]) {
        if !out.is_empty() {
            let text = std::str::from_utf8(out).unwrap();
            self.asked.push(text.lines().next().unwrap().to_owned());
        }
    }

    /// Delivers bytes in pieces of this size.
    pub(super) fn receive(&mut self, bytes: &[u8], size: usize) {
        for piece in bytes.chunks(size) {
            let mut out = Vec::new();
            self.informer.received(self.now(), piece, &mut out);
            self.note(&out);
            self.settle();
        }
    }

    pub(super) fn end(&mut self, how: HangUp) {
        self.informer.ended(self.now(), how);
        self.settle();
    }

    /// Lets this much time pass, with all deadlines in it.
    pub(super) fn pass(&mut self, ms: u64) {
        let until_ns = self.now_ns + ms * 1_000_000;
        while self.informer.next_deadline().is_some_and(|due_ns| due_ns <= until_ns) {
            self.wait();
        }
        self.now_ns = until_ns;
    }

    /// Waits for the next deadline and fires it.
    pub(super) fn wait(&mut self) {
        if let Some(due_ns) = self.informer.next_deadline() {
            self.now_ns = self.now_ns.max(due_ns);
            self.informer.fire(self.now());
            self.settle();
        }
    }
}

/// The answer of a server that does not know streamed lists.
pub(super) const NO_STREAM: &[u8] =
    b"HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: 2\r\n\r\n{}";

/// The head of a watch.
pub(super) const WATCH: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A response with this status and no other news.
pub(super) fn status(code: u16) -> Vec<u8> {
    format!("HTTP/1.1 {code} X\r\nContent-Length: 2\r\n\r\n{{}}").into_bytes()
}

pub(super) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A list with this body.
pub(super) fn list(body: &[u8]) -> Vec<u8> {
    let length = body.len();
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes(), body].concat()
}

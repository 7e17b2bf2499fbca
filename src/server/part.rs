//! The interface of a part: an optional component that brings its own routes, metrics, behaviours
//! and connections, and that the server does not know by name. A part cannot change the server. It
//! is called when an event concerns it, and requests everything else through [`Part::poll`].

use core::net::IpAddr;

use crate::behaviours::{Params, Sockets};
use crate::engine::{File, HangUp, Id, NameFault, Now, Peer, Target};
use crate::proto::http::Request;
use crate::proto::refusal::Refusal;
use crate::proto::response::Response;
use crate::rng::Rng;
use crate::server::ops::metrics::{Metric, Page};
use crate::server::route::{Reply, RequestBody, Route};

/// Index of a part in the server's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartId(pub(super) u8);

/// An extra. Optional methods have defaults.
pub trait Part: Sockets {
    /// The name, by which behaviours refer to the part.
    fn name(&self) -> &'static str;

    // Declarations, read once at start.

    /// Routes, answered by [`Part::respond`].
    fn routes(&self) -> &'static [Route] {
        &[]
    }

    /// Metrics, written by [`Part::show`].
    fn metrics(&self) -> &'static [Metric] {
        &[]
    }

    /// A field to add to the first message of connections with `hello=1`. `mounts` are the paths of
    /// the part's mounts.
    fn hello(&self, _mounts: &[&str]) -> Option<(&'static str, serde_json::Value)> {
        None
    }

    /// Connections of the admin listener to allow in addition to the usual limit.
    fn admin_connections(&self) -> usize {
        0
    }

    /// Files to read at start.
    fn initial_files(&self) -> Vec<String> {
        Vec::new()
    }

    // Requests.

    /// Handles a request to one of the part's routes.
    fn respond(&mut self, _asked: PartRequest<'_, '_, '_>) -> Reply {
        Reply::Now(Response::refusal(Refusal::NotFound))
    }

    /// Writes the samples of one of the part's metrics.
    fn show(&self, _metric: &str, _page: &mut Page<'_>) {}

    /// Fields to add to `/stats`.
    fn stats(&self, _now: Now) -> Vec<(&'static str, serde_json::Value)> {
        Vec::new()
    }

    /// A note that `/readyz` appends to `OK`.
    fn ready_note(&self) -> Option<&'static str> {
        None
    }

    // WebSockets of its behaviours; their messages arrive through `Sockets`.

    /// A client requests an upgrade that the server itself would accept.
    fn admit(&mut self, _upgrade: &UpgradeRequest<'_, '_, '_>) -> Admission {
        Admission::Now
    }

    /// Whether a pending admission is decided.
    fn has_verdict(&self, _id: Id) -> bool {
        true
    }

    /// The decision on a pending admission. Called once: when it is decided or timed out.
    fn verdict(&mut self, _now: Now, _id: Id) -> Decision {
        Decision::Welcome(None)
    }

    /// A WebSocket ended. With `drops_messages`, its queued messages must not be delivered.
    fn left(&mut self, _now: Now, _id: Id, _code: u16, _drops_messages: bool) {}

    // Connections.

    /// The handler of the part's outgoing connections.
    fn connections(&mut self) -> Option<&mut dyn Connections> {
        None
    }

    /// A connection is closed: an outgoing one, a WebSocket, or one with a pending admission.
    fn closed(&mut self, now: Now, id: Id);

    // Time and files.

    /// When to call [`Part::fire`].
    fn next_deadline(&self) -> Option<u64> {
        None
    }

    /// The deadline has passed.
    fn fire(&mut self, _now: Now) {}

    /// A name was resolved, possibly for another part.
    fn resolved(&mut self, _now: Now, _host: &str, _found: Result<&[IpAddr], NameFault>) {}

    /// The server closes its connections from now on, and then exits.
    fn draining(&mut self, _now: Now) {}

    /// Files were read, possibly for another part.
    fn fetched(&mut self, _now: Now, _paths: &[String], _files: &[File]) {}

    /// SIGHUP: files may have changed.
    fn reload(&mut self, _now: Now) {}

    // State that the server asks for.

    /// The next order. Polled after every call to the part.
    fn poll(&mut self, _now: Now) -> Option<Order> {
        None
    }

    /// Memory became short, or is sufficient again.
    fn memory_changed(&mut self, _is_short: bool) {}

    /// Accounted bytes of the part.
    fn cost(&self) -> usize {
        0
    }

    /// Bytes of its tables, which are not accounted.
    fn table_cost(&self) -> usize {
        0
    }

    /// Bytes owned on behalf of one connection.
    fn cost_of(&self, _id: Id) -> usize {
        0
    }

    /// Whether the process must not exit yet.
    fn is_busy(&self) -> bool {
        false
    }

    /// Names and versions of cached objects, for tests.
    fn contents(&self) -> Vec<(String, String, String)> {
        Vec::new()
    }
}

/// Handler of the connections opened by [`Order::Connect`], and of those accepted at the part's own
/// listener. When one is closed, [`Part::closed`] is called.
pub trait Connections {
    /// The id of the new connection; `None` if there are too many.
    fn opened(&mut self, now: Now, id: Option<Id>);

    /// A connection was accepted at the part's listener. The result says whether to keep it.
    fn accepted(&mut self, _now: Now, _id: Id, _peer: Peer) -> bool {
        false
    }

    /// The limit of accepted connections is reached. Gives up one, which the server resets.
    fn evict(&mut self) -> Option<Id> {
        None
    }

    /// The connection is established, or connecting failed.
    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Vec<u8>);

    /// Bytes were received.
    fn received(&mut self, now: Now, id: Id, bytes: &[u8], out: &mut Vec<u8>);

    /// Called after [`Order::Write`] or [`Order::Request`], to produce output.
    fn render(&mut self, _id: Id, _out: &mut Vec<u8>) {}

    /// The kernel accepted `taken` bytes of the output; the server buffers the other `left`.
    fn kept(&mut self, _id: Id, _taken: usize, _left: usize) {}

    /// The kernel accepted some of the buffered output; `left` bytes are still buffered.
    fn sent(&mut self, _id: Id, _left: usize) {}

    /// The peer closed its side, or the connection broke.
    fn ended(&mut self, now: Now, id: Id, how: HangUp);
}

/// Prints only the name: full debug output of every part would enlarge the binary.
impl core::fmt::Debug for dyn Part + '_ {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// A request to one of a part's routes.
#[derive(Debug)]
pub struct PartRequest<'a, 'r, 'b> {
    /// The current time.
    pub now: Now,
    /// The connection.
    pub id: Id,
    /// The address of the client.
    pub peer: Peer,
    /// The path of the matching route, with its placeholders.
    pub route: &'static str,
    /// The request's path below the base path.
    pub path: &'a str,
    /// The request.
    pub request: &'a Request<'r, 'b>,
    /// The body, or why it was not read.
    pub body: RequestBody<'a>,
    /// Seeded random numbers.
    pub rng: &'a mut Rng,
}

impl PartRequest<'_, '_, '_> {
    /// The value of `Retry-After`, with jitter.
    pub fn retry_after(&mut self) -> String {
        retry_after(self.rng)
    }
}

pub(super) fn retry_after(rng: &mut Rng) -> String {
    (1 + rng.below(5)).to_string()
}

/// A request to open a WebSocket.
#[derive(Debug)]
pub struct UpgradeRequest<'a, 'r, 'b> {
    /// The current time.
    pub now: Now,
    /// The connection.
    pub id: Id,
    /// The address of the client.
    pub peer: Peer,
    /// The other end of the connection, perhaps a proxy.
    pub via: Peer,
    /// The request.
    pub request: &'a Request<'r, 'b>,
    /// Parameters of the mount and the URL.
    pub params: &'a Params,
}

/// Whether a client may open a WebSocket.
#[derive(Debug)]
pub enum Admission {
    /// Yes.
    Now,
    /// The decision follows. The part orders [`Order::Write`] when [`Part::verdict`] is ready.
    Pending {
        /// When the server stops waiting for it, which is after the part's own timeouts.
        within_ms: u64,
    },
    /// No: this response.
    Refused(Response<'static>),
}

/// The decision on a pending admission.
#[derive(Debug)]
pub enum Decision {
    /// Accepted, with a subprotocol if any. One that the client did not offer is ignored.
    Welcome(Option<String>),
    /// Refused with this response.
    Refused(Response<'static>),
}

/// An action that a part requests from the server.
#[derive(Debug)]
pub enum Order {
    /// Open a connection; [`Connections::opened`] is called immediately.
    Connect(Target),
    /// Resolve this name; [`Part::resolved`] follows.
    Resolve(Box<str>),
    /// Call [`Connections::render`], or wake the WebSocket.
    Write(Id),
    /// Call [`Connections::render`] for a request, unless the server has closed the connection.
    Request(Id),
    /// Close an outgoing connection; reset it if output is queued.
    Close(Id),
    /// Reset an outgoing connection.
    Reset(Id),
    /// Read these files; [`Part::fetched`] follows.
    Read(Vec<String>),
    /// Send the response that a request waits for, see [`Reply::Later`].
    Answer(Id, Response<'static>),
    /// Exit the process with this status.
    Exit(u8),
}

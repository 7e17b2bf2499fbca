//! What a part is: an extra that brings routes, metrics, WebSockets and connections of its own,
//! and that the server does not know by name. A part changes nothing of the server itself: it is
//! called when something concerns it, and asks for the rest through [`Part::poll`].

use crate::behaviours::{Params, Sockets};
use crate::engine::{File, HangUp, Id, Now, Peer, Target};
use crate::proto::http::Request;
use crate::proto::refusal::Refusal;
use crate::proto::response::Response;
use crate::rng::Rng;
use crate::server::ops::metrics::{Metric, Page};
use crate::server::route::{Reply, Route, Taken};

/// Which part, by its place in the list that the server was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartId(pub(super) u8);

/// An extra. Each method but the required ones has a default for parts that do not need it.
pub trait Part: Sockets {
    /// Its name: behaviours name the part that speaks for them by it.
    fn name(&self) -> &'static str;

    // What it brings, asked once.

    /// Its paths, which [`Part::respond`] answers.
    fn routes(&self) -> &'static [Route] {
        &[]
    }

    /// Its metrics, which [`Part::show`] fills in.
    fn metrics(&self) -> &'static [Metric] {
        &[]
    }

    /// Fields of its own in the first message of a connection with `hello=1`, given the paths of
    /// its mounts.
    fn hello(&self, _mounts: &[&str]) -> Option<(&'static str, serde_json::Value)> {
        None
    }

    /// Connections of the admin listener that it needs beside the usual ones.
    fn admin_connections(&self) -> usize {
        0
    }

    /// Files that are to be read at start.
    fn initial_files(&self) -> Vec<String> {
        Vec::new()
    }

    // What it answers.

    /// Answers a request to one of its routes.
    fn respond(&mut self, _asked: Asked<'_, '_, '_>) -> Reply {
        Reply::Now(Response::refusal(Refusal::NotFound))
    }

    /// Writes the rows of one of its metrics.
    fn show(&self, _metric: &str, _page: &mut Page<'_>) {}

    /// Its fields of `/stats`.
    fn stats(&self, _now: Now) -> Vec<(&'static str, serde_json::Value)> {
        Vec::new()
    }

    /// What `/readyz` adds to its `OK`.
    fn remark(&self) -> Option<&'static str> {
        None
    }

    // WebSockets of its behaviours; what they say is in `Sockets`.

    /// A client wants to open one, and nothing else is against it.
    fn admit(&mut self, _upgrade: &UpgradeRequest<'_, '_, '_>) -> Admission {
        Admission::Now
    }

    /// Whether it has decided on a pending admission.
    fn has_verdict(&self, _id: Id) -> bool {
        true
    }

    /// What became of a pending admission. It is asked for once: when it is decided, or when the
    /// time for that is over.
    fn verdict(&mut self, _now: Now, _id: Id) -> Verdict {
        Verdict::Welcome(None)
    }

    /// A WebSocket is over; `drops_messages` says that what waits in it is not to be delivered.
    fn left(&mut self, _now: Now, _id: Id, _code: u16, _drops_messages: bool) {}

    // Connections.

    /// What speaks on the connections that it asks for.
    fn connections(&mut self) -> Option<&mut dyn Connections> {
        None
    }

    /// A connection is closed: its own, or one of its WebSockets, or one whose admission was
    /// pending.
    fn closed(&mut self, now: Now, id: Id);

    // Time and files.

    /// When [`Part::fire`] is to be called.
    fn next_deadline(&self) -> Option<u64> {
        None
    }

    /// Does what is due.
    fn fire(&mut self, _now: Now) {}

    /// Files were read; perhaps another part asked for them.
    fn fetched(&mut self, _now: Now, _paths: &[String], _files: &[File]) {}

    /// The operator says that files may have changed.
    fn reload(&mut self, _now: Now) {}

    // What the server has to know.

    /// What it wants next. Asked after anything that may have made it want something.
    fn poll(&mut self, _now: Now) -> Option<Order> {
        None
    }

    /// Bytes that it owns.
    fn cost(&self) -> usize {
        0
    }

    /// Bytes of its tables, which the account does not have.
    fn table_cost(&self) -> usize {
        0
    }

    /// Bytes that it owns for one connection.
    fn cost_of(&self, _id: Id) -> usize {
        0
    }

    /// Whether the process has to wait for it before it may exit.
    fn is_busy(&self) -> bool {
        false
    }

    /// Names and versions of what it knows, for tests.
    fn contents(&self) -> Vec<(String, String, String)> {
        Vec::new()
    }
}

/// The connections that a part asked for with [`Order::Connect`]. The end of each is reported to
/// [`Part::closed`].
pub trait Connections {
    /// The id of the connection that was asked for; `None`: there are too many.
    fn opened(&mut self, id: Option<Id>);

    /// It is established, or connecting failed.
    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Vec<u8>);

    /// Bytes came.
    fn received(&mut self, now: Now, id: Id, bytes: &[u8], out: &mut Vec<u8>);

    /// It may be written to, as [`Order::Write`] asked for.
    fn render(&mut self, _id: Id, _out: &mut Vec<u8>) {}

    /// The kernel took so many bytes of what was just written; the rest is kept.
    fn kept(&mut self, _id: Id, _taken: usize) {}

    /// The kernel took some of what was kept.
    fn sent(&mut self, _id: Id) {}

    /// The peer sends no more.
    fn ended(&mut self, now: Now, id: Id, how: HangUp);
}

/// Its state is not shown: the code for that would be carried for every part.
impl core::fmt::Debug for dyn Part + '_ {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// A request to one of a part's routes.
#[derive(Debug)]
pub struct Asked<'a, 'r, 'b> {
    /// The moment.
    pub now: Now,
    /// The connection that it came from.
    pub id: Id,
    /// Who is at its other end.
    pub peer: Peer,
    /// The row of the table that it matches.
    pub route: &'static str,
    /// Its path below the base path.
    pub path: &'a str,
    /// All of it.
    pub request: &'a Request<'r, 'b>,
    /// Its body, or why there is none.
    pub body: Taken<'a>,
    /// Seeded randomness.
    pub rng: &'a mut Rng,
}

impl Asked<'_, '_, '_> {
    /// Seconds after which a client that is refused may come back: not all of them at once.
    pub fn retry_after(&mut self) -> String {
        retry_after(self.rng)
    }
}

pub(super) fn retry_after(rng: &mut Rng) -> String {
    (1 + rng.below(5)).to_string()
}

/// A client that wants to open a WebSocket.
#[derive(Debug)]
pub struct UpgradeRequest<'a, 'r, 'b> {
    /// The moment.
    pub now: Now,
    /// Its connection.
    pub id: Id,
    /// Who it is.
    pub peer: Peer,
    /// What it asks for.
    pub request: &'a Request<'r, 'b>,
    /// What the mount and the URL ask for.
    pub params: &'a Params,
}

/// Whether a client may open a WebSocket.
#[derive(Debug)]
pub enum Admission {
    /// At once.
    Now,
    /// [`Part::verdict`] will say. [`Order::Write`] for the connection asks for it.
    Pending,
}

/// What became of a pending admission.
#[derive(Debug)]
pub enum Verdict {
    /// It is a WebSocket, perhaps with a subprotocol; one that the client did not offer is none.
    Welcome(Option<String>),
    /// It is not.
    Refused(Response<'static>),
}

/// What a part wants of the server.
#[derive(Debug)]
pub enum Order {
    /// A connection; [`Connections::opened`] is called at once.
    Connect(Target),
    /// To be asked what there is to say on this connection.
    Write(Id),
    /// To close a connection of its own, or to reset it if output waits.
    Close(Id),
    /// To reset a connection of its own.
    Reset(Id),
    /// To have these files read.
    Read(Vec<String>),
    /// To give the answer that a request waits for, see [`Reply::Later`].
    Answer(Id, Response<'static>),
    /// To end the process with this status.
    Exit(u8),
}

//! The callback API: `POST`, `GET` and `DELETE` on `@connections/{id}`, with the statuses and error
//! names of AWS. Also authorizes the callers.

use serde::Serialize;

use super::peers::outgoing::{OUTCOME_MS, PeerOutcome};
use super::peers::{Holder, Peers};
use super::traceparent::Traceparent;
use super::{CallbackOutcome, CallbackRequest, Gateway, Plan};
use crate::aws::callbacks::UNKNOWN_CONNECTION;
use crate::aws::keys::Keys;
use crate::aws::sigv4::{self, Parts};
use crate::behaviours::Kind;
use crate::engine::{File, Now, Peer};
use crate::proto::http::{Method, percent_decoded};
use crate::proto::response::Response;
use crate::server::part::PartRequest;
use crate::server::tokens::{self, Tokens};
use crate::server::{Deferred, Reply, json};
use crate::time;

/// The service in the scope of signatures.
const SERVICE: &str = "execute-api";
const CONNECTIONS: &str = "/@connections/";
/// How much longer the server waits for an outcome than it may take.
const LATE_MS: u64 = 2_000;

/// Authorizes callbacks by the token and access keys in their files.
#[derive(Debug)]
pub(super) struct Guard {
    token_file: String,
    tokens: Tokens,
    keys_file: String,
    keys: Keys,
}

impl Guard {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            token_file: plan.token_file.clone(),
            tokens: Tokens::new([plan.token_file.clone()].into_iter()),
            keys_file: plan.credentials_file.clone(),
            keys: Keys::default(),
        }
    }

    pub(super) fn files(&self) -> Vec<String> {
        let keys = Some(self.keys_file.clone()).filter(|file| !file.is_empty());
        self.tokens.paths().into_iter().chain(keys).collect()
    }

    /// Whether the files are due to be re-read after a request; true once per interval.
    pub(super) fn is_due(&mut self, now: Now, refused: bool) -> bool {
        let tokens = &mut self.tokens;
        let is_due = if refused { tokens.is_due_after_refusal(now) } else { tokens.is_due(now) };
        is_due && !self.files().is_empty()
    }

    pub(super) fn fetched(&mut self, now: Now, files: &[File]) {
        self.tokens.fetched(now, files);
        for File { name, bytes, .. } in files {
            if *name != self.keys_file {
                continue;
            }
            match Keys::parse(bytes) {
                Ok(read) => self.keys = read,
                Err(why) => log::warn!(
                    target: "credentials", reason:% = why;
                    "--gateway-credentials-file cannot be used: {}",
                    tokens::fallback(!self.keys.is_empty())
                ),
            }
        }
    }

    /// Authorizes a request; the error says what is required.
    fn check(&self, asked: &PartRequest<'_, '_, '_>, plan: &Plan) -> Result<(), &'static str> {
        let request = asked.request;
        let is_near = match asked.peer {
            Peer::Tcp { ip, .. } => ip.is_loopback(),
            Peer::Unix => true,
        };
        if self.token_file.is_empty() && self.keys_file.is_empty() {
            let may = is_near || plan.open;
            let why = "callbacks are taken from this machine only, see --gateway-token-file";
            return if may { Ok(()) } else { Err(why) };
        }
        if !self.token_file.is_empty()
            && self.tokens.is_bearer(asked.now, request, &self.token_file)
        {
            return Ok(());
        }
        if self.keys_file.is_empty() {
            return Err("a token is needed, in Authorization: Bearer");
        }
        if self.keys.is_empty() {
            return Err("no credentials are known");
        }
        let fields: Vec<(&str, &[u8])> = request.fields().collect();
        let parts = Parts {
            method: request.method_text,
            target: request.target,
            fields: &fields,
            body: asked.body.unwrap_or_default(),
        };
        sigv4::verify(&parts, SERVICE, &self.keys, asked.now.wall_ms)
            .map_err(sigv4::Denied::sentence)
    }
}

/// Answers `/{stage}/@connections/{id}` and `/@connections/{id}`: immediately, or when the replica
/// that owns the connection has answered.
pub(super) fn answer(
    gateway: &mut Gateway,
    guard: &mut Guard,
    peers: Option<&mut Peers>,
    asked: &PartRequest<'_, '_, '_>,
) -> Reply {
    // Before the signature, which covers a body that was not read.
    if asked.request.method == Method::Post && asked.body.is_err() {
        return Reply::Now(too_large());
    }
    if let Err(why) = guard.check(asked, gateway.plan()) {
        return Reply::Now(error(403, "ForbiddenException", &format!("Forbidden: {why}")));
    }
    let path = percent_decoded(asked.path).unwrap_or_default();
    let Some((stage, id)) = path.split_once(CONNECTIONS) else {
        return Reply::Now(respond(CallbackOutcome::Unknown));
    };
    let known = &gateway.plan().stage;
    if !stage.is_empty() && stage.strip_prefix('/') != Some(known) {
        let why = format!("Forbidden: the stage is {known}, see --gateway-stage");
        return Reply::Now(error(403, "ForbiddenException", &why));
    }
    match asked_for(asked) {
        Ok(asked_for) => carry_out(gateway, peers, asked, (id, asked_for)),
        Err(refused) => Reply::Now(refused),
    }
}

fn asked_for<'b>(
    asked: &PartRequest<'b, '_, '_>,
) -> Result<CallbackRequest<'b>, Response<'static>> {
    match asked.request.method {
        Method::Delete => Ok(CallbackRequest::Close),
        Method::Get | Method::Head => Ok(CallbackRequest::Get),
        Method::Post | Method::Options | Method::Unserved => match asked.body {
            Err(_) => Err(too_large()),
            // Whatever the Content-Type: AWS' own SDKs always send application/octet-stream.
            Ok(bytes) => {
                let is_text = simdutf8::basic::from_utf8(bytes).is_ok();
                Ok(CallbackRequest::Post(if is_text { Kind::Text } else { Kind::Binary }, bytes))
            }
        },
    }
}

pub(super) fn trace(asked: &PartRequest<'_, '_, '_>) -> Option<Traceparent> {
    asked.request.value("traceparent").and_then(|value| Traceparent::parse(value.as_bytes()))
}

fn carry_out(
    gateway: &mut Gateway,
    peers: Option<&mut Peers>,
    asked: &PartRequest<'_, '_, '_>,
    (id, asked_for): (&str, CallbackRequest<'_>),
) -> Reply {
    let now = asked.now;
    let outcome = match peers.map(|peers| (peers.find(now, id), peers)) {
        None | Some((Holder::Unsealed, _)) => gateway.callback(now, id, asked_for),
        Some((Holder::Local(connection), _)) => gateway.callback_for(now, connection, asked_for),
        Some((Holder::Expired, _)) => CallbackOutcome::Gone,
        Some((Holder::Invalid, _)) => CallbackOutcome::Unknown,
        Some((Holder::Remote(id), peers)) => {
            gateway.counts.count_callback("peer");
            peers.forward(now, &id, asked.id, (asked_for, trace(asked)));
            return Reply::Later { after_ms: OUTCOME_MS + LATE_MS, what: Deferred::Part };
        }
    };
    let is_gone = matches!(outcome, CallbackOutcome::Gone | CallbackOutcome::Unknown);
    gateway.counts.count_callback(if is_gone { "gone" } else { "local" });
    Reply::Now(respond(outcome))
}

/// The response to a callback that was forwarded to the owner.
pub(super) fn forwarded(outcome: PeerOutcome) -> Response<'static> {
    match outcome {
        PeerOutcome::Answered(outcome) => respond(outcome),
        PeerOutcome::Gone(_) => respond(CallbackOutcome::Gone),
        PeerOutcome::Unreachable => respond(CallbackOutcome::Unknown),
        PeerOutcome::Unavailable(_) => {
            let why = "the replica that holds the connection does not answer";
            try_later(503, "ServiceUnavailableException", why)
        }
        PeerOutcome::Cut => {
            let why = "the replica that holds the connection may have sent the message or not";
            error(502, "BadGatewayException", why)
        }
        PeerOutcome::Busy => {
            let why = "too many callbacks wait for the replica that holds the connection";
            try_later(429, "LimitExceededException", why)
        }
    }
}

fn too_large() -> Response<'static> {
    error(413, "PayloadTooLargeException", "Payload too large")
}

fn respond(outcome: CallbackOutcome) -> Response<'static> {
    match outcome {
        CallbackOutcome::Queued => Response::empty(200),
        CallbackOutcome::Closing => Response::empty(204),
        CallbackOutcome::Gone => error(410, "GoneException", "Gone"),
        CallbackOutcome::Unknown => error(410, "GoneException", UNKNOWN_CONNECTION),
        CallbackOutcome::Overloaded => {
            try_later(429, "LimitExceededException", "the gateway is short of memory")
        }
        CallbackOutcome::Full => {
            let why = "the client does not take what waits for it";
            try_later(429, "LimitExceededException", why)
        }
        CallbackOutcome::Found { connected_at_ms, source_ip, user_agent, last_active_ms } => {
            json(&ConnectionInfo {
                connected_at: time::rfc3339(connected_at_ms),
                identity: Identity { source_ip, user_agent },
                last_active_at: time::rfc3339(last_active_ms),
            })
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionInfo {
    connected_at: String,
    identity: Identity,
    last_active_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    source_ip: String,
    user_agent: String,
}

fn try_later(status: u16, name: &'static str, message: &str) -> Response<'static> {
    error(status, name, message).with("Retry-After", "1")
}

/// AWS clients read the error name from the header field.
fn error(status: u16, name: &'static str, message: &str) -> Response<'static> {
    #[derive(Serialize)]
    struct Message<'a> {
        message: &'a str,
    }
    let mut response = json(&Message { message });
    response.status = status;
    response.with("x-amzn-ErrorType", name)
}

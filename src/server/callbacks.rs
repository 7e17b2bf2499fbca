//! How backends reach a WebSocket: `POST`, `GET` and `DELETE` on `@connections/{id}`, with the
//! statuses and names of errors that AWS' own clients know. Who may is decided here.

use serde::Serialize;

use super::routes::{self, Reply, Taken, View};
use super::shared::Cx;
use super::tokens;
use crate::aws::sigv4::{self, Parts};
use crate::behaviours::Kind;
use crate::engine::Peer;
use crate::gateway::{Outcome, Wish};
use crate::proto::http::{Method, Request, percent_decoded};
use crate::proto::response::Response;
use crate::time;

/// What a signature must be good for.
const SERVICE: &str = "execute-api";
const MARK: &str = "/@connections/";

/// `/{stage}/@connections/{id}` and `/@connections/{id}`.
pub(super) fn callback(request: &Request<'_, '_>, body: Taken<'_>, cx: &mut Cx<'_>) -> Reply {
    let response = answer(request, body, cx);
    log::debug!(
        target: "callback", method = request.method_text, status = response.status,
        peer:% = cx.peer;
        "callback"
    );
    Reply::Now(response)
}

fn answer(request: &Request<'_, '_>, body: Taken<'_>, cx: &mut Cx<'_>) -> Response<'static> {
    if cx.shared.gateway.inner.is_none() {
        return routes::not_found(View::of(cx));
    }
    if let Err(why) = check(request, body, cx) {
        return error(403, "ForbiddenException", &format!("Forbidden: {why}"));
    }
    let path = routes::below(&cx.shared.config.base_path, &request.path).unwrap_or_default();
    let path = percent_decoded(path).unwrap_or_default();
    let Some(gateway) = &mut cx.shared.gateway.inner else {
        return error(410, "GoneException", "Gone");
    };
    let Some((stage, id)) = path.split_once(MARK) else {
        return error(410, "GoneException", "Gone");
    };
    let known = &gateway.plan().stage;
    if !stage.is_empty() && stage.strip_prefix('/') != Some(known) {
        let why = format!("Forbidden: the stage is {known}, see --gateway-stage");
        return error(403, "ForbiddenException", &why);
    }
    let wish = match request.method {
        Method::Delete => Wish::Close,
        Method::Get | Method::Head => Wish::Look,
        Method::Post | Method::Options | Method::Unserved => match body {
            Err(_) => return error(413, "PayloadTooLargeException", "Payload too large"),
            Ok(bytes) if is_binary(request) => Wish::Post(Kind::Binary, bytes),
            Ok(bytes) if simdutf8::basic::from_utf8(bytes).is_ok() => Wish::Post(Kind::Text, bytes),
            Ok(_) => {
                let why = "the body is not UTF-8: binary needs Content-Type \
                           application/octet-stream";
                return error(400, "BadRequestException", why);
            }
        },
    };
    told(gateway.callback(cx.now, id, wish))
}

fn is_binary(request: &Request<'_, '_>) -> bool {
    let kind = request.value("content-type").unwrap_or_default();
    kind.split(';')
        .next()
        .is_some_and(|k| k.trim().eq_ignore_ascii_case("application/octet-stream"))
}

fn told(outcome: Outcome) -> Response<'static> {
    match outcome {
        Outcome::Queued => Response::empty(200),
        Outcome::Closing => Response::empty(204),
        Outcome::Gone => error(410, "GoneException", "Gone"),
        Outcome::Full => {
            let why = "the client does not take what waits for it";
            error(429, "LimitExceededException", why).with("Retry-After", "1")
        }
        Outcome::Seen { connected_at_ms, source_ip, user_agent, last_active_ms } => {
            routes::json(&Seen {
                connected_at: time::rfc3339(connected_at_ms),
                identity: Identity { source_ip, user_agent },
                last_active_at: time::rfc3339(last_active_ms),
            })
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
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

/// As AWS' clients expect it: they take the name from the field.
fn error(status: u16, name: &'static str, message: &str) -> Response<'static> {
    #[derive(Serialize)]
    struct Message<'a> {
        message: &'a str,
    }
    let mut response = routes::json(&Message { message });
    response.status = status;
    response.with("x-amzn-ErrorType", name)
}

/// Whether this peer may do that; if not, what it would need.
fn check(request: &Request<'_, '_>, body: Taken<'_>, cx: &mut Cx<'_>) -> Result<(), &'static str> {
    let Some(gateway) = &cx.shared.gateway.inner else { return Err("there is no gateway") };
    let plan = gateway.plan();
    let (token, credentials) = (plan.token_file.clone(), plan.credentials_file.clone());
    let is_near = match cx.peer {
        Peer::Tcp { ip, .. } => ip.is_loopback(),
        Peer::Unix => true,
    };
    if token.is_empty() && credentials.is_empty() {
        let may = is_near || plan.open;
        let why = "callbacks are taken from this machine only, see --gateway-token-file";
        return if may { Ok(()) } else { Err(why) };
    }
    if !token.is_empty() && tokens::is_bearer(request, &token, cx) {
        return Ok(());
    }
    if credentials.is_empty() {
        return Err("a token is needed, in Authorization: Bearer");
    }
    tokens::refresh(cx);
    let Some(keys) = cx.shared.tokens.keys(&credentials) else {
        return Err("no credentials are known");
    };
    let fields: Vec<(&str, &[u8])> = request.fields().collect();
    let parts = Parts {
        method: request.method_text,
        target: request.target,
        fields: &fields,
        body: body.unwrap_or_default(),
    };
    sigv4::verify(&parts, SERVICE, keys, cx.now.wall_ms).map_err(sigv4::Denied::sentence)
}

//! Builds the requests to backends in each format, and the errors that clients get. Client input is
//! used only as values: escaped in JSON, and in header fields and queries as far as `connect` lets
//! them pass; never in paths or lengths.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::connect::{self, ConnectRequest};
use super::connection_id::ConnectionId;
use super::in_flight::InFlight;
use super::plan::{Format, Plan, Route};
use super::request_id::RequestId;
use super::session::Session;
use super::{MESSAGE_BYTES, NoResponse, TIMEOUT_MS};
use crate::calls::pool::{Call, Class, Failure, Reply};
use crate::engine::Now;
use crate::outbox::Block;
use crate::proto::frame::Kind;
use crate::proto::http::visible_ascii;
use crate::proto::http_client::{Asked, Limits, Request, Unsendable};
use crate::time;

/// Maximum response head; the body may be as long as a message.
const HEAD_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(super) enum BackendEvent<'a> {
    Connect(&'a ConnectRequest<'a>),
    Message(Kind, &'a [u8]),
    Disconnect(u16, &'a str),
}

impl BackendEvent<'_> {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Connect(_) => "CONNECT",
            Self::Message(..) => "MESSAGE",
            Self::Disconnect(..) => "DISCONNECT",
        }
    }

    pub(super) fn route(&self, plan: &Plan) -> Route {
        match self {
            Self::Connect(_) => Route::Connect,
            Self::Disconnect(..) => Route::Disconnect,
            Self::Message(_, payload) => {
                let key = plan.expression.as_ref().and_then(|e| e.select(payload));
                let place = key.and_then(|key| plan.routes.iter().position(|(k, _)| *k == key));
                place.map_or(Route::Default, Route::Key)
            }
        }
    }
}

/// The body of the response to a handshake about which the backend was not asked, or not in time.
pub(super) const NOT_ASKED: &[u8] = br#"{"message":"Internal server error"}"#;

/// The error of a failed request in the words of AWS.
pub(super) fn error_message(how: &Result<Reply, NoResponse>) -> &'static str {
    match how {
        Ok(Reply { status: 401 | 403, .. }) => "Forbidden",
        Ok(Reply { status: 429, .. })
        | Err(NoResponse::Busy | NoResponse::Failed(Failure::Unsent)) => "Limit Exceeded",
        Err(NoResponse::Failed(Failure::TimedOut)) => "Endpoint request timed out",
        Ok(_) | Err(NoResponse::Failed(_) | NoResponse::Unsendable) => "Internal server error",
    }
}

/// The message to a client whose request failed, or the body of the response to its handshake.
pub(super) fn error_frame(message: &str, connection_id: &str, request: RequestId) -> Vec<u8> {
    let frame = Frame { message, connection_id, request_id: &request.text() };
    // Strings always serialize.
    serde_json::to_vec(&frame).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Frame<'a> {
    message: &'a str,
    connection_id: &'a str,
    request_id: &'a str,
}

pub(super) struct RequestBuilder<'a> {
    pub(super) plan: &'a Plan,
    pub(super) now: Now,
    pub(super) connection: ConnectionId,
    pub(super) session: &'a Session,
    pub(super) in_flight: &'a InFlight,
}

impl RequestBuilder<'_> {
    pub(super) fn build(&self, event: &BackendEvent<'_>) -> Result<Call, Unsendable> {
        const AGENT: (&str, &str) = ("User-Agent", concat!("wspulse/", env!("CARGO_PKG_VERSION")));
        let backend =
            self.plan.backends().nth(self.in_flight.backend).unwrap_or(&self.plan.backend);
        let path = match event {
            BackendEvent::Message(..) => Cow::Borrowed(&*backend.path),
            BackendEvent::Connect(client) => client.target(backend.connect_path()).into(),
            BackendEvent::Disconnect(..) => backend.connect_path().into(),
        };
        let (kind, body) = self.body(event);
        let named = self.named(event);
        let mut fields = Vec::with_capacity(named.len() + 2);
        fields.extend(named.iter().map(|(name, value)| (*name, &**value)));
        if !body.is_empty() {
            fields.push(("Content-Type", kind));
        }
        if let BackendEvent::Connect(client) = event {
            fields.extend(client.passed());
        }
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(AGENT.0)) {
            fields.insert(0, AGENT);
        }
        let request = Request {
            method: "POST",
            target: &path,
            host: &backend.host,
            fields: &fields,
            body: &body,
        };
        let is_message = matches!(event, BackendEvent::Message(..));
        let wants_body = is_message && self.plan.reply;
        Ok(Call {
            bytes: Block::written(request.size(), |out| request.write(out))?,
            asked: if wants_body { request.asked() } else { Asked::Status },
            limits: Limits { head_bytes: HEAD_BYTES, body_bytes: MESSAGE_BYTES as u64 },
            class: if is_message { Class::Bulk } else { Class::Control },
            deadline_ns: self.now.mono_ns + time::ms(TIMEOUT_MS),
            answer_ms: Some(TIMEOUT_MS),
            held_ns: 0,
        })
    }

    /// The header fields that only the gateway sets.
    fn named(&self, event: &BackendEvent<'_>) -> Vec<(&'static str, Cow<'_, str>)> {
        let is_message = matches!(event, BackendEvent::Message(..));
        if is_message && self.plan.format != Format::Proxy {
            return Vec::new();
        }
        let id = (connect::CONNECTION_ID, Cow::Owned(self.session.public_id(self.connection)));
        if is_message {
            return vec![id];
        }
        let mut named = vec![
            id,
            (connect::EVENT_TYPE, Cow::Borrowed(event.event_type())),
            (connect::ROUTE_KEY, Cow::Borrowed(self.in_flight.route.label(self.plan))),
            (connect::STAGE, Cow::Borrowed(&*self.plan.stage)),
            (connect::DOMAIN_NAME, Cow::Borrowed(&*self.session.domain)),
            (connect::SOURCE_IP, Cow::Borrowed(&*self.session.source_ip)),
        ];
        if let BackendEvent::Disconnect(code, reason) = event {
            named.push((connect::DISCONNECT_CODE, Cow::Owned(code.to_string())));
            if let Some(reason) = visible_ascii(reason.as_bytes()).filter(|text| !text.is_empty()) {
                named.push((connect::DISCONNECT_REASON, Cow::Owned(reason.to_owned())));
            }
        }
        named
    }

    fn body<'e>(&self, event: &BackendEvent<'e>) -> (&'static str, Cow<'e, [u8]>) {
        const JSON: &str = "application/json";
        match (self.plan.format, event) {
            (Format::Event, _) => (JSON, self.event(event).into()),
            (Format::Proxy, BackendEvent::Connect(_) | BackendEvent::Disconnect(..)) => {
                (JSON, Cow::default())
            }
            (Format::Template, BackendEvent::Connect(_) | BackendEvent::Disconnect(..)) => {
                (JSON, serde_json::to_vec(&self.template_event(event)).unwrap_or_default().into())
            }
            (Format::Proxy, BackendEvent::Message(Kind::Binary, payload)) => {
                ("application/octet-stream", Cow::Borrowed(payload))
            }
            (Format::Proxy, BackendEvent::Message(Kind::Text, payload)) => {
                let json = serde_json::from_slice::<&RawValue>(payload).is_ok();
                (if json { JSON } else { "text/plain; charset=utf-8" }, Cow::Borrowed(payload))
            }
            (Format::Template, BackendEvent::Message(kind, payload)) => {
                let template = Template {
                    connection: self.session.public_id(self.connection),
                    body: text(*kind, payload),
                    domain: &self.session.domain,
                    stage: &self.plan.stage,
                    is_base64_encoded: *kind == Kind::Binary,
                };
                (JSON, serde_json::to_vec(&template).unwrap_or_default().into())
            }
        }
    }

    fn template_event<'a>(&'a self, event: &BackendEvent<'a>) -> TemplateEvent<'a> {
        let (code, reason) = match event {
            BackendEvent::Disconnect(code, reason) => (Some(*code), Some(*reason)),
            BackendEvent::Connect(_) | BackendEvent::Message(..) => (None, None),
        };
        TemplateEvent {
            connection: self.session.public_id(self.connection),
            event_type: event.event_type(),
            route_key: self.in_flight.route.label(self.plan),
            domain: &self.session.domain,
            stage: &self.plan.stage,
            source_ip: &self.session.source_ip,
            disconnect_status_code: code,
            disconnect_reason: reason,
        }
    }

    /// The event in the format of AWS.
    fn event(&self, event: &BackendEvent<'_>) -> Vec<u8> {
        let request = &*self.in_flight.request.text();
        let (client, message) = match event {
            BackendEvent::Connect(client) => (Some(*client), None),
            BackendEvent::Message(kind, payload) => (None, Some((*kind, *payload))),
            BackendEvent::Disconnect(..) => (None, None),
        };
        let queried = client.filter(|client| !client.query.is_empty());
        let (code, reason) = match event {
            BackendEvent::Disconnect(code, reason) => (Some(*code), Some(*reason)),
            BackendEvent::Connect(_) | BackendEvent::Message(..) => (None, None),
        };
        let body = message.map(|(kind, payload)| text(kind, payload));
        let event = Event {
            headers: client.map(|client| Pairs(last_of_each(&client.fields))),
            multi_value_headers: client.map(|client| Lists(&client.fields)),
            query_string_parameters: queried.map(|client| Pairs(last_of_each(&client.query))),
            multi_value_query_string_parameters: queried.map(|client| Lists(&client.query)),
            request_context: Context {
                route_key: self.in_flight.route.label(self.plan),
                message_id: message.map(|_| request),
                disconnect_status_code: code,
                disconnect_reason: reason,
                event_type: event.event_type(),
                extended_request_id: request,
                request_time: time::log_date(self.now.wall_ms),
                message_direction: "IN",
                stage: &self.plan.stage,
                connected_at: self.session.connected_at_ms,
                request_time_epoch: self.now.wall_ms,
                identity: Identity {
                    user_agent: &self.session.user_agent,
                    source_ip: &self.session.source_ip,
                },
                request_id: request,
                domain_name: &self.session.domain,
                connection_id: self.session.public_id(self.connection),
                api_id: "wspulse",
            },
            body,
            is_base64_encoded: message.is_some_and(|(kind, _)| kind == Kind::Binary),
        };
        serde_json::to_vec(&event).unwrap_or_default()
    }
}

/// A message as a JSON string; binary as base64.
fn text(kind: Kind, payload: &[u8]) -> String {
    match kind {
        Kind::Text => String::from_utf8_lossy(payload).into_owned(),
        Kind::Binary => STANDARD.encode(payload),
    }
}

#[derive(Serialize)]
struct Template<'a> {
    #[serde(rename = "myConnectionIdProperty")]
    connection: String,
    #[serde(rename = "myBody")]
    body: String,
    domain: &'a str,
    stage: &'a str,
    #[serde(rename = "isBase64Encoded", skip_serializing_if = "is_false")]
    is_base64_encoded: bool,
}

/// `$connect` or `$disconnect`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TemplateEvent<'a> {
    #[serde(rename = "myConnectionIdProperty")]
    connection: String,
    event_type: &'a str,
    route_key: &'a str,
    domain: &'a str,
    stage: &'a str,
    source_ip: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<&'a str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "signature required by serde")]
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Pairs<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_headers: Option<Lists<'a, &'a str, Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_string_parameters: Option<Pairs<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_query_string_parameters: Option<Lists<'a, String, String>>,
    request_context: Context<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context<'a> {
    route_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<&'a str>,
    event_type: &'a str,
    extended_request_id: &'a str,
    request_time: String,
    message_direction: &'a str,
    stage: &'a str,
    connected_at: i64,
    request_time_epoch: i64,
    identity: Identity<'a>,
    request_id: &'a str,
    domain_name: &'a str,
    connection_id: String,
    api_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    user_agent: &'a str,
    source_ip: &'a str,
}

/// A JSON object with one value per name.
struct Pairs<'a>(Vec<(&'a str, &'a str)>);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// A JSON object with an array of values per name.
struct Lists<'a, A, B>(&'a [(A, B)]);

impl<A: AsRef<str>, B: AsRef<str>> Serialize for Lists<'_, A, B> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let lists = last_of_each(self.0).into_iter().map(|(name, _)| {
            let same = self.0.iter().filter(|(other, _)| other.as_ref() == name);
            (name, same.map(|(_, value)| value.as_ref()).collect::<Vec<&str>>())
        });
        serializer.collect_map(lists)
    }
}

/// The last pair of each name.
fn last_of_each<A: AsRef<str>, B: AsRef<str>>(pairs: &[(A, B)]) -> Vec<(&str, &str)> {
    let mut last: Vec<(&str, &str)> = Vec::new();
    for (name, value) in pairs {
        let (name, value) = (name.as_ref(), value.as_ref());
        match last.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => last.push((name, value)),
        }
    }
    last
}

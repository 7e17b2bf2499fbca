//! What a backend learns about a connection besides a body: header fields that only the gateway
//! sets, and for `$connect` the client's query and end-to-end header fields.

use std::borrow::Cow;

use crate::engine::Peer;
use crate::proto::http::{Request, list_items, percent_decoded, visible_ascii};

/// Header fields of requests to backends. A client's own fields of these names are dropped. They
/// have no hyphen, which CGI-like servers could not distinguish from an underscore.
pub(super) const CONNECTION_ID: &str = "ConnectionId";
pub(super) const EVENT_TYPE: &str = "EventType";
pub(super) const ROUTE_KEY: &str = "RouteKey";
pub(super) const STAGE: &str = "Stage";
pub(super) const DOMAIN_NAME: &str = "DomainName";
pub(super) const SOURCE_IP: &str = "SourceIp";
pub(super) const DISCONNECT_CODE: &str = "DisconnectStatusCode";
pub(super) const DISCONNECT_REASON: &str = "DisconnectReason";

const OWN: [&str; 8] = [
    CONNECTION_ID,
    EVENT_TYPE,
    ROUTE_KEY,
    STAGE,
    DOMAIN_NAME,
    SOURCE_IP,
    DISCONNECT_CODE,
    DISCONNECT_REASON,
];

/// Fields of one hop (RFC 9110 §7.6.1), and of the handshake between client and gateway. Those that
/// begin with `Content-` describe a body that the client did not send.
const OF_THE_HOP: [&str; 14] = [
    "connection",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-version",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const FORWARDED_FOR: &str = "X-Forwarded-For";
/// Query parameters in an event.
const QUERY_PAIRS: usize = 64;

/// An upgrade request of a client.
#[derive(Clone, Debug)]
pub struct ConnectRequest<'a> {
    /// The client's address.
    pub source_ip: String,
    /// `User-Agent`; empty if missing or not ASCII.
    pub user_agent: &'a str,
    /// Value of `Host`.
    pub host: &'a str,
    /// The header fields with ASCII values.
    pub fields: Vec<(&'a str, Cow<'a, str>)>,
    /// The query as received.
    pub raw_query: &'a str,
    /// The decoded query.
    pub query: Vec<(String, String)>,
}

impl<'a> ConnectRequest<'a> {
    /// Reads an upgrade request of a client; `via` is the other end of its connection.
    pub(super) fn new(request: &Request<'_, 'a>, client: Peer, via: Peer) -> Self {
        let address = |peer| match peer {
            Peer::Tcp { ip, .. } => Some(ip.to_string()),
            Peer::Unix => None,
        };
        let pairs = request.query.split('&').filter(|pair| !pair.is_empty()).take(QUERY_PAIRS);
        let query = pairs.filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decoded(name)?.into_owned(), percent_decoded(value)?.into_owned()))
        });
        Self {
            fields: fields(request, address(via).as_deref()),
            source_ip: address(client).unwrap_or_else(|| "unix".to_owned()),
            user_agent: request.value("user-agent").unwrap_or_default(),
            host: request.host,
            raw_query: request.query,
            query: query.collect(),
        }
    }

    /// The fields that are sent to the backend as such.
    pub(super) fn passed(&self) -> impl Iterator<Item = (&str, &str)> {
        let nominated: Vec<&[u8]> = self
            .fields
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("connection"))
            .flat_map(|(_, value)| list_items(value.as_bytes()))
            .collect();
        let is_of_the_hop = move |name: &str| {
            OF_THE_HOP.iter().any(|known| name.eq_ignore_ascii_case(known))
                || name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("content-"))
                // Otherwise a client could hide its address from the backend.
                || (name != FORWARDED_FOR
                    && nominated.iter().any(|item| item.eq_ignore_ascii_case(name.as_bytes())))
        };
        let fields = self.fields.iter().map(|(name, value)| (*name, &**value));
        // A CGI-like server takes `X_Forwarded_For` for `X-Forwarded-For`.
        fields.filter(move |(name, _)| !is_of_the_hop(name) && !name.contains('_'))
    }

    /// The request target: the configured one with the client's query behind its own. Parameters
    /// with a configured name are dropped, since servers disagree on which of two counts.
    pub(super) fn target(&self, mut configured: String) -> String {
        let own = configured.split_once('?').map_or("", |(_, query)| query).to_owned();
        let own: Vec<_> = own.split('&').map(parameter_name).collect();
        let is_own = |pair: &str| {
            pair.split(';').any(|part| !part.is_empty() && own.contains(&parameter_name(part)))
        };
        for pair in self.raw_query.split('&').filter(|pair| !pair.is_empty() && !is_own(pair)) {
            configured.push(if configured.contains('?') { '&' } else { '?' });
            configured.push_str(pair);
        }
        configured
    }
}

/// The ASCII fields of a request without those that only the gateway sets. The peer's address is
/// added to `X-Forwarded-For`, as proxies do.
fn fields<'a>(request: &Request<'_, 'a>, address: Option<&str>) -> Vec<(&'a str, Cow<'a, str>)> {
    let is_own = |name: &str| OWN.iter().any(|own| name.eq_ignore_ascii_case(own));
    let visible = request.fields().filter_map(|(name, value)| Some((name, visible_ascii(value)?)));
    let (forwarded, others): (Vec<_>, Vec<_>) = visible
        .filter(|(name, _)| !is_own(name))
        .partition(|(name, _)| name.eq_ignore_ascii_case(FORWARDED_FOR));
    let mut fields: Vec<_> =
        others.into_iter().map(|(name, value)| (name, Cow::Borrowed(value))).collect();
    let addresses: Vec<&str> = forwarded.iter().map(|(_, value)| *value).chain(address).collect();
    if !addresses.is_empty() {
        fields.push((FORWARDED_FOR, Cow::Owned(addresses.join(", "))));
    }
    fields
}

/// The decoded name of `name=value`.
fn parameter_name(pair: &str) -> Cow<'_, str> {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    percent_decoded(name).unwrap_or(Cow::Borrowed(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::{self, Fields};

    fn passed(head: &str) -> (Vec<String>, String) {
        let head = format!("{head}\r\n\r\n").replace(" | ", "\r\n");
        let mut fields = Fields::default();
        let request = http::parse(head.as_bytes(), &mut fields).unwrap();
        let peer = Peer::new("192.0.2.1:9".parse().unwrap());
        let client = ConnectRequest::new(&request, peer, peer);
        let fields = client.passed().map(|(name, value)| format!("{name}: {value}"));
        (fields.collect(), client.target("/connect?k=v".to_owned()))
    }

    #[test]
    fn a_client_cannot_forge_fields_and_parameters() {
        let (fields, target) = passed(
            "GET /?k=w&%6b=w&a=1&b=2;k=w&&c HTTP/1.1 | Host: h | connectionid: victim \
             | SOURCEIP: 10.0.0.1 | EventType: DISCONNECT | RouteKey: x | Stage: x \
             | DomainName: x | DisconnectStatusCode: 1 | DisconnectReason: x \
             | X_Forwarded_For: 10.0.0.1 | X-Forwarded-For: 10.0.0.2 | x-forwarded-for: 10.0.0.3 \
             | Connection: Upgrade, X-Forwarded-For, X-Hop | X-Hop: 1 | Upgrade: websocket \
             | Content-Type: text/html | Content-Length: 0 | TE: trailers | Expect: 100-continue \
             | Proxy-Authorization: Basic x | Sec-WebSocket-Key: x | Sec-WebSocket-Protocol: a, b \
             | Authorization: Bearer t | Cookie: s=1 | X-Latin: \u{e9} | traceparent: 00-1-2-01",
        );
        assert_eq!(
            fields,
            [
                "Sec-WebSocket-Protocol: a, b",
                "Authorization: Bearer t",
                "Cookie: s=1",
                "traceparent: 00-1-2-01",
                "X-Forwarded-For: 10.0.0.2, 10.0.0.3, 192.0.2.1",
            ]
        );
        assert_eq!(target, "/connect?k=v&a=1&c");
    }
}

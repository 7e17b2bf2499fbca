//! `/version` and `/whoami`: the identity of the server, and the request as received. The latter is
//! also the first message of a WebSocket with `probe=1`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::limits;
use crate::proto::http::Request;
use crate::proto::response::Response;
use crate::proto::secrets::{JWT, MASK, has_secret_word, masked_url};
use crate::server::route::json;
use crate::server::shared::View;

pub(crate) fn version(_: &Request<'_, '_>, _: View<'_>) -> Response<'static> {
    #[derive(Serialize)]
    struct Version {
        name: &'static str,
        version: &'static str,
    }
    json(&Version { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WhoAmI<'a> {
    pod: &'a str,
    namespace: Option<&'a str>,
    node: Option<&'a str>,
    zone: Option<&'a str>,
    version: &'static str,
    peer: String,
    method: &'a str,
    target: Cow<'a, str>,
    http_version: &'static str,
    headers: BTreeMap<&'a str, String>,
}

pub(crate) fn whoami(request: &Request<'_, '_>, cx: View<'_>) -> Response<'static> {
    let identity = &cx.shared.config.identity;
    json(&WhoAmI {
        pod: &identity.pod,
        namespace: identity.namespace.as_deref(),
        node: identity.node.as_deref(),
        zone: identity.zone.as_deref(),
        version: env!("CARGO_PKG_VERSION"),
        peer: cx.peer.to_string(),
        method: request.method_text,
        target: masked_url(request.target),
        http_version: http_version(request),
        headers: headers(request),
    })
}

/// The first message of a WebSocket with `probe=1`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProbeHead<'a> {
    probe: u8,
    pod: &'a str,
    version: &'static str,
    peer: String,
    target: Cow<'a, str>,
    http_version: &'static str,
    /// What the 101 says about extensions; empty: nothing.
    extensions: &'a str,
    headers: BTreeMap<&'a str, String>,
}

/// The longest target and value in the first message of a probe whose request head is long and
/// grows in JSON, such as one of quotation marks.
const CUT_TARGET_BYTES: usize = 1024;
const CUT_VALUE_BYTES: usize = 32;

/// The request head of a WebSocket with `probe=1`, as JSON.
pub(crate) fn probe_head(request: &Request<'_, '_>, cx: View<'_>, extensions: &str) -> String {
    let mut head = ProbeHead {
        probe: 1,
        pod: &cx.shared.config.identity.pod,
        version: env!("CARGO_PKG_VERSION"),
        peer: cx.peer.to_string(),
        target: masked_url(request.target),
        http_version: http_version(request),
        extensions,
        headers: headers(request),
    };
    let text = |head: &ProbeHead<'_>| {
        // Strings cannot fail to serialize.
        serde_json::to_string(head).unwrap_or_default()
    };
    let whole = text(&head);
    if whole.len() <= limits::PROBE_HEAD_BYTES {
        return whole;
    }
    cut(head.target.to_mut(), CUT_TARGET_BYTES);
    head.headers.values_mut().for_each(|value| cut(value, CUT_VALUE_BYTES));
    text(&head)
}

fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
}

fn http_version(request: &Request<'_, '_>) -> &'static str {
    if request.minor == 1 { "1.1" } else { "1.0" }
}

/// The fields by name, with secrets masked.
fn headers<'r>(request: &Request<'r, '_>) -> BTreeMap<&'r str, String> {
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in request.fields() {
        let value = shown(name, value);
        headers
            .entry(name)
            .and_modify(|all| *all = format!("{all}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    headers
}

/// The subprotocol prefix with which the Kubernetes API takes tokens.
const KUBERNETES_BEARER: &str = "base64url.bearer.authorization.k8s.io.";
/// Longer subprotocols are treated as tokens: the longest registered one has 36 bytes.
const PROTOCOL_BYTES: usize = 40;

/// The value of a field, with secrets masked.
fn shown<'v>(name: &str, value: &'v [u8]) -> Cow<'v, str> {
    let name = name.to_ascii_lowercase();
    let value = String::from_utf8_lossy(value);
    if is_secret(&name) || is_credential(&value) {
        return Cow::Borrowed(MASK);
    }
    if name == "sec-websocket-protocol" {
        return Cow::Owned(masked_protocols(&value));
    }
    match masked_url(&value) {
        Cow::Borrowed(_) => value,
        Cow::Owned(masked) => Cow::Owned(masked),
    }
}

/// Whether the whole field is secret. `name` is in lower case.
fn is_secret(name: &str) -> bool {
    has_secret_word(name)
        || name.starts_with("x-amzn-oidc-")
        || name.contains("client-cert")
        || name.ends_with("auth")
        || (name.ends_with("-key") && name != "sec-websocket-key")
}

/// Whether it is a credential under any name, such as one that a hop adds for the server.
fn is_credential(value: &str) -> bool {
    let has_scheme = |scheme: &str| {
        let start = value.get(..scheme.len()).unwrap_or_default();
        start.eq_ignore_ascii_case(scheme) && value.len() > scheme.len()
    };
    value.starts_with(JWT) || has_scheme("Bearer ") || has_scheme("Basic ")
}

/// A page cannot set `Authorization` on a WebSocket, so tokens are sent as subprotocols: as part of
/// one, or as the one after `bearer` or the like.
fn masked_protocols(list: &str) -> String {
    let names_one = |item: &str| {
        let item = item.to_ascii_lowercase();
        has_secret_word(&item) || item.contains("bearer") || item == "auth"
    };
    let mut after_name = false;
    let mut masked = Vec::new();
    for item in list.split(',').map(str::trim) {
        let is_name = names_one(item);
        masked.push(if item.starts_with(KUBERNETES_BEARER) {
            format!("{KUBERNETES_BEARER}{MASK}")
        } else if after_name || item.len() > PROTOCOL_BYTES || item.starts_with(JWT) {
            MASK.to_owned()
        } else if is_name {
            match item.split_once(['.', '-', '|', '!', '+', '~']) {
                Some((name, _)) => format!("{name}{}{MASK}", &item[name.len()..=name.len()]),
                None => item.to_owned(),
            }
        } else {
            item.to_owned()
        });
        after_name = is_name && !item.starts_with(KUBERNETES_BEARER);
    }
    masked.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked() {
        for name in [
            "Cookie",
            "Authorization",
            "X-Auth-Token",
            "X-API-Key",
            "X-Amzn-Oidc-Data",
            "X-Amzn-Oidc-Identity",
            "X-Amzn-Oidc-Accesstoken",
            "Ocp-Apim-Subscription-Key",
            "X-Auth",
            "X-Forwarded-Client-Cert",
            "Ssl-Client-Cert",
        ] {
            assert_eq!(shown(name, b"abc"), MASK, "{name}");
        }
        for name in ["Host", "Sec-WebSocket-Key", "User-Agent", "Sec-WebSocket-Version"] {
            assert_eq!(shown(name, b"abc"), "abc", "{name}");
        }
        // Hops have fields of their own for what they pass on.
        for value in ["Bearer abc", "bearer abc", "Basic YTpi", "eyJhbGciOi.e30.x"] {
            assert_eq!(shown("X-Upstream", value.as_bytes()), MASK, "{value}");
        }
        assert_eq!(shown("X-Upstream", b"bearer"), "bearer");
    }

    #[test]
    fn tokens_in_subprotocols_are_masked() {
        for (list, want) in [
            ("chat, v5.channel.k8s.io", "chat, v5.channel.k8s.io"),
            (
                "base64url.bearer.authorization.k8s.io.c2VjcmV0,base64.binary.k8s.io",
                "base64url.bearer.authorization.k8s.io.***, base64.binary.k8s.io",
            ),
            ("Bearer, abc.def, chat", "Bearer, ***, chat"),
            ("access_token, abc", "access_token, ***"),
            ("bearer.c2VjcmV0", "bearer.***"),
            ("chat, eyJhbGciOi.e30.x", "chat, ***"),
            ("0123456789012345678901234567890123456789x", "***"),
            ("protobuf.reliable.webpubsub.azure.v1", "protobuf.reliable.webpubsub.azure.v1"),
        ] {
            assert_eq!(shown("Sec-WebSocket-Protocol", list.as_bytes()), want);
        }
    }

    #[test]
    fn secrets_in_urls_are_masked() {
        for (text, want) in [
            ("/whoami", "/whoami"),
            ("/whoami?a=1&b", "/whoami?a=1&b"),
            ("/whoami?token=x&a=1&Access_Token=y", "/whoami?token=***&a=1&Access_Token=***"),
            ("/whoami?access%5Ftoken=x", "/whoami?access%5Ftoken=***"),
            ("/?id_token=a;code=b#password=c", "/?id_token=***;code=***#password=***"),
            ("/?secret=&key=k&apiKey=k&sig=s", "/?secret=***&key=***&apiKey=***&sig=***"),
            ("/?X-Amz-Signature=a&X-Amz-Date=b", "/?X-Amz-Signature=***&X-Amz-Date=b"),
            ("https://h/cb?code=a?b=c", "https://h/cb?code=***?b=c"),
            ("/?a=b=c&%zz=d", "/?a=b=c&%zz=***"),
            ("/?ticket=a&state=eyJhbGciOi.e30.x", "/?ticket=***&state=***"),
        ] {
            assert_eq!(masked_url(text), want);
            assert_eq!(shown("Referer", text.as_bytes()), want);
            assert_eq!(shown("X-Original-URL", text.as_bytes()), want);
        }
    }
}

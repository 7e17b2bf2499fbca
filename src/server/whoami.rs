//! Who serves, and what a request looked like when it came: `/version` and `/whoami`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use super::routes::{View, json};
use crate::proto::http::Request;
use crate::proto::response::Response;

pub(super) fn version(_: &Request<'_, '_>, _: View<'_>) -> Response<'static> {
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
    target: &'a str,
    http_version: &'static str,
    headers: BTreeMap<&'a str, String>,
}

pub(super) fn whoami(request: &Request<'_, '_>, cx: View<'_>) -> Response<'static> {
    let identity = &cx.shared.config.identity;
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in request.fields() {
        let value =
            if is_secret(name) { Cow::Borrowed("***") } else { String::from_utf8_lossy(value) };
        headers
            .entry(name)
            .and_modify(|all| *all = format!("{all}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    json(&WhoAmI {
        pod: &identity.pod,
        namespace: identity.namespace.as_deref(),
        node: identity.node.as_deref(),
        zone: identity.zone.as_deref(),
        version: env!("CARGO_PKG_VERSION"),
        peer: cx.peer.to_string(),
        method: request.method_text,
        target: request.target,
        http_version: if request.minor == 1 { "1.1" } else { "1.0" },
        headers,
    })
}

/// Fields whose values let their reader in somewhere.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let secret = [
        "cookie",
        "authorization",
        "token",
        "secret",
        "password",
        "credential",
        "api-key",
        "apikey",
        "jwt",
        "assertion",
    ];
    secret.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked() {
        for name in ["Cookie", "Authorization", "X-Auth-Token", "X-API-Key"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["Host", "Sec-WebSocket-Key", "User-Agent"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}

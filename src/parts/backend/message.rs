//! Parses requests of a gateway. The formats template, proxy and event are recognized by their
//! content.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Maximum length of a connection id.
const ID_BYTES_MAX: usize = 128;

/// A message from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The gateway's connection id.
    pub connection: String,
    /// The message text.
    pub text: String,
}

/// Why a request is invalid; sent as the response.
pub type InvalidMessage = &'static str;

const WANT: InvalidMessage = "the body must be {\"myConnectionIdProperty\":…,\"myBody\":…}, \
     an event with requestContext.connectionId, or anything beside the field ConnectionId";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RequestBody<'a> {
    #[serde(borrow)]
    my_connection_id_property: Option<Cow<'a, str>>,
    #[serde(borrow)]
    my_body: Option<Cow<'a, str>>,
    #[serde(borrow)]
    request_context: Option<Context<'a>>,
    #[serde(borrow)]
    body: Option<Cow<'a, str>>,
    is_base64_encoded: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context<'a> {
    #[serde(borrow)]
    connection_id: Cow<'a, str>,
    #[serde(borrow, default)]
    event_type: Option<Cow<'a, str>>,
}

const DISCONNECT: &str = "DISCONNECT";

/// The connection that ended, if that is what a request to `/connect` says: in its header fields
/// `ConnectionId` and `EventType`, or as an event in its body.
pub(super) fn ended(
    (named, event_type): (Option<&str>, Option<&str>),
    bytes: &[u8],
) -> Option<String> {
    let connection = if event_type == Some(DISCONNECT) {
        Cow::Borrowed(named?)
    } else {
        let request: RequestBody<'_> = serde_json::from_slice(bytes).ok()?;
        let Context { connection_id, event_type } = request.request_context?;
        let is_end = event_type.is_some_and(|kind| kind == DISCONNECT);
        // Only the gateway sets the header field.
        let is_named = named.is_none_or(|name| name == connection_id);
        (is_end && is_named).then_some(connection_id)?
    };
    is_id(&connection).then(|| connection.into_owned())
}

fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Parses a request; `named` is the header field `ConnectionId`. `None`: empty, without a message.
///
/// # Errors
/// What the request must look like.
pub(super) fn read(named: Option<&str>, bytes: &[u8]) -> Result<Option<Message>, InvalidMessage> {
    if bytes.is_empty() && named.is_none() {
        return Ok(None);
    }
    let request: Option<RequestBody<'_>> = serde_json::from_slice(bytes).ok();
    let parsed = request.and_then(parts);
    let message = match (named, parsed) {
        // A client controls the whole proxied body, so only the header field is trusted.
        (Some(name), Some((inner, text))) if inner == name => (inner, text?),
        (Some(name), _) => {
            let text = std::str::from_utf8(bytes).map_err(|_| "the message must be UTF-8 text")?;
            (Cow::Borrowed(name), Cow::Borrowed(text))
        }
        (None, Some((inner, text))) => (inner, text?),
        (None, None) => return Err(WANT),
    };
    let (connection, text) = message;
    if !is_id(&connection) {
        return Err("a connection's id must be 1 to 128 visible ASCII characters");
    }
    Ok(Some(Message { connection: connection.into_owned(), text: text.into_owned() }))
}

type Parts<'a> = (Cow<'a, str>, Result<Cow<'a, str>, InvalidMessage>);

fn parts(request: RequestBody<'_>) -> Option<Parts<'_>> {
    if let Some(connection) = request.my_connection_id_property {
        return Some((connection, request.my_body.ok_or(WANT)));
    }
    let Context { connection_id, .. } = request.request_context?;
    let text = request.body.unwrap_or_default();
    if !request.is_base64_encoded {
        return Some((connection_id, Ok(text)));
    }
    let bytes = STANDARD.decode(text.as_bytes()).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    Some((connection_id, text.map(Cow::Owned).ok_or("the message must be UTF-8 text")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(named: Option<&str>, body: &str) -> Option<(String, String)> {
        let message = read(named, body.as_bytes()).unwrap()?;
        Some((message.connection, message.text))
    }

    #[test]
    fn three_formats() {
        let is = |connection: &str, text: &str| Some((connection.to_owned(), text.to_owned()));
        let template = r#"{"myConnectionIdProperty":"a=","myBody":"it's \"x\"\n\\","domain":"h",
            "stage":"prod"}"#;
        assert_eq!(said(None, template), is("a=", "it's \"x\"\n\\"));
        assert_eq!(said(Some("a="), template), is("a=", "it's \"x\"\n\\"));
        let event = r#"{"requestContext":{"connectionId":"b","stage":"s"},"body":"hi",
            "isBase64Encoded":false}"#;
        assert_eq!(said(None, event), is("b", "hi"));
        let event =
            r#"{"requestContext":{"connectionId":"b"},"body":"aGk=","isBase64Encoded":true}"#;
        assert_eq!(said(None, event), is("b", "hi"));
        assert_eq!(said(Some("c"), "hi"), is("c", "hi"));
        assert_eq!(said(Some("c"), ""), is("c", ""));
        assert_eq!(said(None, ""), None);
    }

    #[test]
    fn a_client_cannot_impersonate_another() {
        let body = r#"{"myConnectionIdProperty":"victim","myBody":"x"}"#;
        let message = said(Some("mine"), body).unwrap();
        assert_eq!(message, ("mine".to_owned(), body.to_owned()));
    }

    #[test]
    fn invalid_requests() {
        let long = "x".repeat(129);
        for (named, body) in [
            (None, "hi"),
            (None, "{}"),
            (None, r#"{"myConnectionIdProperty":"a"}"#),
            (None, r#"{"myConnectionIdProperty":"","myBody":"x"}"#),
            (None, r#"{"myConnectionIdProperty":"a\n","myBody":"x"}"#),
            (None, r#"{"requestContext":{"connectionId":"b"},"body":"!","isBase64Encoded":true}"#),
            (Some(&*long), "hi"),
        ] {
            assert!(read(named, body.as_bytes()).is_err(), "{body}");
        }
        assert!(read(Some("a"), b"\xff").is_err());
    }

    #[test]
    fn only_an_end_is_an_end() {
        let event = |kind: &str| {
            format!(r#"{{"requestContext":{{"connectionId":"b","eventType":"{kind}"}}}}"#)
        };
        let end = event("DISCONNECT");
        assert_eq!(ended((Some("a"), Some("DISCONNECT")), b"").as_deref(), Some("a"));
        assert_eq!(ended((None, None), end.as_bytes()).as_deref(), Some("b"));
        assert_eq!(ended((Some("b"), None), end.as_bytes()).as_deref(), Some("b"));
        for (fields, body) in [
            ((Some("a"), Some("CONNECT")), ""),
            ((Some("a"), None), ""),
            ((None, Some("DISCONNECT")), ""),
            ((Some(""), Some("DISCONNECT")), ""),
            ((Some("a b"), Some("DISCONNECT")), ""),
            ((Some("a"), None), &*end),
            ((None, None), &*event("CONNECT")),
            ((None, None), r#"{"requestContext":{"connectionId":"b"}}"#),
            ((None, None), r#"{"eventType":"DISCONNECT","connectionId":"b"}"#),
        ] {
            assert_eq!(ended(fields, body.as_bytes()), None, "{fields:?} {body}");
        }
    }

    #[test]
    fn random_changes_cause_no_panic() {
        let mut rng = crate::rng::Rng::new(7);
        let valid = r#"{"requestContext":{"connectionId":"b"},"body":"aGk=","isBase64Encoded":true,
            "myConnectionIdProperty":"a\u00e9","myBody":"x"}"#;
        for _ in 0..20_000 {
            let mut body = valid.as_bytes().to_vec();
            for _ in 0..=rng.below(4) {
                let at = rng.below(body.len() as u64) as usize;
                body[at] = b"\0\"\\{}[]:,u0\xc3\xff"[rng.below(13) as usize];
            }
            let named = (rng.below(2) == 0).then_some("a");
            if let Ok(Some(message)) = read(named, &body) {
                assert!(named.is_none_or(|name| name == message.connection), "{message:?}");
            }
        }
        let deep = "[".repeat(100_000);
        assert!(read(None, deep.as_bytes()).is_err());
    }
}

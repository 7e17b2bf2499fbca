//! The callback API of API Gateway: what a 410 says about the connection. The gateway and its
//! clients use the same text.

/// The message of a 410 that does not say that the connection has ended: the id may belong to
/// another gateway, or to a replica that cannot be reached.
pub const UNKNOWN_CONNECTION: &str = "Unknown connection";

/// Whether a 410 with this body says that the connection has ended. AWS sends no message.
#[must_use]
pub fn is_gone(body: &[u8]) -> bool {
    let body = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    body.get("message").and_then(|message| message.as_str()) != Some(UNKNOWN_CONNECTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_message_means_unknown() {
        let unknown = format!(r#"{{"message":"{UNKNOWN_CONNECTION}","more":1}}"#);
        assert!(!is_gone(unknown.as_bytes()));
        for body in ["", "{}", "null", "[]", "Unknown connection", r#"{"message":null}"#] {
            assert!(is_gone(body.as_bytes()), "{body}");
        }
        assert!(is_gone(br#"{"message":"Gone"}"#) && is_gone(b"\xff"));
    }
}

//! What is not repeated in answers and reports: recognizes secrets by the names of their fields and
//! parameters.

use std::borrow::Cow;

use super::http::percent_decoded;

/// The beginning of a JSON object in base64, as in a JSON web token.
pub(crate) const JWT: &str = "eyJ";
/// What is shown instead of a secret.
pub(crate) const MASK: &str = "***";

/// A field or parameter whose name contains one of these is secret.
const SECRETS: [&str; 14] = [
    "cookie",
    "authorization",
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "api-key",
    "api_key",
    "apikey",
    "jwt",
    "assertion",
    "signature",
    "session",
];

/// Whether this is the name of a field or parameter with a secret. It is in lower case.
pub(crate) fn has_secret_word(name: &str) -> bool {
    SECRETS.iter().any(|word| name.contains(word))
}

/// Masks secrets in the query of a URL or request target; names are kept.
pub(crate) fn masked_url(text: &str) -> Cow<'_, str> {
    let Some(at) = text.find(['?', '#']) else { return Cow::Borrowed(text) };
    let mut masked = text[..at].to_owned();
    for part in text[at..].split_inclusive(['?', '#', '&', ';']) {
        let separator = part.len() - usize::from(part.ends_with(['?', '#', '&', ';']));
        match part[..separator].split_once('=') {
            Some((name, value)) if is_secret_parameter(name) || value.starts_with(JWT) => {
                masked.extend([name, "=", MASK, &part[separator..]]);
            }
            Some(_) | None => masked.push_str(part),
        }
    }
    Cow::Owned(masked)
}

fn is_secret_parameter(name: &str) -> bool {
    let Some(name) = percent_decoded(name) else { return true };
    let name = name.to_ascii_lowercase();
    has_secret_word(&name)
        || name.ends_with("key")
        || matches!(
            &*name,
            "code" | "ticket" | "sig" | "sign" | "pass" | "pwd" | "pw" | "auth" | "sid"
        )
}

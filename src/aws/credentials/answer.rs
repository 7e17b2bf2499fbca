//! What those who give credentials answer: JSON from a container's endpoint, XML from the Security
//! Token Service. What is wrong is told without a word of what came.

use core::fmt;
use std::borrow::Cow;

use serde::Deserialize;

use crate::aws::secret::{Credentials, Secret};
use crate::time;

/// A token that is longer is none.
const TOKEN_BYTES: usize = 16 * 1024;
/// A secret that is longer is none.
const SECRET_BYTES: usize = 16 * 1024;

/// Credentials that are good until then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) credentials: Credentials,
    pub(super) expires_ms: i64,
}

/// Why there are no new credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The token's file cannot be read, or is half written.
    NoToken,
    /// Whoever gives them said no, with this status and perhaps a word for why.
    Refused(u16, String),
    /// The answer has no credentials.
    Malformed,
    /// They are out of date already.
    Expired,
    /// Nobody answered.
    Unanswered,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("the token's file has no token"),
            Self::Refused(status, code) if code.is_empty() => write!(f, "answered {status}"),
            Self::Refused(status, code) => write!(f, "answered {status} {code}"),
            Self::Malformed => f.write_str("the answer has no credentials"),
            Self::Expired => f.write_str("the credentials have expired: is the clock right?"),
            Self::Unanswered => f.write_str("no answer"),
        }
    }
}

/// A token as a file has it; `None`: half written, or no token.
pub(super) fn token(bytes: &[u8]) -> Option<Secret> {
    let token = std::str::from_utf8(bytes).ok()?.trim();
    let sound = !token.is_empty()
        && token.len() <= TOKEN_BYTES
        && token.bytes().all(|b| b.is_ascii_graphic());
    sound.then(|| Secret::new(token))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container<'a> {
    // Owned where there is an escape: `\/` is how some write the slashes of a token.
    #[serde(borrow)]
    access_key_id: Cow<'a, str>,
    #[serde(borrow)]
    secret_access_key: Cow<'a, str>,
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(borrow)]
    expiration: Cow<'a, str>,
}

/// The answer of a container's endpoint.
pub(super) fn json(status: u16, body: &[u8]) -> Result<Given, Trouble> {
    if status != 200 {
        return Err(Trouble::Refused(status, String::new()));
    }
    let Container { access_key_id, secret_access_key, token, expiration } =
        serde_json::from_slice(body).map_err(|_| Trouble::Malformed)?;
    given(&access_key_id, &secret_access_key, &token, &expiration)
}

/// The answer of the Security Token Service; all of its texts stand in elements of their own name.
pub(super) fn xml(status: u16, body: &[u8]) -> Result<Given, Trouble> {
    let text = std::str::from_utf8(body).map_err(|_| Trouble::Malformed)?;
    if status != 200 {
        let code = element(text, "Code").unwrap_or_default();
        let code = code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        return Err(Trouble::Refused(status, code));
    }
    let text = element(text, "Credentials").ok_or(Trouble::Malformed)?;
    let part = |name: &str| element(text, name).map(str::trim).ok_or(Trouble::Malformed);
    given(
        part("AccessKeyId")?,
        part("SecretAccessKey")?,
        part("SessionToken")?,
        part("Expiration")?,
    )
}

fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner)
}

fn given(id: &str, key: &str, token: &str, expiration: &str) -> Result<Given, Trouble> {
    // In a field of a request they must not be read as anything else; nor is `&` one of theirs.
    let sound = |text: &&str| {
        !text.is_empty()
            && text.len() <= SECRET_BYTES
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'&')
    };
    let expires_ms = time::from_rfc3339(expiration).ok_or(Trouble::Malformed)?;
    if ![id, key, token].iter().all(sound) {
        return Err(Trouble::Malformed);
    }
    let credentials = Credentials {
        access_key: id.to_owned(),
        secret_key: Secret::new(key),
        session_token: Some(Secret::new(token)),
    };
    Ok(Given { credentials, expires_ms })
}

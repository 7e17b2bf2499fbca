//! Parses responses of credential providers: JSON from container endpoints, XML from the Security
//! Token Service. Errors never quote the response, which may contain secrets.

use core::fmt;
use std::borrow::Cow;

use serde::Deserialize;

use crate::aws::secret::{Credentials, Secret};
use crate::time;

const TOKEN_BYTES_MAX: usize = 16 * 1024;
const SECRET_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Temporary {
    pub(super) credentials: Credentials,
    pub(super) expires_ms: i64,
}

/// Why credentials could not be obtained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialsError {
    /// The token file cannot be read or has no valid token.
    NoToken,
    /// The provider returned this status, with an error code if it sent one.
    Refused(u16, String),
    /// The response cannot be parsed.
    Malformed,
    /// The credentials in the response have already expired.
    Expired,
    /// The provider did not respond.
    Unanswered,
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("the token file has no valid token"),
            Self::Refused(status, code) if code.is_empty() => write!(f, "status {status}"),
            Self::Refused(status, code) => write!(f, "status {status} {code}"),
            Self::Malformed => f.write_str("the response has no credentials"),
            Self::Expired => f.write_str("the credentials have expired: is the clock right?"),
            Self::Unanswered => f.write_str("no response"),
        }
    }
}

/// Parses a token file; `None` if it is empty, too long or has invalid characters.
pub(super) fn token(bytes: &[u8]) -> Option<Secret> {
    let token = std::str::from_utf8(bytes).ok()?.trim();
    let valid = !token.is_empty()
        && token.len() <= TOKEN_BYTES_MAX
        && token.bytes().all(|b| b.is_ascii_graphic());
    valid.then(|| Secret::new(token))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container<'a> {
    // `Cow`, since some providers escape the slashes of a token as `\/`.
    #[serde(borrow)]
    access_key_id: Cow<'a, str>,
    #[serde(borrow)]
    secret_access_key: Cow<'a, str>,
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(borrow)]
    expiration: Cow<'a, str>,
}

pub(super) fn json(status: u16, body: &[u8]) -> Result<Temporary, CredentialsError> {
    if status != 200 {
        return Err(CredentialsError::Refused(status, String::new()));
    }
    let Container { access_key_id, secret_access_key, token, expiration } =
        serde_json::from_slice(body).map_err(|_| CredentialsError::Malformed)?;
    parse(&access_key_id, &secret_access_key, &token, &expiration)
}

/// Parses the response of the Security Token Service. Element names are unique enough that no XML
/// parser is needed.
pub(super) fn xml(status: u16, body: &[u8]) -> Result<Temporary, CredentialsError> {
    let text = std::str::from_utf8(body).map_err(|_| CredentialsError::Malformed)?;
    if status != 200 {
        let code = element(text, "Code").unwrap_or_default();
        let code = code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        return Err(CredentialsError::Refused(status, code));
    }
    let text = element(text, "Credentials").ok_or(CredentialsError::Malformed)?;
    let part = |name: &str| element(text, name).map(str::trim).ok_or(CredentialsError::Malformed);
    parse(
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

fn parse(
    id: &str,
    key: &str,
    token: &str,
    expiration: &str,
) -> Result<Temporary, CredentialsError> {
    // The values go into header fields, so they must be printable; `&` is an XML escape.
    let valid = |text: &&str| {
        !text.is_empty()
            && text.len() <= SECRET_BYTES_MAX
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'&')
    };
    let expires_ms = time::from_rfc3339(expiration).ok_or(CredentialsError::Malformed)?;
    if ![id, key, token].iter().all(valid) {
        return Err(CredentialsError::Malformed);
    }
    let credentials = Credentials {
        access_key: id.to_owned(),
        secret_key: Secret::new(key),
        session_token: Some(Secret::new(token)),
    };
    Ok(Temporary { credentials, expires_ms })
}

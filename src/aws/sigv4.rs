//! AWS Signature Version 4 in the `Authorization` field: signing and verification. Paths are
//! percent-encoded once more than sent, as all services except S3 require.

mod canonical;

use super::hash::{hex, hmac, parse_hex, sha256, verify_hmac};
use super::keys::Keys;
use super::secret::{Credentials, Secret};
use crate::time;
use canonical::canonical;
pub(crate) use canonical::encode;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The largest accepted clock difference.
pub const SKEW_MS: i64 = 15 * 60 * 1000;
/// The most header fields that a signature may cover.
const SIGNED_MAX: usize = 64;

/// The parts of a request that are signed.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// For example `GET`.
    pub method: &'a str,
    /// Path and query as sent.
    pub target: &'a str,
    /// Header fields, including `Host`. [`sign`] covers all of them, [`verify`] those that
    /// `SignedHeaders` lists.
    pub fields: &'a [(&'a str, &'a [u8])],
    /// The whole body.
    pub body: &'a [u8],
}

/// Region and service that a signature is valid for.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// For example `eu-west-1`.
    pub region: &'a str,
    /// For example `execute-api`.
    pub service: &'a str,
}

/// The header fields to add to a signed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// `X-Amz-Date`.
    pub date: String,
    /// `X-Amz-Security-Token`, if the credentials have one.
    pub token: Option<Secret>,
    /// `Authorization`.
    pub authorization: String,
}

/// Why a request was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// No `Authorization` with this algorithm.
    Unsigned,
    /// `Authorization` or another field is invalid, or a required field is not signed.
    Malformed,
    /// Signed too long ago, or in the future.
    Skewed,
    /// Signed for another service or day.
    Scope,
    /// Unknown access key, or not the session token that belongs to it.
    UnknownKey,
    /// Wrong secret key, or the request was changed.
    Mismatch,
}

impl Denied {
    /// The message of the response, worded as AWS does.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Unsigned => "Missing Authentication Token",
            Self::Malformed => "Authorization must have Credential, SignedHeaders and Signature",
            Self::Skewed => "Signature expired or not yet current: the clocks differ too much",
            Self::Scope => "Credential should be scoped to another service",
            Self::UnknownKey => "The security token included in the request is invalid",
            Self::Mismatch => "The request signature we calculated does not match",
        }
    }

    /// The name for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Malformed => "malformed",
            Self::Skewed => "skewed",
            Self::Scope => "scope",
            Self::UnknownKey => "unknown_key",
            Self::Mismatch => "mismatch",
        }
    }
}

/// Signs a request, including all of its header fields.
#[must_use]
pub fn sign(
    parts: &Parts<'_>,
    scope: Scope<'_>,
    credentials: &Credentials,
    wall_ms: i64,
) -> Signed {
    let date = amz_date(wall_ms);
    let token = credentials.session_token.clone();
    let mut fields = parts.fields.to_vec();
    fields.push(("x-amz-date", date.as_bytes()));
    if let Some(token) = &token {
        fields.push(("x-amz-security-token", token.reveal().as_bytes()));
    }
    let mut names: Vec<String> = fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let request = canonical(&Parts { fields: &fields, ..*parts }, &names);
    let Scope { region, service } = scope;
    let day = &date[..8];
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let key = signing_key(&credentials.secret_key, [day, region, service]);
    let signature = hex(&hmac(&key, string_to_sign(&date, &scope, &request).as_bytes()));
    let authorization = format!(
        "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
        credentials.access_key,
        names.join(";")
    );
    Signed { date, token, authorization }
}

/// Verifies that a request was signed for this service, with one of these keys, at about this time.
///
/// # Errors
/// Why the request was rejected.
pub fn verify(parts: &Parts<'_>, service: &str, keys: &Keys, wall_ms: i64) -> Result<(), Denied> {
    let header = Header::read(parts)?;
    let then_ms = amz_date_ms(header.date).ok_or(Denied::Malformed)?;
    if wall_ms.abs_diff(then_ms) > SKEW_MS.unsigned_abs() {
        return Err(Denied::Skewed);
    }
    let [day, region, of_service] = header.scope;
    if of_service != service || day != &header.date[..8] {
        return Err(Denied::Scope);
    }
    let key = keys.find(header.access_key).ok_or(Denied::UnknownKey)?;
    let [known, given] = [key.session_token.as_ref().map(Secret::reveal), header.session_token];
    // Hashed, so that the time this takes does not tell how much of it is right.
    if known.map(|token| sha256(token.as_bytes())) != given.map(|token| sha256(token.as_bytes())) {
        return Err(Denied::UnknownKey);
    }
    let key = signing_key(&key.secret, header.scope);
    let scope = format!("{day}/{region}/{of_service}/aws4_request");
    let request = canonical(parts, &header.signed);
    let text = string_to_sign(header.date, &scope, &request);
    if verify_hmac(&key, text.as_bytes(), &header.signature) {
        Ok(())
    } else {
        Err(Denied::Mismatch)
    }
}

/// The parsed `Authorization` and `X-Amz-*` fields.
struct Header<'a> {
    access_key: &'a str,
    /// Day, region, service.
    scope: [&'a str; 3],
    signed: Vec<&'a str>,
    signature: [u8; 32],
    date: &'a str,
    session_token: Option<&'a str>,
}

impl<'a> Header<'a> {
    fn read(parts: &Parts<'a>) -> Result<Self, Denied> {
        let text = once(parts, "authorization")?.ok_or(Denied::Unsigned)?;
        let (algorithm, rest) = text.split_once(' ').unwrap_or((text, ""));
        if algorithm != ALGORITHM {
            return Err(Denied::Unsigned);
        }
        let mut header = [None; 3];
        for pair in rest.split(',') {
            let (name, value) = pair.trim().split_once('=').ok_or(Denied::Malformed)?;
            let known = ["Credential", "SignedHeaders", "Signature"];
            let at = known.iter().position(|known| *known == name).ok_or(Denied::Malformed)?;
            if header[at].replace(value).is_some() {
                return Err(Denied::Malformed);
            }
        }
        let [Some(credential), Some(signed), Some(signature)] = header else {
            return Err(Denied::Malformed);
        };
        let [access_key, day, region, service, "aws4_request"] =
            credential.split('/').collect::<Vec<_>>()[..]
        else {
            return Err(Denied::Malformed);
        };
        let signed: Vec<&str> = signed.split(';').collect();
        let rising = signed.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || signed.len() > SIGNED_MAX || signed.iter().any(|name| name.is_empty()) {
            return Err(Denied::Malformed);
        }
        let signature = parse_hex(signature).ok_or(Denied::Malformed)?;
        let date = once(parts, "x-amz-date")?.ok_or(Denied::Malformed)?;
        let session_token = once(parts, "x-amz-security-token")?;
        // `host` and all `x-amz-*` fields must be signed, or they could be replaced in transit.
        let mut names = parts.fields.iter().map(|(name, _)| name.to_ascii_lowercase());
        let covered = |name: &str| signed.contains(&name);
        let must = |name: &str| name == "host" || name.starts_with("x-amz-");
        if !covered("host") || !names.all(|name| !must(&name) || covered(&name)) {
            return Err(Denied::Malformed);
        }
        let scope = [day, region, service];
        Ok(Self { access_key, scope, signed, signature, date, session_token })
    }
}

/// The value of a field that may occur at most once.
fn once<'a>(parts: &Parts<'a>, name: &str) -> Result<Option<&'a str>, Denied> {
    let mut values = parts.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    let Some((_, value)) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Denied::Malformed);
    }
    std::str::from_utf8(value).map(|text| Some(text.trim())).map_err(|_| Denied::Malformed)
}

fn string_to_sign(date: &str, scope: &str, request: &[u8]) -> String {
    format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex(&sha256(request)))
}

fn signing_key(secret: &Secret, scope: [&str; 3]) -> [u8; 32] {
    let first = format!("AWS4{}", secret.reveal()).into_bytes();
    let [day, region, service] = scope;
    let key = [region, service, "aws4_request"];
    key.iter().fold(hmac(&first, day.as_bytes()), |key, part| hmac(&key, part.as_bytes()))
}

/// `20150830T123600Z`.
fn amz_date(wall_ms: i64) -> String {
    let text = time::rfc3339(wall_ms);
    let seconds = text.split('.').next().unwrap_or_default();
    seconds.chars().filter(|c| !matches!(c, '-' | ':')).chain(['Z']).collect()
}

fn amz_date_ms(text: &str) -> Option<i64> {
    if text.len() != 16 || !text.is_ascii() {
        return None;
    }
    let (day, time) = text.split_at(8);
    time::from_rfc3339(&format!(
        "{}-{}-{}{}:{}:{}",
        &day[..4],
        &day[4..6],
        &day[6..],
        &time[..3],
        &time[3..5],
        &time[5..]
    ))
}

#[cfg(test)]
mod tests;

//! AWS Signature Version 4, in the `Authorization` field: what both sides compute from a request,
//! how a client signs it, and how a server finds out whether somebody with a key it knows did.
//! Paths are encoded once more than they were sent, as all services but S3 have it.

mod canonical;

use super::hash::{hex, hmac, is_hmac, sha256, unhex};
use super::keys::Keys;
use super::secret::{Credentials, Secret};
use crate::time;
use canonical::canonical;
pub(crate) use canonical::encode;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far two clocks may be apart.
pub const SKEW_MS: i64 = 15 * 60 * 1000;
/// Fields that a signature may cover; more are no client's.
const SIGNED_MAX: usize = 64;

/// What of a request is signed.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// `GET`, or any other.
    pub method: &'a str,
    /// Path and query as they are sent.
    pub target: &'a str,
    /// Its fields, `Host` among them; a signature covers all of them, or those that it names.
    pub fields: &'a [(&'a str, &'a [u8])],
    /// All of it.
    pub body: &'a [u8],
}

/// What a signature is good for.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// `eu-west-1`.
    pub region: &'a str,
    /// `execute-api`.
    pub service: &'a str,
}

/// The fields that make a request a signed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// `X-Amz-Date`.
    pub date: String,
    /// `X-Amz-Security-Token`, if the credentials have one.
    pub token: Option<Secret>,
    /// `Authorization`.
    pub authorization: String,
}

/// Why a request is nobody's whom we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// No `Authorization` of this kind.
    Unsigned,
    /// It has one that nobody can read.
    Malformed,
    /// It was signed too long ago, or in the future.
    Skewed,
    /// For another service.
    Scope,
    /// By a key that we do not have.
    UnknownKey,
    /// Not by whoever has the key, or not this request.
    Mismatch,
}

impl Denied {
    /// For people, and as AWS calls it.
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

    /// As a metric's label has it.
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

/// Signs a request, all of its fields included.
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
    let signature = hex(&hmac(&key, to_sign(&date, &scope, &request).as_bytes()));
    let authorization = format!(
        "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
        credentials.access_key,
        names.join(";")
    );
    Signed { date, token, authorization }
}

/// Whether a request was signed for this service with one of these keys, just now.
///
/// # Errors
/// Why not.
pub fn verify(parts: &Parts<'_>, service: &str, keys: &Keys, wall_ms: i64) -> Result<(), Denied> {
    let given = Given::read(parts)?;
    let then_ms = amz_date_ms(given.date).ok_or(Denied::Malformed)?;
    if wall_ms.abs_diff(then_ms) > SKEW_MS.unsigned_abs() {
        return Err(Denied::Skewed);
    }
    let [day, region, of_service] = given.scope;
    if of_service != service || day != &given.date[..8] {
        return Err(Denied::Scope);
    }
    let secret = keys.secret(given.access_key).ok_or(Denied::UnknownKey)?;
    let key = signing_key(secret, given.scope);
    let scope = format!("{day}/{region}/{of_service}/aws4_request");
    let request = canonical(parts, &given.signed);
    let text = to_sign(given.date, &scope, &request);
    if is_hmac(&key, text.as_bytes(), &given.signature) { Ok(()) } else { Err(Denied::Mismatch) }
}

/// What a signed request says of its signature.
struct Given<'a> {
    access_key: &'a str,
    /// Day, region, service.
    scope: [&'a str; 3],
    signed: Vec<&'a str>,
    signature: [u8; 32],
    date: &'a str,
}

impl<'a> Given<'a> {
    fn read(parts: &Parts<'a>) -> Result<Self, Denied> {
        let text = once(parts, "authorization")?.ok_or(Denied::Unsigned)?;
        let (algorithm, rest) = text.split_once(' ').unwrap_or((text, ""));
        if algorithm != ALGORITHM {
            return Err(Denied::Unsigned);
        }
        let mut given = [None; 3];
        for pair in rest.split(',') {
            let (name, value) = pair.trim().split_once('=').ok_or(Denied::Malformed)?;
            let known = ["Credential", "SignedHeaders", "Signature"];
            let at = known.iter().position(|known| *known == name).ok_or(Denied::Malformed)?;
            if given[at].replace(value).is_some() {
                return Err(Denied::Malformed);
            }
        }
        let [Some(credential), Some(signed), Some(signature)] = given else {
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
        let signature = unhex(signature).ok_or(Denied::Malformed)?;
        let date = once(parts, "x-amz-date")?.ok_or(Denied::Malformed)?;
        // Whatever changes what a request means must be covered, or it could be exchanged.
        let mut names = parts.fields.iter().map(|(name, _)| name.to_ascii_lowercase());
        let covered = |name: &str| signed.contains(&name);
        let must = |name: &str| name == "host" || name.starts_with("x-amz-");
        if !covered("host") || !names.all(|name| !must(&name) || covered(&name)) {
            return Err(Denied::Malformed);
        }
        Ok(Self { access_key, scope: [day, region, service], signed, signature, date })
    }
}

/// The value of a field that is there once at most.
fn once<'a>(parts: &Parts<'a>, name: &str) -> Result<Option<&'a str>, Denied> {
    let mut values = parts.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    let Some((_, value)) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Denied::Malformed);
    }
    std::str::from_utf8(value).map(|text| Some(text.trim())).map_err(|_| Denied::Malformed)
}

fn to_sign(date: &str, scope: &str, request: &[u8]) -> String {
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

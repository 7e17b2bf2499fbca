//! A request to a service as bytes, signed or with a token or as it is.

use super::endpoint::Endpoint;
use super::secret::{Credentials, Secret};
use super::sigv4::{self, Parts, Scope};
use crate::proto::http_client::{Request, Unsendable};

/// A request before anybody says who it is from.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Whom.
    pub endpoint: &'a Endpoint,
    /// `GET`, or any other.
    pub method: &'a str,
    /// Path and query, the endpoint's own path included.
    pub target: &'a str,
    /// Its fields but for `Host`.
    pub fields: &'a [(&'a str, &'a str)],
    /// Its body.
    pub body: &'a [u8],
}

/// Who it is from.
#[derive(Clone, Copy, Debug)]
pub enum From<'a> {
    /// Nobody says.
    Anyone,
    /// Whoever has this token.
    Bearer(&'a Secret),
    /// Whoever has these credentials; at this wall-clock time.
    Signed(&'a Credentials, Scope<'a>, i64),
}

impl Asking<'_> {
    /// Its bytes.
    ///
    /// # Errors
    /// Which part cannot be sent.
    pub fn bytes(&self, from: From<'_>) -> Result<Vec<u8>, Unsendable> {
        let mut fields = self.fields.to_vec();
        let bearer;
        let signed;
        match from {
            From::Anyone => {}
            From::Bearer(token) => {
                bearer = format!("Bearer {}", token.reveal());
                fields.push(("Authorization", &bearer));
            }
            From::Signed(credentials, scope, wall_ms) => {
                let mut all = vec![("Host", self.endpoint.host.as_bytes())];
                all.extend(self.fields.iter().map(|(name, value)| (*name, value.as_bytes())));
                let Self { method, target, body, .. } = *self;
                let parts = Parts { method, target, fields: &all, body };
                signed = sigv4::sign(&parts, scope, credentials, wall_ms);
                fields.push(("X-Amz-Date", &signed.date));
                if let Some(token) = &signed.token {
                    fields.push(("X-Amz-Security-Token", token.reveal()));
                }
                fields.push(("Authorization", &signed.authorization));
            }
        }
        let Self { method, target, body, endpoint, .. } = *self;
        let mut bytes = Vec::with_capacity(512 + body.len());
        Request { method, target, host: &endpoint.host, fields: &fields, body }
            .write(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::keys::Keys;
    use crate::proto::http::{self, Fields};

    #[test]
    fn what_is_signed_is_what_is_sent() {
        let endpoint = Endpoint::parse("http://127.0.0.1:8000/x").unwrap();
        let credentials = Credentials {
            access_key: "AKID".to_owned(),
            secret_key: Secret::new("s"),
            session_token: Some(Secret::new("t")),
        };
        let fields = [("Content-Type", "application/x-amz-json-1.0"), ("X-Amz-Target", "A.B")];
        let (method, target, body) = ("POST", "/x/%40a/b%3D?c=d", b"{}");
        let asking = Asking { endpoint: &endpoint, method, target, fields: &fields, body };
        let scope = Scope { region: "eu-west-1", service: "dynamodb" };
        let bytes = asking.bytes(From::Signed(&credentials, scope, 0)).unwrap();
        let mut fields = Fields::default();
        let request = http::parse(&bytes[..bytes.len() - 2], &mut fields).unwrap();
        let fields: Vec<_> = request.fields().collect();
        let keys = Keys::parse(b"aws_access_key_id=AKID\naws_secret_access_key=s").unwrap();
        let parts = Parts { method, target: request.target, fields: &fields, body };
        assert_eq!(sigv4::verify(&parts, "dynamodb", &keys, 1000), Ok(()));
        let bytes = asking.bytes(From::Bearer(&Secret::new("tok"))).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("\r\nAuthorization: Bearer tok\r\n"), "{text}");
        let target = "/a b";
        assert!(Asking { target, ..asking }.bytes(From::Anyone).is_err());
    }
}

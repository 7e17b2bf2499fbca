//! Serializes a request to an HTTP service, with optional `SigV4` or bearer authorization.

use super::endpoint::Endpoint;
use super::secret::{Credentials, Secret};
use super::sigv4::{self, Parts, Scope};
use crate::proto::http_client::{Request, Unsendable};

/// A request without authorization.
#[derive(Clone, Copy, Debug)]
pub struct ServiceRequest<'a> {
    /// The service that the request goes to.
    pub endpoint: &'a Endpoint,
    /// For example `GET`.
    pub method: &'a str,
    /// Path and query, including the endpoint's path prefix.
    pub target: &'a str,
    /// Header fields except `Host`.
    pub fields: &'a [(&'a str, &'a str)],
    /// Sent with `Content-Length`; may be empty.
    pub body: &'a [u8],
}

/// How a request is authorized.
#[derive(Clone, Copy, Debug)]
pub enum Authorization<'a> {
    /// No authorization.
    None,
    /// `Authorization: Bearer`.
    Bearer(&'a Secret),
    /// AWS Signature Version 4, signed at this wall-clock time in milliseconds.
    SigV4(&'a Credentials, Scope<'a>, i64),
}

impl ServiceRequest<'_> {
    /// Serializes the request.
    ///
    /// # Errors
    /// The part of the request that is invalid in HTTP.
    pub fn bytes(&self, from: Authorization<'_>) -> Result<Vec<u8>, Unsendable> {
        let mut fields = self.fields.to_vec();
        let bearer;
        let signed;
        match from {
            Authorization::None => {}
            Authorization::Bearer(token) => {
                bearer = format!("Bearer {}", token.reveal());
                fields.push(("Authorization", &bearer));
            }
            Authorization::SigV4(credentials, scope, wall_ms) => {
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
        let request = ServiceRequest { endpoint: &endpoint, method, target, fields: &fields, body };
        let scope = Scope { region: "eu-west-1", service: "dynamodb" };
        let bytes = request.bytes(Authorization::SigV4(&credentials, scope, 0)).unwrap();
        let mut fields = Fields::default();
        let parsed = http::parse(&bytes[..bytes.len() - 2], &mut fields).unwrap();
        let fields: Vec<_> = parsed.fields().collect();
        let file = b"aws_access_key_id=AKID\naws_secret_access_key=s\naws_session_token=t";
        let keys = Keys::parse(file).unwrap();
        let parts = Parts { method, target: parsed.target, fields: &fields, body };
        assert_eq!(sigv4::verify(&parts, "dynamodb", &keys, 1000), Ok(()));
        let bytes = request.bytes(Authorization::Bearer(&Secret::new("tok"))).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("\r\nAuthorization: Bearer tok\r\n"), "{text}");
        let target = "/a b";
        assert!(ServiceRequest { target, ..request }.bytes(Authorization::None).is_err());
    }
}

//! Answers clients through the callback API of the configured gateway. The content of a message
//! cannot choose another gateway.

use crate::aws::call::{Authorization, ServiceRequest};
use crate::aws::endpoint::Endpoint;
use crate::aws::sigv4::encode;
use crate::proto::http_client::Unsendable;
use crate::proto::url::Wrong;

/// The callback API of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackApi {
    /// The base URL; the stage, if any, is part of the path.
    pub endpoint: Endpoint,
    /// How requests are authorized.
    pub auth: Auth,
}

/// How requests to the gateway are authorized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// No authorization.
    None,
    /// The bearer token in this file.
    Token(String),
    /// Signed with AWS credentials, for this region.
    SigV4(String),
}

impl CallbackApi {
    /// Parses a URL. Gateways of AWS are recognized by their host and require signatures.
    ///
    /// # Errors
    /// What the URL must look like.
    pub fn parse(url: &str) -> Result<Self, Wrong> {
        let endpoint = Endpoint::parse(url)?;
        let auth = match region(&endpoint.name) {
            Some(_) if endpoint.path.is_empty() => {
                return Err("must end with the stage, such as https://…amazonaws.com/prod");
            }
            Some(_) if !endpoint.is_secure() => return Err("must begin with https://"),
            Some(region) => Auth::SigV4(region.to_owned()),
            None => Auth::None,
        };
        Ok(Self { endpoint, auth })
    }

    /// The request that sends an answer to a connection.
    ///
    /// # Errors
    /// The part of the request that is invalid in HTTP.
    pub fn answer(
        &self,
        connection: &str,
        text: &str,
        from: Authorization<'_>,
    ) -> Result<Vec<u8>, Unsendable> {
        let mut target = format!("{}/@connections/", self.endpoint.path);
        encode(connection.as_bytes(), &mut target);
        let body = [b"Got message:", text.as_bytes()].concat();
        let fields = [("Content-Type", "text/plain; charset=utf-8")];
        let endpoint = &self.endpoint;
        ServiceRequest { endpoint, method: "POST", target: &target, fields: &fields, body: &body }
            .bytes(from)
    }
}

/// The region of a host such as `abc.execute-api.eu-west-1.amazonaws.com`.
fn region(host: &str) -> Option<&str> {
    if !host.ends_with(".amazonaws.com") && !host.ends_with(".amazonaws.com.cn") {
        return None;
    }
    let (_, rest) = host.split_once("execute-api.")?;
    rest.split('.').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_gateway() {
        let gateway = CallbackApi::parse("http://127.0.0.1:8081/").unwrap();
        assert_eq!(gateway.auth, Auth::None);
        let bytes = gateway.answer("a/b=", "it's\r\n\"x\"", Authorization::None).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "POST /@connections/a%2Fb%3D HTTP/1.1\r\nHost: 127.0.0.1:8081\r\n\
            Content-Type: text/plain; charset=utf-8\r\nContent-Length: 21\r\n\r\n\
            Got message:it's\r\n\"x\""
        );
    }

    #[test]
    #[cfg(feature = "tls")]
    fn gateways_of_aws() {
        let host = "abc.execute-api.eu-west-1.amazonaws.com";
        let gateway = CallbackApi::parse(&format!("https://{host}/prod")).unwrap();
        assert_eq!(gateway.auth, Auth::SigV4("eu-west-1".to_owned()));
        assert_eq!(gateway.endpoint.path, "/prod");
        let vpc = "https://vpce-1-x.execute-api.us-east-1.vpce.amazonaws.com/s";
        assert_eq!(CallbackApi::parse(vpc).unwrap().auth, Auth::SigV4("us-east-1".to_owned()));
        assert!(CallbackApi::parse(&format!("https://{host}")).unwrap_err().contains("stage"));
        assert!(CallbackApi::parse(&format!("http://{host}/prod")).unwrap_err().contains("https"));
        let other = CallbackApi::parse("https://x.execute-api.evil.example/prod").unwrap();
        assert_eq!(other.auth, Auth::None);
    }
}

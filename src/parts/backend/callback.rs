//! How a client is answered: through the callback API of the one gateway that was configured. No
//! part of a message says where an answer goes.

use crate::aws::call::{Authorization, ServiceRequest};
use crate::aws::endpoint::Endpoint;
use crate::aws::sigv4::encode;
use crate::proto::http_client::Unsendable;
use crate::proto::url::Wrong;

/// A gateway, and what it wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Where its callback API is; the stage, if there is one, is a part of the path.
    pub endpoint: Endpoint,
    /// Who we say we are.
    pub auth: Auth,
}

/// Who we say we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Nobody.
    Nobody,
    /// Whoever has the token in this file.
    Token(String),
    /// Whoever has our AWS credentials, in this region.
    Signed(String),
}

impl Gateway {
    /// A gateway at a URL; AWS' own are known by their names.
    ///
    /// # Errors
    /// What the URL must be.
    pub fn parse(url: &str) -> Result<Self, Wrong> {
        let endpoint = Endpoint::parse(url)?;
        let auth = match region(&endpoint.name) {
            Some(_) if endpoint.path.is_empty() => {
                return Err("must end with the stage, such as https://…amazonaws.com/prod");
            }
            Some(_) if !endpoint.is_secure() => return Err("must begin with https://"),
            Some(region) => Auth::Signed(region.to_owned()),
            None => Auth::Nobody,
        };
        Ok(Self { endpoint, auth })
    }

    /// The request that gives a connection its answer.
    ///
    /// # Errors
    /// Which part of it cannot be sent.
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

/// `eu-west-1`, of a host such as `abc.execute-api.eu-west-1.amazonaws.com`.
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
        let gateway = Gateway::parse("http://127.0.0.1:8081/").unwrap();
        assert_eq!(gateway.auth, Auth::Nobody);
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
        let gateway = Gateway::parse(&format!("https://{host}/prod")).unwrap();
        assert_eq!(gateway.auth, Auth::Signed("eu-west-1".to_owned()));
        assert_eq!(gateway.endpoint.path, "/prod");
        let vpc = "https://vpce-1-x.execute-api.us-east-1.vpce.amazonaws.com/s";
        assert_eq!(Gateway::parse(vpc).unwrap().auth, Auth::Signed("us-east-1".to_owned()));
        assert!(Gateway::parse(&format!("https://{host}")).unwrap_err().contains("stage"));
        assert!(Gateway::parse(&format!("http://{host}/prod")).unwrap_err().contains("https"));
        let other = Gateway::parse("https://x.execute-api.evil.example/prod").unwrap();
        assert_eq!(other.auth, Auth::Nobody);
    }
}

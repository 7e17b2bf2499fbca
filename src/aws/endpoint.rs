//! The base URL of an HTTP service.

use crate::proto::url::{Parts, Protocol, Wrong};
use crate::target::Target;

/// A parsed base URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address to connect to.
    pub target: Target,
    /// Value of the `Host` field, without the scheme's default port.
    pub host: String,
    /// The host without the port.
    pub name: String,
    /// Prefix of every path, without a trailing slash.
    pub path: String,
}

impl Endpoint {
    /// Reads `http(s)://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// What the URL must look like.
    pub fn parse(url: &str) -> Result<Self, Wrong> {
        const FORM: Wrong = "must be http://HOST[:PORT][/PATH] or https://…";
        let parts = Parts::read(url, Protocol::Http).map_err(|flaw| flaw.clause(FORM))?;
        let path = parts.path;
        if path.contains('?') {
            return Err("must not have a query");
        }
        let climbs = path.split('/').any(|part| part == "..");
        if path.contains("//") || path.contains('\\') || climbs {
            return Err("must have a path without //, \\ and ..");
        }
        Ok(Self {
            target: Target::public(&parts.server, parts.scheme),
            host: parts.server.shown(parts.scheme.port()),
            name: parts.server.name,
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// The endpoint of an AWS service; `None` if the region name is invalid or TLS is not built in.
    #[must_use]
    pub fn of_aws(service: &str, region: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if region.is_empty() || region.len() > 40 || !region.bytes().all(allowed) {
            return None;
        }
        let china = if region.starts_with("cn-") { ".cn" } else { "" };
        Self::parse(&format!("https://{service}.{region}.amazonaws.com{china}")).ok()
    }

    /// Whether the host is `localhost` or a loopback address.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let ip = self.name.parse::<core::net::IpAddr>();
        self.name == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }

    /// Whether connections use TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        matches!(self.target, Target::Tls(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, host, path, to) in [
            ("http://127.0.0.1:8081", "127.0.0.1:8081", "", "127.0.0.1:8081"),
            ("http://h/", "h", "", "h:80"),
            ("HTTP://[::1]:9/a/b/", "[::1]:9", "/a/b", "[::1]:9"),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            let seen = (&*endpoint.host, &*endpoint.path, endpoint.target.to_string());
            assert_eq!(seen, (host, path, to.to_owned()), "{url}");
            assert!(!endpoint.is_secure());
        }
        for (url, why) in [
            ("h:80", "must be http://"),
            ("ws://h", "must be http://"),
            ("http://", "must be http://"),
            ("http://h:0", "must have a port"),
            ("http://u@h", "must not have a user"),
            ("http://h/?x", "must not have a query"),
            ("http://h/a b", "must have only visible"),
            ("http://h/a/../b", "must have a path"),
        ] {
            assert!(Endpoint::parse(url).unwrap_err().starts_with(why), "{url}");
        }
    }

    #[test]
    #[cfg(feature = "tls")]
    fn aws() {
        let sts = Endpoint::of_aws("sts", "eu-west-1").unwrap();
        assert_eq!((&*sts.host, sts.is_secure()), ("sts.eu-west-1.amazonaws.com", true));
        let china = Endpoint::of_aws("dynamodb", "cn-north-1").unwrap();
        assert_eq!(china.host, "dynamodb.cn-north-1.amazonaws.com.cn");
        for bad in ["", "x.evil.example/", "EU", "a b"] {
            assert_eq!(Endpoint::of_aws("sts", bad), None, "{bad}");
        }
    }
}

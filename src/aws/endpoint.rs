//! Where an HTTP service is, as a URL says it: how it is connected to, what the `Host` field says,
//! what stands in front of every path.

use crate::proto::url::Place;
use crate::target::{Target, Trust};

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect to.
    pub target: Target,
    /// For the `Host` field: the usual port is left out.
    pub host: String,
    /// The host without the port.
    pub name: String,
    /// What stands in front of every path, without a slash at its end.
    pub path: String,
}

/// Why a URL is no service's, as a clause.
pub type Wrong = &'static str;

impl Endpoint {
    /// Reads `http(s)://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// What it must be.
    pub fn parse(url: &str) -> Result<Self, Wrong> {
        const WANT: Wrong = "must be http://HOST[:PORT][/PATH] or https://…";
        let (scheme, rest) = url.split_once("://").ok_or(WANT)?;
        let (secure, usual) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (false, 80),
            "https" if cfg!(feature = "tls") => (true, 443),
            "https" => return Err("needs TLS, which this build does not speak"),
            _ => return Err(WANT),
        };
        if rest.contains('@') {
            return Err("must not have a user or a password");
        }
        if rest.contains(['?', '#']) {
            return Err("must not have a query or a #");
        }
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let plain = |b: u8| b.is_ascii_graphic() && b != b'\\';
        if !path.bytes().all(plain) || path.contains("//") || path.split('/').any(|p| p == "..") {
            return Err("must have a path of visible ASCII, without // and ..");
        }
        let place = Place::parse(host, Some(usual)).ok_or(WANT)?;
        let target = Target::host(&place.name, place.port);
        let target = if secure { target.secured(&place.name, Trust::public()) } else { target };
        let shown = place.to_string();
        let host = match shown.strip_suffix(&format!(":{usual}")) {
            Some(host) => host.to_owned(),
            None => shown,
        };
        Ok(Self { target, host, name: place.name, path: path.trim_end_matches('/').to_owned() })
    }

    /// Where AWS has a service of a region.
    #[must_use]
    pub fn of_aws(service: &str, region: &str) -> Option<Self> {
        let sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if region.is_empty() || region.len() > 40 || !region.bytes().all(sound) {
            return None;
        }
        let china = if region.starts_with("cn-") { ".cn" } else { "" };
        Self::parse(&format!("https://{service}.{region}.amazonaws.com{china}")).ok()
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let ip = self.name.parse::<core::net::IpAddr>();
        self.name == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }

    /// Whether nobody on the way can read along.
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
            ("http://h:0", "must be http://"),
            ("http://u@h", "must not have a user"),
            ("http://h/?x", "must not have a query"),
            ("http://h/a b", "must have a path"),
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

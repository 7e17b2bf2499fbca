//! The proxies of outgoing connections: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, or the same in
//! lower case, which is preferred. All connections use CONNECT, as a WebSocket needs a tunnel.

use core::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Usage;
use super::read::Environment;
use crate::engine::{Target, Tunnel};
use crate::proto::forwarded::Range;
use crate::proto::http::percent_decoded;
use crate::proto::url::{HostPort, Parts, Protocol, Scheme, split_port};
use crate::secret::Secret;

/// What the value of such a variable must be.
const FORM: &str = "must be http://[USER:PASSWORD@]HOST[:PORT]";

/// Which outgoing connections use a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For servers without TLS.
    plain: Option<Variable>,
    /// For servers with TLS.
    secured: Option<Variable>,
    /// `NO_PROXY`: servers that are connected to directly, separated by commas.
    direct: String,
}

/// A variable that names a proxy. Its value may contain a password.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    name: &'static str,
    value: Secret,
}

impl Proxies {
    pub(crate) fn new(env: &Environment) -> Self {
        let variable = |names: [&'static str; 2]| {
            let found = names.into_iter().find_map(|name| Some((name, env.filled(name)?)));
            found.map(|(name, value)| Variable { name, value: Secret::new(value) })
        };
        let direct = env.filled("no_proxy").or_else(|| env.filled("NO_PROXY"));
        Self {
            plain: variable(["http_proxy", "HTTP_PROXY"]),
            secured: variable(["https_proxy", "HTTPS_PROXY"]),
            direct: direct.unwrap_or_default().to_owned(),
        }
    }

    /// How to connect to a server: directly, or through the proxy for this scheme. TLS is not
    /// included.
    ///
    /// # Errors
    /// The variable that names the proxy is invalid.
    pub fn route(&self, server: &HostPort, scheme: Scheme) -> Result<Target, Usage> {
        let variable = match scheme {
            Scheme::Plain => &self.plain,
            Scheme::Secured => &self.secured,
        };
        match variable {
            Some(variable) if !self.is_direct(server) => {
                Ok(Target::Tunnel(Box::new(Tunnel { server: server.clone(), ..variable.read()? })))
            }
            Some(_) | None => Ok(Target::host(&server.name, server.port)),
        }
    }

    /// This machine is never reached through a proxy.
    fn is_direct(&self, server: &HostPort) -> bool {
        let name = server.name.to_ascii_lowercase();
        let ip: Option<IpAddr> = name.parse().ok();
        name == "localhost"
            || name.ends_with(".localhost")
            || ip.is_some_and(|ip| ip.to_canonical().is_loopback())
            || self.direct.split(',').any(|entry| matches(entry.trim(), &name, ip, server.port))
    }
}

/// Whether an entry of `NO_PROXY` covers a server: `*`, an address, a range such as `10.0.0.0/8`,
/// or a domain with its subdomains; perhaps with a port.
fn matches(entry: &str, name: &str, ip: Option<IpAddr>, port: u16) -> bool {
    if let (Some(range), Some(ip)) = (Range::parse(entry), ip) {
        return range.contains(ip.to_canonical());
    }
    let entry = entry.to_ascii_lowercase();
    let (host, only) = split_port(entry.trim_start_matches("*.")).unwrap_or((&entry, None));
    let domain = host.trim_start_matches('.');
    let covers = match ip {
        Some(ip) => domain.parse() == Ok(ip),
        None => {
            name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        }
    };
    entry == "*" || !domain.is_empty() && covers && only.is_none_or(|only| only == port)
}

impl Variable {
    /// The proxy, as a tunnel to itself.
    fn read(&self) -> Result<Tunnel, Usage> {
        let text = self.value.reveal();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let bad = |why: &str| Usage::BadValue {
            name: self.name.to_owned(),
            value: format!("{scheme}://{}{place}", if user.is_some() { "***@" } else { "" }),
            why: why.to_owned(),
        };
        let url = format!("{scheme}://{place}");
        let parts = Parts::read(&url, Protocol::Http).map_err(|flaw| bad(flaw.clause(FORM)))?;
        if parts.scheme == Scheme::Secured {
            return Err(bad("must begin with http://: TLS to a proxy is not supported"));
        }
        if !matches!(parts.path, "" | "/") {
            return Err(bad(FORM));
        }
        let authorization = user.map(|user| basic(user).ok_or_else(|| bad(FORM))).transpose()?;
        let proxy = Target::host(&parts.server.name, parts.server.port);
        Ok(Tunnel { proxy, server: parts.server, authorization })
    }
}

/// `Basic` credentials (RFC 7617) from the user and password of a URL.
fn basic(user: &str) -> Option<Secret> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let decoded = |text: &str| percent_decoded(&text.replace('+', "%2B")).map(String::from);
    let pair = format!("{}:{}", decoded(user)?, decoded(password)?);
    Some(Secret::new(format!("Basic {}", STANDARD.encode(pair))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(env: &[(&str, &str)], server: &str, scheme: Scheme) -> Result<String, String> {
        let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let proxies = Proxies::new(&Environment::new(env).unwrap());
        let server = HostPort::read(server, None).unwrap();
        proxies.route(&server, scheme).map(|to| to.to_string()).map_err(|usage| usage.to_string())
    }

    #[test]
    fn each_scheme_has_its_variable() {
        let env = [("HTTP_PROXY", "http://p:1"), ("HTTPS_PROXY", "q:2"), ("https_proxy", "r/")];
        assert_eq!(routed(&env, "h:80", Scheme::Plain).unwrap(), "h:80 through p:1");
        assert_eq!(routed(&env, "h:443", Scheme::Secured).unwrap(), "h:443 through r:80");
        assert_eq!(routed(&env[1..], "h:80", Scheme::Plain).unwrap(), "h:80");
        assert_eq!(routed(&[("http_proxy", "")], "h:80", Scheme::Plain).unwrap(), "h:80");
    }

    #[test]
    fn no_proxy_names_servers_to_connect_to_directly() {
        for (list, server, is_direct) in [
            ("", "h.example:80", false),
            ("", "localhost:80", true),
            ("", "a.localhost:80", true),
            ("", "127.9.0.1:80", true),
            ("", "[::1]:80", true),
            ("*", "h.example:80", true),
            ("a, h.EXAMPLE ,b", "H.example:80", true),
            ("example", "h.example:80", true),
            (".example", "h.example:80", true),
            ("*.example", "h.example:80", true),
            ("ample", "h.example:80", false),
            ("h.example:80", "h.example:80", true),
            ("h.example:81", "h.example:80", false),
            ("10.0.0.0/8,fd00::/8", "10.9.8.7:80", true),
            ("10.0.0.0/8,fd00::/8", "[fd00::9]:80", true),
            ("10.0.0.0/8", "11.0.0.1:80", false),
            ("10.0.0.1", "10.0.0.1:80", true),
            ("0.0.1", "10.0.0.1:80", false),
            ("10.0.0.0/8", "h.example:80", false),
            (",.,*.,:80,/8", "h.example:80", false),
        ] {
            let env = [("HTTP_PROXY", "p:1"), ("NO_PROXY", list)];
            let route = routed(&env, server, Scheme::Plain).unwrap();
            assert_eq!(!route.contains(" through "), is_direct, "{list:?} {server}: {route}");
        }
    }

    #[test]
    fn credentials_are_sent_and_never_shown() {
        let variable = |value: &str| Variable { name: "HTTP_PROXY", value: Secret::new(value) };
        let tunnel = variable("http://us%65r:p%40s+@h:1").read().unwrap();
        assert_eq!(tunnel.authorization, Some(Secret::new("Basic dXNlcjpwQHMr")));
        assert_eq!(tunnel.proxy, Target::host("h", 1));
        for (value, shown) in [
            ("socks5://u:secret@h:1", "HTTP_PROXY \"socks5://***@h:1\": must be http://"),
            ("u:secret@:1", "HTTP_PROXY \"http://***@:1\": must be http://"),
            ("h:0", "HTTP_PROXY \"http://h:0\": must have a port"),
            ("h/path", "HTTP_PROXY \"http://h/path\": must be http://"),
            ("http://%zz:secret@h:1", "HTTP_PROXY \"http://***@h:1\": must be http://"),
        ] {
            let usage = variable(value).read().unwrap_err().to_string();
            assert!(usage.starts_with(shown) && !usage.contains("secret"), "{usage}");
        }
        let shown = format!("{:?}", variable("http://u:secret@h:1"));
        assert!(!shown.contains("secret@"), "{shown}");
    }
}

//! The options of `wspulse healthcheck`. Without a URL, the address follows from the variables that
//! configure the server's listeners, so that a probe in the same container needs no argument.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::borrow::Cow;
use std::ffi::OsString;

use super::destination::{self, Goal, HasTrustFlags, Roots, Tls, TrustFlags};
use super::help::{self, Page};
use super::proxies::Proxies;
use super::read::{self, Environment, Given};
use super::serve::Listen;
use super::table::{Fallback, Flag, Group, Table, Takes};
use super::values;
use super::{Command, Surroundings, Usage, every_flag, flags};
use crate::engine::Target;
use crate::proto::secrets::masked_url;
use crate::proto::url::{Parts, Protocol, Scheme};
use crate::units::show_duration;

pub(super) const PAGE: Page = Page {
    about: "check whether a server is healthy",
    synopsis: "usage: wspulse healthcheck [URL] [OPTIONS]
URL is http://HOST[:PORT][/PATH], https://… or unix:PATH. Without it, the address is the one that
the server's variables set: WSPULSE_ADMIN_LISTEN (127.0.0.1:8081) or, if that is off,
WSPULSE_LISTEN or PORT ([::]:8080). Prints one line. Exit code: 0 for a 2xx status, else 1.",
    foot: "In a Dockerfile: HEALTHCHECK CMD [\"/wspulse\", \"healthcheck\"]
HTTP_PROXY, HTTPS_PROXY and NO_PROXY are honoured, except for this machine.\n",
};

pub(super) const FLAGS: &Table<Draft> = &Table::of(&[Group {
    title: "Options",
    brief: false,
    flags: &[
        Flag {
            name: "ready",
            takes: Takes::Nothing,
            fallback: Fallback::Off,
            help: "request /readyz instead of /healthz",
            take: |d, v| values::switch(v).map(|on| d.ready = on),
            show: |d| d.ready.to_string(),
        },
        Flag {
            name: "timeout",
            takes: Takes::One("TIME"),
            fallback: Fallback::Is("1s"),
            help: "for the whole check",
            take: |d, v| values::time(v).map(|ms| d.timeout_ms = ms),
            show: |d| show_duration(d.timeout_ms),
        },
        destination::insecure_flag(),
        destination::ca_file_flag(),
    ],
}]);

pub(super) struct Draft {
    ready: bool,
    timeout_ms: u64,
    trust: TrustFlags,
}

impl HasTrustFlags for Draft {
    fn trust(&mut self) -> &mut TrustFlags {
        &mut self.trust
    }
}

/// The options of `wspulse healthcheck`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// The server.
    pub goal: Goal,
    /// The `Host` field, with the port where it is not the scheme's own.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// The whole URL, for the output.
    pub url: String,
    /// Time limit of the whole check.
    pub timeout_ms: u64,
}

struct Endpoint {
    targets: Vec<Target>,
    /// With TLS: the name that the certificate must be valid for.
    tls_name: Option<String>,
    host: String,
    /// The URL up to the path, for the output.
    base_url: String,
    /// The path and query, if the URL has any.
    path: Option<String>,
}

/// Parses the arguments after `wspulse healthcheck`.
pub(super) fn parse(
    args: Vec<OsString>,
    env: &Environment,
    _: &Surroundings,
) -> Result<Command, Usage> {
    let (given, words) = match read::args(&read::known(FLAGS), args, 1)? {
        Given::Help => return Ok(Command::Print(help::screen(&PAGE, FLAGS))),
        Given::Version => return Ok(Command::Print(help::version())),
        Given::Values { flags, words } => (flags, words),
    };
    env.check(&every_flag())?;
    let empty = Draft { ready: false, timeout_ms: 0, trust: TrustFlags::default() };
    let draft = read::fill(FLAGS, given, env, empty)?.draft;
    let endpoint = match words.first() {
        Some(url) => endpoint_of_url(url, &Proxies::new(env))?,
        None => endpoint_of_server(env)?,
    };
    let base = if words.is_empty() { base_path(env)? } else { String::new() };
    let path = match (endpoint.path, draft.ready) {
        (Some(path), true) => return Err(Usage::ReadyBesidePath(path)),
        (Some(path), false) => path,
        (None, true) => format!("{base}/readyz"),
        (None, false) => format!("{base}/healthz"),
    };
    // The server of this container is trusted, and its certificate is not valid for localhost.
    let roots = if words.is_empty() { Roots::Unverified } else { draft.trust.settle()? };
    let tls = endpoint.tls_name.map(|name| Tls { name, roots });
    Ok(Command::Healthcheck(Healthcheck {
        url: masked_url(&format!("{}{path}", endpoint.base_url)).into_owned(),
        goal: Goal { targets: endpoint.targets, tls },
        host: endpoint.host,
        path,
        timeout_ms: draft.timeout_ms,
    }))
}

fn bad(name: &str, value: &str, why: Cow<'static, str>) -> Usage {
    Usage::BadValue { name: name.to_owned(), value: value.to_owned(), why: why.into() }
}

/// Where a server with these variables listens. The admin listener is preferred, since the loop
/// serves it first.
fn endpoint_of_server(env: &Environment) -> Result<Endpoint, Usage> {
    let read = |name: &'static str,
                parse: fn(&str) -> Result<Option<Listen>, Cow<'static, str>>| {
        let text = env.filled(name).filter(|text| !text.trim().is_empty());
        let Some(text) = text else { return Ok(None) };
        let listen = parse(text).map_err(|why| bad(name, text, why))?;
        let any_port = match &listen {
            Some(Listen::At(at)) => at.port() == 0,
            Some(Listen::Default { port }) => *port == 0,
            Some(Listen::Unix(_)) | None => false,
        };
        if any_port {
            return Err(bad(name, text, "has no fixed port: give the URL".into()));
        }
        Ok(Some(listen))
    };
    let admin = match read("WSPULSE_ADMIN_LISTEN", flags::admin)? {
        Some(listen) => listen,
        None => Some(Listen::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)))),
    };
    if let Some(listen) = admin {
        return Ok(endpoint_of(&listen));
    }
    let first = |text: &str| {
        let address = values::address(text.split_whitespace().next().unwrap_or(""))?;
        Ok(Some(address.listen(values::every_address)))
    };
    let port = |text: &str| values::port(text).map(|port| Some(values::every_address(port)));
    let main = match read("WSPULSE_LISTEN", first)? {
        Some(listen) => Some(listen),
        None => read("PORT", port)?,
    };
    let endpoint = endpoint_of(&main.flatten().unwrap_or(Listen::Default { port: 8080 }));
    if env.filled("WSPULSE_TLS_CERT").is_none() {
        return Ok(endpoint);
    }
    let base_url = endpoint.base_url.replacen("http://", "https://", 1);
    Ok(Endpoint { tls_name: Some("localhost".to_owned()), base_url, ..endpoint })
}

/// Where to reach a listener. One on all addresses is reached through the loopback.
fn endpoint_of(listen: &Listen) -> Endpoint {
    match listen {
        Listen::Unix(path) => unix(&path.to_string_lossy()),
        Listen::Default { port } => loopback(*port),
        Listen::At(at) => match at.ip() {
            IpAddr::V6(ip) if ip.is_unspecified() => loopback(at.port()),
            IpAddr::V4(ip) if ip.is_unspecified() => {
                address(SocketAddr::from((Ipv4Addr::LOCALHOST, at.port())))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => address(*at),
        },
    }
}

fn address(at: SocketAddr) -> Endpoint {
    Endpoint {
        targets: vec![Target::Tcp(at)],
        tls_name: None,
        host: at.to_string(),
        base_url: format!("http://{at}"),
        path: None,
    }
}

/// Both loopback addresses, as a host may have only one.
fn loopback(port: u16) -> Endpoint {
    let ips = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    Endpoint {
        targets: ips.map(|ip| Target::Tcp(SocketAddr::new(ip, port))).to_vec(),
        tls_name: None,
        host: format!("localhost:{port}"),
        base_url: format!("http://localhost:{port}"),
        path: None,
    }
}

fn unix(path: &str) -> Endpoint {
    Endpoint {
        targets: vec![Target::Unix(path.into())],
        tls_name: None,
        host: "localhost".to_owned(),
        base_url: format!("unix:{path} "),
        path: None,
    }
}

fn base_path(env: &Environment) -> Result<String, Usage> {
    const NAME: &str = "WSPULSE_BASE_PATH";
    let text = env.filled(NAME).unwrap_or_default();
    values::base_path(text).map_err(|why| bad(NAME, text, why))
}

fn endpoint_of_url(url: &str, proxies: &Proxies) -> Result<Endpoint, Usage> {
    let bad_url = |why| bad("URL", url, why);
    if let Some(path) = url.strip_prefix("unix:") {
        return values::socket_path(path).map(unix).map_err(bad_url);
    }
    let form = "must be http://HOST[:PORT][/PATH], https://… or unix:PATH";
    let parts =
        Parts::read(url, Protocol::Http).map_err(|flaw| bad_url(flaw.clause(form).into()))?;
    let (name, port, host) = (&parts.server.name, parts.server.port, parts.host.to_owned());
    let targets = if name.eq_ignore_ascii_case("localhost") {
        loopback(port).targets
    } else {
        vec![proxies.route(&parts.server, parts.scheme)?]
    };
    let (scheme, tls_name) = match parts.scheme {
        Scheme::Plain => ("http", None),
        Scheme::Secured => ("https", Some(name.clone())),
    };
    let path = (!parts.path.is_empty()).then(|| parts.target());
    let base_url = format!("{scheme}://{host}");
    Ok(Endpoint { targets, tls_name, host, base_url, path })
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn asked(args: &str, env: &[(&str, &str)]) -> Result<Healthcheck, String> {
        let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let args = ["healthcheck"].into_iter().chain(args.split_whitespace()).map(OsString::from);
        match parse(args, env, &Surroundings::default()) {
            Ok(Command::Healthcheck(asked)) => Ok(asked),
            Ok(other) => panic!("{other:?}"),
            Err(usage) => Err(usage.to_string()),
        }
    }

    /// The targets in order, the `Host` field and the URL.
    fn shown(args: &str, env: &[(&str, &str)]) -> String {
        let asked = asked(args, env).unwrap();
        let targets: Vec<String> = asked.goal.targets.iter().map(Target::to_string).collect();
        format!("{} {} {}", targets.join(" "), asked.host, asked.url)
    }

    #[test]
    fn without_a_url_it_follows_the_server() {
        let local = "127.0.0.1:9 127.0.0.1:9 http://127.0.0.1:9/healthz";
        let every = "127.0.0.1:9 [::1]:9 localhost:9 http://localhost:9/healthz";
        let unix = "unix:/x localhost unix:/x /healthz";
        let off = ("WSPULSE_ADMIN_LISTEN", "off");
        for (env, want) in [
            (&[("WSPULSE_ADMIN_LISTEN", ":9"), ("PORT", "7")][..], local),
            (&[("WSPULSE_ADMIN_LISTEN", "0.0.0.0:9")], local),
            (&[("WSPULSE_ADMIN_LISTEN", "[::]:9")], every),
            (&[("WSPULSE_ADMIN_LISTEN", "unix:/x")], unix),
            (&[off, ("PORT", "9")], every),
            (&[off, ("WSPULSE_LISTEN", "unix:/x :8"), ("PORT", "9")], unix),
            (&[off, ("WSPULSE_LISTEN", " "), ("PORT", "9")], every),
            (&[off, ("WSPULSE_LISTEN", "127.0.0.1:9")], local),
        ] {
            assert_eq!(shown("", env), want, "{env:?}");
        }
        let default = "127.0.0.1:8081 127.0.0.1:8081 http://127.0.0.1:8081/";
        assert_eq!(shown("", &[]), format!("{default}healthz"));
        assert_eq!(shown("--ready", &[]), format!("{default}readyz"));
        assert_eq!(shown("", &[("WSPULSE_READY", "1")]), format!("{default}readyz"));
        let below = [("WSPULSE_BASE_PATH", "/x/")];
        assert_eq!(shown("", &below), format!("{default}x/healthz"));
        assert!(shown("", &[off]).starts_with("127.0.0.1:8080 [::1]:8080 "));
        assert_eq!(asked("", &[]).unwrap().timeout_ms, 1_000);
        assert_eq!(asked("--timeout 250ms", &[]).unwrap().timeout_ms, 250);
    }

    #[test]
    fn urls() {
        for (url, want) in [
            ("http://h", "h:80 h http://h/healthz"),
            ("http://h:81/", "h:81 h:81 http://h:81/"),
            ("http://h?x", "h:80 h http://h/?x"),
            ("http://10.0.0.1:81/a?b", "10.0.0.1:81 10.0.0.1:81 http://10.0.0.1:81/a?b"),
            ("http://[::1]/a", "[::1]:80 [::1] http://[::1]/a"),
            ("http://localhost:1", "127.0.0.1:1 [::1]:1 localhost:1 http://localhost:1/healthz"),
            ("unix:/x", "unix:/x localhost unix:/x /healthz"),
        ] {
            assert_eq!(shown(url, &[("WSPULSE_BASE_PATH", "/b")]), want, "{url}");
        }
        let want = "must be http://HOST[:PORT][/PATH], https://… or unix:PATH";
        for (url, why) in [
            ("localhost:8080", want),
            ("http://", want),
            ("http://:80", want),
            ("http://***@h", "must not have a user or password"),
            ("http://h/\u{e9}", "must have only visible ASCII in its path: encode the rest as %XX"),
            ("http://h/#x", "must not have a # part: write %23 for the character"),
            ("http://[::x]", want),
            ("http://h:0", "must have a port from 1 to 65535"),
            ("http://h:65536", "must have a port from 1 to 65535"),
            ("wss://h", want),
            ("unix:", "must have a path, such as unix:/run/x.sock"),
        ] {
            assert_eq!(asked(url, &[]).unwrap_err(), format!("URL {url:?}: {why}"));
        }
    }

    #[test]
    fn invalid_flags_and_urls() {
        for (args, env, why) in [
            (
                "--ready http://h/x",
                &[][..],
                "--ready requests /readyz, but the URL has the path /x: leave one out",
            ),
            ("http://h http://i", &[], "unexpected argument \"http://i\""),
            ("--timeout 0", &[], "--timeout \"0\": must be longer than 0"),
            ("--reddy", &[], "unknown flag --reddy; did you mean --ready?"),
            (
                "",
                &[("WSPULSE_ADMIN_LISTEN", "127.0.0.1:0")],
                "WSPULSE_ADMIN_LISTEN \"127.0.0.1:0\": has no fixed port: give the URL",
            ),
            (
                "",
                &[("WSPULSE_ADMIN_LISTEN", "off"), ("PORT", "x")],
                "PORT \"x\": must have a port from 0 to 65535",
            ),
            ("", &[("WSPULSE_TURBO", "1")], "unknown variable WSPULSE_TURBO"),
        ] {
            assert_eq!(asked(args, env).unwrap_err(), why);
        }
        // Variables of other commands are valid.
        assert!(asked("", &[("WSPULSE_DRAIN_WINDOW", "1s")]).is_ok());
    }
}

//! The flags of the gateway. All others require `--gateway-backend`.

use core::net::SocketAddr;
use std::borrow::Cow;

use super::part::BEHAVIOUR;
use super::plan::{Backend, Domain, Order, PeerPlan, domain, routes, stage};
use super::{Expression, Format, Plan, connection_id};
use crate::behaviours::Mount;
use crate::engine::Target;
use crate::listen::Listen;
use crate::options::flags::{named, set};
use crate::options::read::{Environment, Filled};
use crate::options::serve::Draft;
use crate::options::table::{Fallback, Flag, Group, Takes};
use crate::options::values::Address;
use crate::options::{self, Usage, values};
use crate::parts::{self, Plan as _};
use crate::units::show_duration;

pub(super) const GROUPS: &[Group<Draft>] = &[
    Group { title: "The gateway (see docs/USE.md)", flags: &[BACKEND], brief: false },
    Group { title: "", flags: FLAGS, brief: true },
];

type Read<T> = Result<T, Cow<'static, str>>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    backend: String,
    stage: String,
    route: String,
    routes: String,
    format: Format,
    domain: String,
    order: Order,
    reply: bool,
    binary: bool,
    time_scale: u64,
    ca_file: String,
    hold_ms: u64,
    in_flight: u64,
    token_file: String,
    credentials_file: String,
    open: bool,
    peer_key_file: String,
    peer_listen: Option<Listen>,
    advertise: Option<SocketAddr>,
}

/// The value of `--gateway-domain` for the address of the admin listener.
const SELF: &str = "self";
/// The default port of `--gateway-peer-listen`.
const PEER_PORT: u16 = 8082;

const FORMS: &[(&str, Format)] =
    &[("template", Format::Template), ("proxy", Format::Proxy), ("event", Format::Event)];
const SWITCH: &[(&str, bool)] = &[("on", true), ("off", false)];
const ORDERS: &[(&str, Order)] = &[("on", Order::Kept), ("off", Order::Any)];

const BACKEND: Flag<Draft> = Flag {
    name: "gateway-backend",
    takes: Takes::One("URL"),
    fallback: Fallback::Off,
    help: "send messages of /gateway/STAGE to this URL; see docs/USE.md",
    take: |d, v| set(&mut d.parts.gateway.backend, checked(v, backend)),
    show: |d| shown(&d.parts.gateway.backend),
};

const FLAGS: &[Flag<Draft>] = &[
    Flag {
        name: "gateway-stage",
        takes: Takes::One("NAME"),
        fallback: Fallback::Is("prod"),
        help: "stage name, used in the path and sent to backends",
        take: |d, v| set(&mut d.parts.gateway.stage, checked(v, stage)),
        show: |d| shown(&d.parts.gateway.stage),
    },
    Flag {
        name: "gateway-route",
        takes: Takes::One("EXPRESSION"),
        fallback: Fallback::Off,
        help: "route selection expression, such as $request.body.action",
        take: |d, v| set(&mut d.parts.gateway.route, checked(v, expression)),
        show: |d| shown(&d.parts.gateway.route),
    },
    Flag {
        name: "gateway-routes",
        takes: Takes::One("KEY=URL,…"),
        fallback: Fallback::Off,
        help: "route keys, each with its own backend or, without URL, the default one",
        take: |d, v| set(&mut d.parts.gateway.routes, checked(v, routes)),
        show: |d| shown(&d.parts.gateway.routes),
    },
    Flag {
        name: "gateway-format",
        takes: Takes::One("FORMAT"),
        fallback: Fallback::Is("template"),
        help: "request body: template, proxy (the message as is) or event (as AWS)",
        take: |d, v| set(&mut d.parts.gateway.format, values::word(v, FORMS)),
        show: |d| named(FORMS, d.parts.gateway.format),
    },
    Flag {
        name: "gateway-time-scale",
        takes: Takes::One("N"),
        fallback: Fallback::Is("1"),
        help: "for tests: 60 shortens the lifetime of 2 h to 2 min, the idle timeout to 10 s",
        take: |d, v| set(&mut d.parts.gateway.time_scale, values::count(v, 7_200)),
        show: |d| d.parts.gateway.time_scale.to_string(),
    },
    Flag {
        name: "gateway-domain",
        takes: Takes::One("HOST|self"),
        fallback: Fallback::From { text: "Host at connect", source: "the client" },
        help: "domain name sent to backends; self: the address of --admin-listen",
        take: |d, v| set(&mut d.parts.gateway.domain, checked(v, domain)),
        show: |d| shown(&d.parts.gateway.domain),
    },
    Flag {
        name: "gateway-order",
        takes: Takes::One("on|off"),
        fallback: Fallback::Is("on"),
        help: "a client's messages one at a time; off: several at once, as AWS",
        take: |d, v| set(&mut d.parts.gateway.order, values::word(v, ORDERS)),
        show: |d| named(ORDERS, d.parts.gateway.order),
    },
    Flag {
        name: "gateway-reply",
        takes: Takes::One("on|off"),
        fallback: Fallback::Is("off"),
        help: "send the backend's response body to the client",
        take: |d, v| set(&mut d.parts.gateway.reply, values::word(v, SWITCH)),
        show: |d| named(SWITCH, d.parts.gateway.reply),
    },
    Flag {
        name: "gateway-binary",
        takes: Takes::One("on|off"),
        fallback: Fallback::Is("off"),
        help: "accept binary messages, as base64 in JSON; otherwise close with 1003",
        take: |d, v| set(&mut d.parts.gateway.binary, values::word(v, SWITCH)),
        show: |d| named(SWITCH, d.parts.gateway.binary),
    },
    Flag {
        name: "gateway-ca-file",
        takes: Takes::One("FILE"),
        fallback: Fallback::Off,
        help: "trust the CAs in this file (PEM) for https:// backends, not Mozilla's list",
        take: |d, v| set(&mut d.parts.gateway.ca_file, values::tls_file(v).map(|_| v.to_owned())),
        show: |d| shown(&d.parts.gateway.ca_file),
    },
    Flag {
        name: "gateway-token-file",
        takes: Takes::One("FILE"),
        fallback: Fallback::Off,
        help: "bearer token that callbacks require; re-read every minute",
        take: |d, v| set(&mut d.parts.gateway.token_file, file(v)),
        show: |d| shown(&d.parts.gateway.token_file),
    },
    Flag {
        name: "gateway-open",
        takes: Takes::Nothing,
        fallback: Fallback::Off,
        help: "without token and credentials, accept callbacks from any machine",
        take: |d, v| set(&mut d.parts.gateway.open, values::switch(v)),
        show: |d| named(SWITCH, d.parts.gateway.open),
    },
    Flag {
        name: "gateway-credentials-file",
        takes: Takes::One("FILE"),
        fallback: Fallback::Off,
        help: "AWS access keys for callbacks that are signed (SigV4) instead",
        take: |d, v| set(&mut d.parts.gateway.credentials_file, file(v)),
        show: |d| shown(&d.parts.gateway.credentials_file),
    },
    Flag {
        name: "gateway-hold",
        takes: Takes::One("TIME"),
        fallback: Fallback::Is("0s"),
        help: "how long messages and clients wait for a backend that cannot be reached",
        take: |d, v| set(&mut d.parts.gateway.hold_ms, hold(v)),
        show: |d| show_duration(d.parts.gateway.hold_ms),
    },
    Flag {
        name: "gateway-in-flight",
        takes: Takes::One("N"),
        fallback: Fallback::Is("1024"),
        help: "messages in flight to one address of a backend; further ones wait",
        take: |d, v| set(&mut d.parts.gateway.in_flight, values::count(v, IN_FLIGHT_MAX)),
        show: |d| d.parts.gateway.in_flight.to_string(),
    },
    Flag {
        name: PEER_KEY_FILE,
        takes: Takes::One("FILE"),
        fallback: Fallback::Off,
        help: "several replicas: 1 to 3 keys, the same for all; re-read every minute",
        take: |d, v| set(&mut d.parts.gateway.peer_key_file, file(v)),
        show: |d| shown(&d.parts.gateway.peer_key_file),
    },
    Flag {
        name: PEER_LISTEN,
        takes: Takes::One("ADDR"),
        fallback: Fallback::From { text: "[::]:8082", source: "--gateway-peer-key-file" },
        help: "address of the listener for other replicas",
        take: |d, v| set(&mut d.parts.gateway.peer_listen, peer_listen(v).map(Some)),
        show: |d| shown_or_none(d.parts.gateway.peer_listen.as_ref()),
    },
    Flag {
        name: ADVERTISE,
        takes: Takes::One("IP:PORT"),
        fallback: Fallback::From { text: "POD_IP, else --gateway-peer-listen", source: "POD_IP" },
        help: "address at which other replicas reach this one",
        take: |d, v| set(&mut d.parts.gateway.advertise, advertise(v).map(Some)),
        show: |d| shown_or_none(d.parts.gateway.advertise.as_ref()),
    },
];

/// Longer, and clients and proxies give up.
const HOLD_MS_MAX: u64 = 300_000;
const IN_FLIGHT_MAX: u64 = 65_536;

fn hold(text: &str) -> Read<u64> {
    match values::time_or_zero(text)? {
        ms if ms > HOLD_MS_MAX => Err("must be at most 5m".into()),
        ms => Ok(ms),
    }
}

const PEER_KEY_FILE: &str = "gateway-peer-key-file";
const PEER_LISTEN: &str = "gateway-peer-listen";
const ADVERTISE: &str = "gateway-advertise";

fn shown_or_none<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "none".to_owned(), T::to_string)
}

fn peer_listen(text: &str) -> Read<Listen> {
    match values::address(text)? {
        Address::Unix(_) => Err("must be an address and a port, such as [::]:8082".into()),
        address => Ok(address.listen(values::every_address)),
    }
}

fn advertise(text: &str) -> Read<SocketAddr> {
    let address = text.parse::<SocketAddr>().ok();
    address.filter(|at| !at.ip().is_unspecified() && at.port() != 0).ok_or_else(|| {
        "must be an IP address and a port that other replicas can connect to, such as \
         10.0.0.7:8082"
            .into()
    })
}

fn shown(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}

fn file(path: &str) -> Read<String> {
    if path.is_empty() { Err("must be a file".into()) } else { Ok(path.to_owned()) }
}

/// The text, if `read` accepts it.
fn checked<T>(text: &str, read: fn(&str) -> Read<T>) -> Read<String> {
    read(text).map(|_| text.to_owned())
}

fn backend(text: &str) -> Read<Backend> {
    Backend::parse(text)
}

fn expression(text: &str) -> Read<Expression> {
    Expression::parse(text)
}

/// Adds the mount and the plan.
pub(super) fn settle(filled: &mut Filled<Draft>, env: &Environment) -> Result<(), Usage> {
    let settings = filled.draft.parts.gateway.clone();
    if settings.backend.is_empty() {
        return check_without(filled);
    }
    let given = |name: &&&str| filled.was_given(options::flags::SERVE, name);
    if settings.peer_key_file.is_empty()
        && let Some(name) = [PEER_LISTEN, ADVERTISE].iter().find(given)
    {
        return Err(Usage::OfPart(format!("--{name} requires --gateway-peer-key-file FILE")));
    }
    // Each value was validated when its flag was read.
    let Ok(mut plan) = plan(&settings) else { return Ok(()) };
    plan.pod_ip = env.filled("POD_IP").and_then(|ip| ip.parse().ok());
    if !plan.ca_file.is_empty() && !plan.backends().any(|one| matches!(one.target, Target::Tls(_)))
    {
        return Err(Usage::Conflict("--gateway-ca-file requires a backend with https://"));
    }
    let serve = &mut filled.draft.serve;
    if let Some(admin) = serve.admin.as_ref().filter(|admin| !admin.is_local()) {
        let open = plan.check_admin(&admin.to_string());
        open.map_err(|why| Usage::OfPart(format!("--admin-listen: {why}")))?;
    }
    let path = format!("/gateway/{}", plan.stage);
    let mounts = &mut serve.server.mounts;
    if !mounts.iter().any(|mount| mount.path == path) {
        let text = format!("{path}={}?deflate=off", BEHAVIOUR.name);
        mounts.extend(Mount::parse(&text, &parts::catalogue()).ok());
    }
    serve.parts.push(Box::new(plan));
    Ok(())
}

fn plan(settings: &Settings) -> Read<Plan> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Ok(Plan {
        backend: backend(&settings.backend)?,
        stage: settings.stage.clone(),
        expression: some(&settings.route).as_deref().map(expression).transpose()?,
        routes: some(&settings.routes).as_deref().map_or(Ok(Vec::new()), routes)?,
        format: settings.format,
        domain: match &*settings.domain {
            "" => Domain::Host,
            SELF => Domain::OwnAdmin,
            named => Domain::Named(named.to_owned()),
        },
        pod_ip: None,
        peers: some(&settings.peer_key_file).map(|key_file| PeerPlan {
            key_file,
            listen: settings.peer_listen.clone().unwrap_or(Listen::Default { port: PEER_PORT }),
            advertise: settings.advertise,
            keys: None,
            identity: None,
        }),
        order: settings.order,
        reply: settings.reply,
        binary: settings.binary,
        time_scale: settings.time_scale,
        hold_ms: settings.hold_ms,
        in_flight: usize::try_from(settings.in_flight).unwrap_or(usize::MAX).max(1),
        connections_max: usize::MAX,
        open: settings.open,
        ca_file: settings.ca_file.clone(),
        token_file: settings.token_file.clone(),
        credentials_file: settings.credentials_file.clone(),
        draw: connection_id::counted,
    })
}

/// Rejects the other flags and mounts of the gateway.
fn check_without(filled: &Filled<Draft>) -> Result<(), Usage> {
    let given = |flag: &&Flag<Draft>| filled.was_given(options::flags::SERVE, flag.name);
    if let Some(flag) = FLAGS.iter().find(given) {
        let why = format!("--{} requires --gateway-backend URL", flag.name);
        return Err(Usage::OfPart(why));
    }
    let mounts = &filled.draft.serve.server.mounts;
    match mounts.iter().find(|mount| mount.entry.name == BEHAVIOUR.name) {
        Some(mount) => Err(Usage::OfPart(format!(
            "--mount {:?}: gateway requires --gateway-backend URL",
            mount.text
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(arguments: &str) -> String {
        let args = arguments.split_whitespace().map(Into::into);
        let parsed = options::parse(args, Vec::new(), &options::Surroundings::default());
        parsed.err().map(|usage| usage.to_string()).unwrap_or_default()
    }

    #[test]
    fn flags_of_replicas_need_a_key() {
        for (given, sentence) in [
            (
                "--gateway-peer-listen :0",
                "--gateway-peer-listen requires --gateway-peer-key-file FILE",
            ),
            (
                "--gateway-advertise 10.0.0.1:1",
                "--gateway-advertise requires --gateway-peer-key-file FILE",
            ),
        ] {
            assert_eq!(refusal(&format!("--gateway-backend http://h {given}")), sentence);
        }
        for given in ["0.0.0.0:1", "10.0.0.1:0", "host:1", "10.0.0.1", "[::]:1"] {
            let said = refusal(&format!("--gateway-backend http://h --gateway-advertise {given}"));
            assert!(said.contains("other replicas can connect to"), "{said}");
        }
        assert!(
            refusal("--gateway-backend http://h --gateway-peer-listen unix:/x").contains("8082")
        );
    }

    #[test]
    fn the_other_flags_need_a_backend() {
        for (flag, value) in [
            ("gateway-stage", "blue"),
            ("gateway-routes", "a=http://127.0.0.1:1"),
            ("gateway-order", "off"),
            ("gateway-reply", "on"),
            // The default value, but given explicitly.
            ("gateway-reply", "off"),
            ("gateway-time-scale", "60"),
            ("gateway-open", ""),
            ("gateway-peer-key-file", "keys"),
        ] {
            let sentence = format!("--{flag} requires --gateway-backend URL");
            assert_eq!(refusal(&format!("--{flag} {value}")), sentence);
        }
    }
}

//! The flags of `wspulse serve`, one row each. A new flag is a row here and a field in `serve.rs`;
//! its variable, its help, its line of `--print-config` and its row in the reference follow.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::serve::{Draft, Listen, LogFormat, Mode, Profile};
use super::table::{Fallback, Flag, Group, Table, Taken, Takes};
use super::values;
use crate::behaviours::Mount;
use crate::parts;
use crate::proto::forwarded::Range;
use crate::server::config::{DrainReady, Origins};
use crate::units::{show_duration, show_size};

pub(crate) const SERVE: &Table<Draft> = &Table {
    first: &[
        Group { title: "Addresses and paths", flags: ADDRESSES, brief: false },
        Group { title: "Limits", flags: MESSAGES, brief: false },
        Group { title: "", flags: LIMITS, brief: false },
        Group { title: "Stopping", flags: STOPPING, brief: false },
        Group { title: "Logs", flags: LOGS, brief: false },
    ],
    of_parts: parts::FLAGS,
    last: &[
        Group { title: "Fine tuning (see docs/REFERENCE.md)", flags: TIMEOUTS, brief: true },
        Group { title: "", flags: TUNING, brief: true },
        Group { title: "Information", flags: INFORMATION, brief: false },
    ],
};

const ADDRESSES: &[Flag<Draft>] = &[
    Flag {
        name: "listen",
        takes: Takes::Many("ADDR"),
        fallback: Fallback::Variable { name: "PORT", take: port, text: "[::]:8080" },
        help: "listen address: :80, [::1]:80, unix:/x; repeatable",
        take: listen,
        show: |d| joined(d.serve.listen.iter().map(Listen::to_string)),
    },
    Flag {
        name: "admin-listen",
        takes: Takes::One("ADDR|off"),
        fallback: Fallback::Is("127.0.0.1:8081"),
        help: "health, metrics and drain; keep it private",
        take: |d, v| set(&mut d.serve.admin, admin(v)),
        show: |d| d.serve.admin.as_ref().map_or_else(|| "off".to_owned(), Listen::to_string),
    },
    Flag {
        name: "tls-cert",
        takes: Takes::One("FILE"),
        fallback: Fallback::Off,
        help: "serve TLS on --listen with this certificate chain (PEM)",
        take: |d, v| set(&mut d.tls_cert, values::tls_file(v)),
        show: |d| shown_path(d.serve.tls.as_ref().map(|tls| &tls.cert)),
    },
    Flag {
        name: "tls-key",
        takes: Takes::One("FILE"),
        fallback: Fallback::Off,
        help: "the certificate's private key (PEM)",
        take: |d, v| set(&mut d.tls_key, values::tls_file(v)),
        show: |d| shown_path(d.serve.tls.as_ref().map(|tls| &tls.key)),
    },
    Flag {
        name: "mount",
        takes: Takes::Many("PATH=BEHAVIOUR"),
        fallback: Fallback::From { text: "", source: "the default table" },
        help: "add or replace a WebSocket path: /x=echo?delay=1s; repeatable",
        take: |d, v| mount(d, v),
        show: |d| joined(d.serve.server.mounts.iter().map(|mount| mount.text.clone())),
    },
    Flag {
        name: "assets",
        takes: Takes::One("DIR"),
        fallback: Fallback::Off,
        help: "serve this directory instead of the test page",
        take: |d, v| match v {
            "" => Err("must be a directory".into()),
            dir => set(&mut d.serve.assets, Ok(Some(dir.into()))),
        },
        show: |d| match &d.serve.assets {
            Some(dir) => visible(&dir.display().to_string()),
            None => "the test page".to_owned(),
        },
    },
    Flag {
        name: "origin",
        takes: Takes::Many("ORIGIN"),
        fallback: Fallback::Is("same"),
        help: "allowed origins: same, any or an origin; repeatable",
        take: |d, v| values::origin(v).map(|origin| d.origins.push(origin)),
        show: |d| match &d.serve.server.origins {
            Origins::Same => "same".to_owned(),
            Origins::Any => "any".to_owned(),
            Origins::Listed(listed) => format!("same {}", listed.join(" ")),
        },
    },
    Flag {
        name: "deflate",
        takes: Takes::One("on|off|LEVEL"),
        fallback: Fallback::From { text: "on", source: "the build" },
        help: "compress for clients that offer it; 1 fastest, 9 smallest",
        take: |d, v| set(&mut d.serve.server.deflate, values::compression(v)),
        show: |d| d.serve.server.deflate.to_string(),
    },
    Flag {
        name: "faults",
        takes: Takes::Nothing,
        fallback: Fallback::Off,
        help: "let clients inject faults: for tests, never in production",
        take: |d, v| set(&mut d.serve.server.faults, values::switch(v)),
        show: |d| on_off(d.serve.server.faults),
    },
];

const MESSAGES: &[Flag<Draft>] = &[Flag {
    name: "max-message",
    takes: Takes::One("SIZE"),
    fallback: Fallback::Is("1MiB"),
    help: "largest message, all fragments together",
    take: |d, v| set(&mut d.serve.server.limits.max_message, values::message_size(v)),
    show: |d| u64::try_from(d.serve.server.limits.max_message).map_or(String::new(), show_size),
}];

pub(crate) const LIMITS: &[Flag<Draft>] = &[
    Flag {
        name: "max-connections",
        takes: Takes::One("N|auto"),
        fallback: Fallback::Is("auto"),
        help: "maximum; auto: what descriptors and memory allow",
        take: |d, v| set(&mut d.serve.server.limits.max_connections, values::connections(v)),
        show: |d| match d.serve.server.limits.max_connections {
            0 => "auto".to_owned(),
            count => count.to_string(),
        },
    },
    Flag {
        name: "memory-limit",
        takes: Takes::One("SIZE|auto"),
        fallback: Fallback::Is("auto"),
        help: "memory limit; auto: the container's",
        take: |d, v| set(&mut d.serve.server.memory.limit, values::memory(v)),
        show: |d| d.serve.server.memory.limit.map_or_else(|| "auto".to_owned(), show_size),
    },
];

pub(crate) const TIMEOUTS: &[Flag<Draft>] = &[
    Flag {
        name: "head-timeout",
        takes: Takes::One("TIME"),
        fallback: Fallback::Is("10s"),
        help: "for receiving a complete request head",
        take: |d, v| set(&mut d.serve.server.limits.head_timeout_ms, values::time(v)),
        show: |d| show_duration(d.serve.server.limits.head_timeout_ms),
    },
    Flag {
        name: "keepalive-timeout",
        takes: Takes::One("TIME"),
        fallback: Fallback::Is("75s"),
        help: "between two requests on a connection",
        take: |d, v| set(&mut d.serve.server.limits.keepalive_timeout_ms, values::time(v)),
        show: |d| show_duration(d.serve.server.limits.keepalive_timeout_ms),
    },
    Flag {
        name: "send-timeout",
        takes: Takes::One("TIME"),
        fallback: Fallback::Is("30s"),
        help: "for a peer that stops reading while data is pending",
        take: |d, v| set(&mut d.serve.server.limits.send_timeout_ms, values::time(v)),
        show: |d| show_duration(d.serve.server.limits.send_timeout_ms),
    },
];

const TUNING: &[Flag<Draft>] = &[
    Flag {
        name: "base-path",
        takes: Takes::One("/PREFIX"),
        fallback: Fallback::Is(""),
        help: "serve everything under this prefix",
        take: |d, v| set(&mut d.serve.server.base_path, values::base_path(v)),
        show: |d| visible(&d.serve.server.base_path),
    },
    Flag {
        name: "admin-host",
        takes: Takes::Many("NAME"),
        fallback: Fallback::Off,
        help: "host name under which browsers may use the admin listener; repeatable",
        take: |d, v| values::host_name(v).map(|name| d.serve.server.admin_hosts.push(name)),
        show: |d| match &d.serve.server.admin_hosts[..] {
            [] => "none".to_owned(),
            names => names.join(" "),
        },
    },
    Flag {
        name: "trusted-proxies",
        takes: Takes::One("CIDR,…"),
        fallback: Fallback::Off,
        help: "proxies whose X-Forwarded-For names the client",
        take: |d, v| set(&mut d.serve.server.trusted_proxies, values::ranges(v)),
        show: |d| match &d.serve.server.trusted_proxies[..] {
            [] => "none".to_owned(),
            ranges => ranges.iter().map(Range::to_string).collect::<Vec<_>>().join(","),
        },
    },
    Flag {
        name: "proxy-protocol",
        takes: Takes::Nothing,
        fallback: Fallback::Off,
        help: "expect a PROXY header, version 1 or 2, from trusted proxies",
        take: |d, v| set(&mut d.serve.proxy_protocol, values::switch(v)),
        show: |d| on_off(d.serve.proxy_protocol),
    },
    Flag {
        name: "reuse-port",
        takes: Takes::Nothing,
        fallback: Fallback::Off,
        help: "share the port with other processes (SO_REUSEPORT)",
        take: |d, v| set(&mut d.serve.reuse_port, values::switch(v)),
        show: |d| on_off(d.serve.reuse_port),
    },
    Flag {
        name: "max-age",
        takes: Takes::One("TIME"),
        fallback: Fallback::Is("0s"),
        help: "close WebSockets of this age, to spread load again; 0: never",
        take: |d, v| set(&mut d.serve.server.max_age.ms, values::time_or_zero(v)),
        show: |d| show_duration(d.serve.server.max_age.ms),
    },
    Flag {
        name: "max-age-jitter",
        takes: Takes::One("PERCENT"),
        fallback: Fallback::Is("10%"),
        help: "randomize --max-age by this much, so closes are spread out",
        take: |d, v| set(&mut d.serve.server.max_age.jitter_percent, values::percent(v)),
        show: |d| format!("{}%", d.serve.server.max_age.jitter_percent),
    },
    Flag {
        name: "ping-interval",
        takes: Takes::One("TIME"),
        fallback: Fallback::Is("20s"),
        help: "between two pings, randomized by a fifth; 0 sends none",
        take: |d, v| set(&mut d.serve.server.limits.ping_interval_ms, values::time_or_zero(v)),
        show: |d| show_duration(d.serve.server.limits.ping_interval_ms),
    },
    Flag {
        name: "pong-timeout",
        takes: Takes::One("TIME"),
        fallback: Fallback::Is("20s"),
        help: "for any data from the client after a ping",
        take: |d, v| set(&mut d.serve.server.limits.pong_timeout_ms, values::time(v)),
        show: |d| show_duration(d.serve.server.limits.pong_timeout_ms),
    },
    Flag {
        name: "drain-code",
        takes: Takes::One("CODE"),
        fallback: Fallback::Is("1001"),
        help: "close code of a drained WebSocket",
        take: |d, v| set(&mut d.serve.server.drain.code, values::close_code(v)),
        show: |d| d.serve.server.drain.code.to_string(),
    },
    Flag {
        name: "drain-reason",
        takes: Takes::One("TEXT"),
        fallback: Fallback::Is("draining"),
        help: "close reason of a drained WebSocket; may be empty",
        take: |d, v| set(&mut d.serve.server.drain.reason, values::close_reason(v)),
        show: |d| visible(&d.serve.server.drain.reason),
    },
    Flag {
        name: "drain-ready",
        takes: Takes::One("fail|keep"),
        fallback: Fallback::Is("fail"),
        help: "/readyz while draining: fail or keep; keep suits a single replica",
        take: |d, v| set(&mut d.serve.server.drain.ready, values::word(v, READY)),
        show: |d| named(READY, d.serve.server.drain.ready),
    },
    Flag {
        name: "log-payloads",
        takes: Takes::Nothing,
        fallback: Fallback::Off,
        help: "log message payloads, truncated and escaped",
        take: |d, v| set(&mut d.serve.server.log_payloads, values::switch(v)),
        show: |d| on_off(d.serve.server.log_payloads),
    },
];

pub(crate) const STOPPING: &[Flag<Draft>] = &[
    Flag {
        name: "profile",
        takes: Takes::One("NAME"),
        fallback: Fallback::Is("auto"),
        help: "defaults of the drain times: kubernetes, plain or auto",
        take: |d, v| set(&mut d.profile, values::word(v, PROFILES)),
        show: |d| match (d.profile, d.serve.profile) {
            (Some(Profile::Kubernetes), _) => "kubernetes".to_owned(),
            (Some(Profile::Plain), _) => "plain".to_owned(),
            (None, Profile::Kubernetes) => "auto (kubernetes)".to_owned(),
            (None, Profile::Plain) => "auto (plain)".to_owned(),
        },
    },
    Flag {
        name: "drain-delay",
        takes: Takes::One("TIME"),
        fallback: Fallback::From { text: "5s, plain 0s", source: "--profile" },
        help: "time after SIGTERM: not ready, but still serving",
        take: |d, v| set(&mut d.delay_ms, values::time_or_zero(v).map(Some)),
        show: |d| show_duration(d.serve.server.drain.delay_ms),
    },
    Flag {
        name: "drain-window",
        takes: Takes::One("TIME"),
        fallback: Fallback::From { text: "15s, plain 3s", source: "--profile" },
        help: "time over which connections are closed",
        take: |d, v| set(&mut d.window_ms, values::time_or_zero(v).map(Some)),
        show: |d| show_duration(d.serve.server.drain.window_ms),
    },
    Flag {
        name: "drain-timeout",
        takes: Takes::One("TIME"),
        fallback: Fallback::From { text: "25s, plain 8s", source: "--profile" },
        help: "time from SIGTERM to the hard stop",
        take: |d, v| set(&mut d.timeout_ms, values::time(v).map(Some)),
        show: |d| show_duration(d.serve.server.drain.timeout_ms),
    },
];

pub(crate) const LOGS: &[Flag<Draft>] = &[
    Flag {
        name: "log-level",
        takes: Takes::One("LEVEL"),
        fallback: Fallback::Variable {
            name: "RUST_LOG",
            take: |d, v| set(&mut d.serve.log.filter, Ok(v.to_owned())),
            text: "info",
        },
        help: "error, warn, info, debug, trace or off",
        take: |d, v| {
            let level = values::word(v, LEVELS).map(|()| v.to_owned());
            set(&mut d.serve.log.filter, level)
        },
        show: |d| visible(&d.serve.log.filter),
    },
    Flag {
        name: "log-format",
        takes: Takes::One("FORMAT"),
        fallback: Fallback::Is("auto"),
        help: "text, json or auto: text on a terminal, else json",
        take: |d, v| set(&mut d.serve.log.format, values::word(v, FORMATS)),
        show: |d| named(FORMATS, d.serve.log.format),
    },
];

pub(crate) const INFORMATION: &[Flag<Draft>] = &[
    Flag {
        name: "print-config",
        takes: Takes::Nothing,
        fallback: Fallback::Off,
        help: "print every setting and its source, and the fixed limits; then exit",
        take: |d, v| mode(d, v, Mode::Print),
        show: |_| String::new(),
    },
    Flag {
        name: "check",
        takes: Takes::Nothing,
        fallback: Fallback::Off,
        help: "check the settings, then exit",
        take: |d, v| mode(d, v, Mode::Check),
        show: |_| String::new(),
    },
];

const PROFILES: &[(&str, Option<Profile>)] =
    &[("auto", None), ("kubernetes", Some(Profile::Kubernetes)), ("plain", Some(Profile::Plain))];
const READY: &[(&str, DrainReady)] = &[("fail", DrainReady::Fail), ("keep", DrainReady::Keep)];
const FORMATS: &[(&str, LogFormat)] =
    &[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
const LEVELS: &[(&str, ())] =
    &[("error", ()), ("warn", ()), ("info", ()), ("debug", ()), ("trace", ()), ("off", ())];

pub(crate) fn set<T>(place: &mut T, value: Result<T, std::borrow::Cow<'static, str>>) -> Taken {
    value.map(|value| *place = value)
}

pub(crate) fn listen(d: &mut Draft, v: &str) -> Taken {
    let listen = values::address(v)?.listen(values::every_address);
    if !listen.is_any_port() && d.serve.listen.contains(&listen) {
        return Err("is given twice: leave one out".into());
    }
    d.serve.listen.push(listen);
    Ok(())
}

/// The main listener of a `PORT`.
pub(crate) fn port(d: &mut Draft, v: &str) -> Taken {
    set(&mut d.serve.listen, values::port(v).map(|port| vec![values::every_address(port)]))
}

/// A bare port means the loopback: the admin listener must not be public by accident.
pub(crate) fn admin(text: &str) -> Result<Option<Listen>, std::borrow::Cow<'static, str>> {
    if text == "off" {
        return Ok(None);
    }
    let address = values::address(text).map_err(|why| format!("{why}, or off"))?;
    let loopback = |port| Listen::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    Ok(Some(address.listen(loopback)))
}

/// Adds a mount, or replaces the default mount of the same path.
fn mount(draft: &mut Draft, text: &str) -> Taken {
    let new = Mount::parse(text, &parts::catalogue())?;
    let mounts = &mut draft.serve.server.mounts;
    match mounts.iter_mut().find(|old| old.path == new.path) {
        Some(old) if old.is_default => *old = new,
        Some(_) => return Err(format!("{} is mounted twice: leave one out", new.path).into()),
        None => mounts.push(new),
    }
    Ok(())
}

/// `--print-config` includes `--check`, so it wins.
fn mode(draft: &mut Draft, text: &str, mode: Mode) -> Taken {
    if values::switch(text)? && draft.mode != Mode::Print {
        draft.mode = mode;
    }
    Ok(())
}

pub(crate) fn on_off(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

fn shown_path(path: Option<&PathBuf>) -> String {
    path.map_or_else(|| "none".to_owned(), |path| visible(&path.display().to_string()))
}

/// Quotes text that is empty or has control characters.
pub(crate) fn visible(text: &str) -> String {
    let plain = !text.is_empty() && !text.chars().any(char::is_control);
    if plain { text.to_owned() } else { format!("{text:?}") }
}

pub(crate) fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(" ")
}

pub(crate) fn named<T: PartialEq + Copy>(words: &[(&str, T)], value: T) -> String {
    let found = words.iter().find(|(_, v)| *v == value);
    found.map_or(String::new(), |(name, _)| (*name).to_owned())
}

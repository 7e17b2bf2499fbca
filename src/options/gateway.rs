//! The flags of the gateway: where its backend is and how it speaks to it. Without a backend they
//! mean nothing.

use std::borrow::Cow;

use super::serve::{Draft, Serve};
use super::table::{Fallback, Flag, Takes};
use super::{Usage, values};
use crate::behaviours::GATEWAY;
#[cfg(feature = "gateway")]
use crate::behaviours::Mount;
use crate::server::config::Config;

type Read<T> = Result<T, Cow<'static, str>>;

/// What is asked for, as it was written where that can only be read in a build with a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GatewayWish {
    backend: String,
    stage: String,
    route: String,
    routes: String,
    format: Form,
    domain: String,
    reply: bool,
    binary: bool,
    time_scale: u64,
    token_file: String,
    credentials_file: String,
    open: bool,
}

/// What a request looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Template,
    Proxy,
    Event,
}

const FORMS: &[(&str, Form)] =
    &[("template", Form::Template), ("proxy", Form::Proxy), ("event", Form::Event)];
const SWITCH: &[(&str, bool)] = &[("on", true), ("off", false)];

/// Beside the others: what everyone needs.
pub(super) const BACKEND: Flag<Draft> = Flag {
    name: "gateway-backend",
    takes: Takes::One("URL"),
    fallback: Fallback::Off,
    help: "messages of /gateway/STAGE become HTTP requests to this; see the README",
    take: |d, v| set(&mut d.gateway.backend, checked(v, backend)),
    show: |d| shown(&d.gateway.backend),
};

pub(super) const FLAGS: &[Flag<Draft>] = &[
    Flag {
        name: "gateway-stage",
        takes: Takes::One("NAME"),
        fallback: Fallback::Is("prod"),
        help: "name of the gateway's stage: its path, and what backends are told",
        take: |d, v| set(&mut d.gateway.stage, checked(v, stage)),
        show: |d| shown(&d.gateway.stage),
    },
    Flag {
        name: "gateway-route",
        takes: Takes::One("EXPRESSION"),
        fallback: Fallback::Off,
        help: "what of a message says its route, such as $request.body.action",
        take: |d, v| set(&mut d.gateway.route, checked(v, expression)),
        show: |d| shown(&d.gateway.route),
    },
    Flag {
        name: "gateway-routes",
        takes: Takes::One("KEY=URL,…"),
        fallback: Fallback::Off,
        help: "routes, each with a backend of its own, or a key alone for the usual one",
        take: |d, v| set(&mut d.gateway.routes, checked(v, routes)),
        show: |d| shown(&d.gateway.routes),
    },
    Flag {
        name: "gateway-format",
        takes: Takes::One("FORMAT"),
        fallback: Fallback::Is("template"),
        help: "what backends get: template, proxy (the message as it is) or event (as AWS)",
        take: |d, v| set(&mut d.gateway.format, values::word(v, FORMS)),
        show: |d| word(FORMS, d.gateway.format),
    },
    Flag {
        name: "gateway-domain",
        takes: Takes::One("HOST"),
        fallback: Fallback::From { text: "Host at connect", source: "the client" },
        help: "domain that backends are told",
        take: |d, v| set(&mut d.gateway.domain, checked(v, domain)),
        show: |d| shown(&d.gateway.domain),
    },
    Flag {
        name: "gateway-reply",
        takes: Takes::One("on|off"),
        fallback: Fallback::Is("off"),
        help: "send the body of a backend's answer back to the client",
        take: |d, v| set(&mut d.gateway.reply, values::word(v, SWITCH)),
        show: |d| word(SWITCH, d.gateway.reply),
    },
    Flag {
        name: "gateway-binary",
        takes: Takes::One("on|off"),
        fallback: Fallback::Is("off"),
        help: "take binary messages, as base64 where JSON is sent; else they end with 1003",
        take: |d, v| set(&mut d.gateway.binary, values::word(v, SWITCH)),
        show: |d| word(SWITCH, d.gateway.binary),
    },
    Flag {
        name: "gateway-time-scale",
        takes: Takes::One("N"),
        fallback: Fallback::Is("1"),
        help: "for tests: 60 makes the life of 2 h two minutes, and the idle 10 min 10 s",
        take: |d, v| set(&mut d.gateway.time_scale, values::count(v, 7_200)),
        show: |d| d.gateway.time_scale.to_string(),
    },
    Flag {
        name: "gateway-token-file",
        takes: Takes::One("FILE"),
        fallback: Fallback::Off,
        help: "token that callbacks need, in Authorization: Bearer; read again each minute",
        take: |d, v| set(&mut d.gateway.token_file, file(v)),
        show: |d| shown(&d.gateway.token_file),
    },
    Flag {
        name: "gateway-credentials-file",
        takes: Takes::One("FILE"),
        fallback: Fallback::Off,
        help: "access keys whose signatures (SigV4) callbacks may have instead",
        take: |d, v| set(&mut d.gateway.credentials_file, file(v)),
        show: |d| shown(&d.gateway.credentials_file),
    },
    Flag {
        name: "gateway-open",
        takes: Takes::Nothing,
        fallback: Fallback::Off,
        help: "without either, take callbacks from other machines as well",
        take: |d, v| set(&mut d.gateway.open, values::switch(v)),
        show: |d| word(SWITCH, d.gateway.open),
    },
];

fn set<T>(place: &mut T, value: Read<T>) -> Read<()> {
    value.map(|value| *place = value)
}

fn shown(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}

fn word<T: PartialEq + Copy>(words: &[(&str, T)], value: T) -> String {
    let found = words.iter().find(|(_, v)| *v == value);
    found.map_or(String::new(), |(name, _)| (*name).to_owned())
}

fn file(path: &str) -> Read<String> {
    if path.is_empty() { Err("must be a file".into()) } else { Ok(path.to_owned()) }
}

/// The text, if it can be read.
fn checked<T>(text: &str, read: fn(&str) -> Read<T>) -> Read<String> {
    read(text).map(|_| text.to_owned())
}

#[cfg(feature = "gateway")]
use super::OpenCallbacks;
#[cfg(feature = "gateway")]
use crate::gateway::plan::{Backend, domain, routes, stage};
#[cfg(feature = "gateway")]
use crate::gateway::{Expression, Format, Plan, names};

#[cfg(feature = "gateway")]
fn backend(text: &str) -> Read<Backend> {
    Backend::parse(text)
}

#[cfg(feature = "gateway")]
fn expression(text: &str) -> Read<Expression> {
    Expression::parse(text)
}

/// Adds the mount, and tells the server what it needs.
#[cfg(feature = "gateway")]
pub(super) fn settle(wish: &GatewayWish, serve: &mut Serve) -> Result<(), Usage> {
    let Serve { server, admin, .. } = serve;
    if wish.backend.is_empty() {
        return check_mounts(server);
    }
    let plan = || -> Read<Plan> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(Plan {
            backend: backend(&wish.backend)?,
            stage: wish.stage.clone(),
            expression: some(&wish.route).as_deref().map(expression).transpose()?,
            routes: some(&wish.routes).as_deref().map_or(Ok(Vec::new()), routes)?,
            format: match wish.format {
                Form::Template => Format::Template,
                Form::Proxy => Format::Proxy,
                Form::Event => Format::Event,
            },
            domain: some(&wish.domain),
            reply: wish.reply,
            binary: wish.binary,
            time_scale: wish.time_scale,
            open: wish.open,
            token_file: wish.token_file.clone(),
            credentials_file: wish.credentials_file.clone(),
            draw: names::counted,
        })
    };
    // Each of them was read before.
    let Ok(plan) = plan() else { return Ok(()) };
    if let Some(admin) = admin.as_ref().filter(|admin| !admin.is_local())
        && !plan.checks_callers()
    {
        return Err(Usage::OpenCallbacks(OpenCallbacks(admin.to_string())));
    }
    let path = format!("/gateway/{}", plan.stage);
    if !server.mounts.iter().any(|mount| mount.path == path)
        && let Ok(mount) = Mount::parse(&format!("{path}={GATEWAY}?deflate=off"))
    {
        server.mounts.push(mount);
    }
    server.gateway = Some(Box::new(plan));
    Ok(())
}

#[cfg(not(feature = "gateway"))]
fn backend(_: &str) -> Read<()> {
    Err("this build has no gateway".into())
}

#[cfg(not(feature = "gateway"))]
use {unread as domain, unread as expression, unread as routes, unread as stage};

#[cfg(not(feature = "gateway"))]
#[expect(clippy::unnecessary_wraps, reason = "the real ones can fail")]
fn unread(_: &str) -> Read<()> {
    Ok(())
}

#[cfg(not(feature = "gateway"))]
pub(super) fn settle(_: &GatewayWish, serve: &mut Serve) -> Result<(), Usage> {
    check_mounts(&serve.server)
}

/// The others mean nothing without a backend, so whoever gives one has forgotten it.
pub(super) fn check(draft: &Draft) -> Result<(), Usage> {
    let is_given = |flag: &&Flag<Draft>| {
        ![flag.default_text(), "none", "off"].contains(&(flag.show)(draft).as_str())
    };
    match FLAGS.iter().find(is_given) {
        Some(flag) if draft.gateway.backend.is_empty() => {
            Err(Usage::GatewayWithout { flag: flag.name })
        }
        _ => Ok(()),
    }
}

/// A mount of the gateway means nothing without a backend.
fn check_mounts(server: &Config) -> Result<(), Usage> {
    match server.mounts.iter().find(|mount| mount.entry.name == GATEWAY) {
        Some(mount) => Err(Usage::NeedsBackend { mount: mount.text.clone() }),
        None => Ok(()),
    }
}

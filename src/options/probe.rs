//! The options of `wspulse probe`: the destination, which experiments, and the report.

use std::ffi::OsString;
use std::path::PathBuf;

use super::destination::Goal;
use super::help::{self, Page};
use super::load::Form;
use super::proxies::Proxies;
use super::read::{self, Environment, Given};
use super::table::{Fallback, Flag, Group, Table, Takes, row};
use super::upgrade::{Flags, HasUpgradeFlags, UpgradeFlags};
use super::values;
use super::{Command, Surroundings, Usage, every_flag};
use crate::engine::Target;
use crate::probe::{Drain, Plan, Severity};
use crate::proto::url::{Parts, Protocol, Scheme};

pub(super) const PAGE: Page = Page {
    about: "find out what a path does to WebSockets, and which hop does it",
    synopsis: "usage: wspulse probe URL [OPTIONS]
URL is ws://HOST[:PORT][/PATH][?QUERY] or wss://…, of a wspulse that echoes there. It opens sockets
side by side, compares what arrives with what was sent, and takes about 70 s; --quick 2 s.
Ctrl-C stops early and prints what is known.",
    foot: "Exit code: 0; 3 for findings, see --fail-on; 4 if interrupted without one; 1 if nothing
answered; 2 for a usage error.
Every flag has an environment variable: --patience is WSPULSE_PATIENCE. The flag wins.
HTTP_PROXY, HTTPS_PROXY and NO_PROXY are honoured.\n",
};

pub(super) const FLAGS: &Table<Draft> = &Table::of(&[
    Group { title: "Experiments", flags: WORK, brief: false },
    Group { title: "Connection", flags: Flags::<Draft>::ALL, brief: false },
    Group { title: "Report", flags: REPORT, brief: false },
]);

const WORK: &[Flag<Draft>] = &[
    row("quick", Takes::Nothing, Fallback::Off, "only what needs no waiting", |d, v| {
        d.quick = values::switch(v)?;
        Ok(())
    }),
    row(
        "patience",
        Takes::One("TIME"),
        Fallback::Is("70s"),
        "how long idle sockets are watched, from 2s to 20m",
        |d, v| {
            let ms = values::time(v)?;
            d.patience_ms = if PATIENCE_MS.contains(&ms) { ms } else { Err(PATIENCE_FORM)? };
            Ok(())
        },
    ),
    row(
        "any",
        Takes::Nothing,
        Fallback::Off,
        "the far end is some echo server: fewer experiments",
        |d, v| {
            d.any = values::switch(v)?;
            Ok(())
        },
    ),
    row(
        "drain",
        Takes::One("URL"),
        Fallback::Off,
        "at last drain the server with this admin listener: http://HOST:PORT",
        |d, v| {
            Parts::read(v, Protocol::Http).map_err(|flaw| flaw.clause(ADMIN_FORM))?;
            d.drain = Some(v.to_owned());
            Ok(())
        },
    ),
    row("sockets", Takes::One("N"), Fallback::Is("64"), "sockets opened at once", |d, v| {
        d.sockets = values::count(v, SOCKETS_MAX)? as usize;
        Ok(())
    }),
];

const REPORT: &[Flag<Draft>] = &[
    row("json", Takes::Nothing, Fallback::Off, "print the report as one line of JSON", |d, v| {
        d.form = if values::switch(v)? { Form::Json } else { Form::Page };
        Ok(())
    }),
    row(
        "junit",
        Takes::One("FILE"),
        Fallback::Off,
        "also write the report to this file as JUnit XML",
        |d, v| {
            d.junit = Some(PathBuf::from(v));
            Ok(())
        },
    ),
    row(
        "fail-on",
        Takes::One("SEVERITY"),
        Fallback::Is("error"),
        "least severity for exit code 3: error or warning",
        |d, v| {
            d.fail_on = match v {
                "error" => Severity::Error,
                "warning" => Severity::Warning,
                _ => Err("must be error or warning")?,
            };
            Ok(())
        },
    ),
];

const PATIENCE_MS: core::ops::RangeInclusive<u64> = 2_000..=1_200_000;
const PATIENCE_FORM: &str = "must be a time from 2s to 20m";
const ADMIN_FORM: &str = "must be http://HOST[:PORT][/PATH] of an admin listener";
/// A wspulse accepts more sockets that count than this.
const SOCKETS_MAX: u64 = 200;
/// The path that starts a drain.
const DRAIN_PATH: &str = "/drain";

/// The options of `wspulse probe`.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Resolved by the caller into the plan's target.
    pub goal: Goal,
    /// The rest.
    pub plan: Plan,
    /// The format of the report.
    pub form: Form,
    /// Where to write it as `JUnit` XML.
    pub junit: Option<PathBuf>,
    /// Least severity for exit code 3.
    pub fail_on: Severity,
}

pub(super) struct Draft {
    upgrade: UpgradeFlags,
    quick: bool,
    patience_ms: u64,
    any: bool,
    drain: Option<String>,
    sockets: usize,
    form: Form,
    junit: Option<PathBuf>,
    fail_on: Severity,
}

impl HasUpgradeFlags for Draft {
    fn upgrade(&mut self) -> &mut UpgradeFlags {
        &mut self.upgrade
    }
}

/// Parses the arguments after `wspulse probe`.
#[cfg(feature = "tools")]
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
    if given.contains_key("quick") && given.contains_key("patience") {
        return Err(Usage::Conflict("--quick waits for nothing: leave out --patience"));
    }
    let draft = Draft {
        upgrade: UpgradeFlags::default(),
        quick: false,
        patience_ms: 0,
        any: false,
        drain: None,
        sockets: 0,
        form: Form::Page,
        junit: None,
        fail_on: Severity::Error,
    };
    let draft = read::fill(FLAGS, given, env, draft)?.draft;
    let [url] = &words[..] else {
        return Err(Usage::Conflict("probe needs a URL: wspulse probe ws://localhost:8080/echo"));
    };
    settle(draft, url, env).map(|probe| Command::Probe(Box::new(probe)))
}

fn settle(draft: Draft, url: &str, env: &Environment) -> Result<Probe, Usage> {
    if draft.any && draft.drain.is_some() {
        return Err(Usage::Conflict("--any asks nothing of the far end: leave out --drain"));
    }
    let drain = draft.drain.as_deref().map(|url| drain(url, env)).transpose()?;
    let (url, goal, ask) = draft.upgrade.settle(url, env)?;
    let query = ask.path.split_once('?').map_or("", |(_, query)| query);
    if query.split('&').any(|parameter| parameter.starts_with("probe=")) {
        return Err(Usage::Conflict("leave probe= out of the URL: it is added where it is needed"));
    }
    let target = goal.targets[0].clone();
    let name = match &target {
        Target::Name { host, port } => Some((host.clone(), *port)),
        _ => None,
    };
    let plan = Plan {
        target,
        url: url.text,
        ask,
        name,
        quick: draft.quick,
        patience_ms: draft.patience_ms,
        any: draft.any,
        sockets: draft.sockets,
        drain,
        live: false,
    };
    let Draft { form, junit, fail_on, .. } = draft;
    Ok(Probe { goal, plan, form, junit, fail_on })
}

fn drain(url: &str, env: &Environment) -> Result<Drain, Usage> {
    let bad = |why: &str| Usage::BadValue {
        name: "--drain".to_owned(),
        value: url.to_owned(),
        why: why.to_owned(),
    };
    let parts = Parts::read(url, Protocol::Http).map_err(|flaw| bad(flaw.clause(ADMIN_FORM)))?;
    if parts.scheme == Scheme::Secured {
        return Err(bad("must begin with http://: the admin listener has no TLS"));
    }
    let target = Proxies::new(env).route(&parts.server, parts.scheme)?;
    let path = if matches!(parts.path, "" | "/") { DRAIN_PATH } else { parts.path };
    Ok(Drain { target, host: parts.server.to_string(), path: path.to_owned() })
}

#[cfg(all(test, feature = "tools"))]
mod tests {
    use super::super::parse;
    use super::*;

    fn probed(args: &str) -> Result<Probe, String> {
        let args = ["probe"].into_iter().chain(args.split_whitespace()).map(OsString::from);
        match parse(args, Vec::new(), &Surroundings::default()) {
            Ok(Command::Probe(probe)) => Ok(*probe),
            Ok(other) => panic!("{other:?}"),
            Err(usage) => Err(usage.to_string()),
        }
    }

    #[test]
    fn flags_reach_the_plan() {
        let Probe { plan, fail_on, .. } = probed("ws://h/echo").unwrap();
        assert_eq!((plan.patience_ms, plan.sockets, plan.quick), (70_000, 64, false));
        assert_eq!((plan.name, fail_on), (Some(("h".into(), 80)), Severity::Error));
        let flags = "ws://10.0.0.1/ --patience 20m --any --sockets 3 --fail-on warning --json";
        let Probe { plan, fail_on, form, .. } = probed(flags).unwrap();
        assert_eq!((plan.patience_ms, plan.sockets, plan.any), (1_200_000, 3, true));
        assert_eq!((plan.name, fail_on, form), (None, Severity::Warning, Form::Json));
        let drain = probed("ws://h --drain http://[::1]:9").unwrap().plan.drain.unwrap();
        assert_eq!((&*drain.host, &*drain.path), ("[::1]:9", "/drain"));
    }

    #[test]
    fn invalid_flags_and_values() {
        for (args, why) in [
            ("", "probe needs a URL: wspulse probe ws://localhost:8080/echo"),
            ("ws://h ws://i", "unexpected argument \"ws://i\""),
            ("ws://h --patience 1s", "--patience \"1s\": must be a time from 2s to 20m"),
            ("ws://h --patience 21m", "--patience \"21m\": must be a time from 2s to 20m"),
            ("ws://h --fail-on all", "--fail-on \"all\": must be error or warning"),
            ("ws://h --quick --patience 9s", "--quick waits for nothing: leave out --patience"),
            (
                "ws://h --any --drain http://h",
                "--any asks nothing of the far end: leave out --drain",
            ),
            ("ws://h/?a&probe=1", "leave probe= out of the URL: it is added where it is needed"),
            ("ws://h --sockets 201", "--sockets \"201\": must be a number from 1 to 200"),
        ] {
            assert_eq!(probed(args).unwrap_err(), why, "{args}");
        }
    }
}

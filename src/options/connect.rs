//! The options of `wspulse connect`: the destination, and when to close.

use std::ffi::OsString;

use super::help::{self, Page};
use super::read::{self, Environment, Given};
use super::table::{Fallback, Group, Table, Takes, row};
use super::upgrade::{Flags, HasUpgradeFlags, UpgradeFlags};
use super::values;
use super::{Command, Goal, Surroundings, Usage, every_flag};
use crate::connect::Plan;
use crate::proto::secrets::masked_url;

pub(super) const PAGE: Page = Page {
    about: "interactive WebSocket client",
    synopsis: "usage: wspulse connect URL [OPTIONS]
URL is ws://HOST[:PORT][/PATH][?QUERY] or wss://…. Each line of standard input is sent as a text
message. Ctrl-D closes with 1000.",
    foot: "Exit code: 0 if closed with 1000 or 1001, 2 for a usage error, else 1.
Every flag has an environment variable: --wait is WSPULSE_WAIT. The flag wins.
HTTP_PROXY, HTTPS_PROXY and NO_PROXY are honoured.\n",
};

pub(super) const FLAGS: &Table<Draft> = &Table::of(&[
    Group {
        title: "Session",
        flags: &[
            row(
                "wait",
                Takes::One("TIME"),
                Fallback::From { text: "until answered, at most 1s", source: "input" },
                "listening time after the last line",
                |d, v| {
                    d.wait_ms = Some(values::time_or_zero(v)?);
                    Ok(())
                },
            ),
            row(
                "ping",
                Takes::One("TIME"),
                Fallback::Off,
                "ping at this interval and show the round-trip times",
                |d, v| {
                    d.ping_ms = Some(values::time(v)?);
                    Ok(())
                },
            ),
            row(
                "close",
                Takes::One("CODE [REASON]"),
                Fallback::Is("1000"),
                "close code and reason to send: --close 4000 'going home'",
                |d, v| {
                    d.code = values::close_code(v)?;
                    Ok(())
                },
            ),
            row(
                "timeout",
                Takes::One("TIME"),
                Fallback::Is("10s"),
                "for connecting, the upgrade, and the server's Close, each",
                |d, v| {
                    d.patience_ms = values::time(v)?;
                    Ok(())
                },
            ),
        ],
        brief: false,
    },
    Group { title: "Connection", flags: Flags::<Draft>::ALL, brief: false },
]);

/// The options of `wspulse connect`.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Resolved by the caller into the plan's targets.
    pub goal: Goal,
    /// The rest; its `targets` are empty.
    pub plan: Plan,
}

pub(super) struct Draft {
    upgrade: UpgradeFlags,
    wait_ms: Option<u64>,
    ping_ms: Option<u64>,
    code: u16,
    patience_ms: u64,
}

impl HasUpgradeFlags for Draft {
    fn upgrade(&mut self) -> &mut UpgradeFlags {
        &mut self.upgrade
    }
}

/// Parses the arguments after `wspulse connect`.
#[cfg(feature = "tools")]
pub(super) fn parse(
    args: Vec<OsString>,
    env: &Environment,
    _: &Surroundings,
) -> Result<Command, Usage> {
    let (given, mut words) = match read::args(&read::known(FLAGS), args, 2)? {
        Given::Help => return Ok(Command::Print(help::screen(&PAGE, FLAGS))),
        Given::Version => return Ok(Command::Print(help::version())),
        Given::Values { flags, words } => (flags, words),
    };
    env.check(&every_flag())?;
    let closes = given.contains_key("close");
    let upgrade = UpgradeFlags::default();
    let draft = Draft { upgrade, wait_ms: None, ping_ms: None, code: 0, patience_ms: 0 };
    let draft = read::fill(FLAGS, given, env, draft)?.draft;
    if words.is_empty() {
        return Err(Usage::Conflict(
            "connect needs a URL: wspulse connect ws://localhost:8080/echo",
        ));
    }
    // `REASON` of `--close CODE REASON` may precede or follow the URL.
    let url = words.remove(words.iter().position(|word| word.contains("://")).unwrap_or(0));
    let reason = match words.pop() {
        None => String::new(),
        Some(word) if !closes => return Err(Usage::Unexpected(word)),
        Some(reason) => values::close_reason(&reason).map_err(|why| Usage::BadValue {
            name: "--close".to_owned(),
            value: reason.clone(),
            why: why.into(),
        })?,
    };
    let (url, goal, ask) = draft.upgrade.settle(&url, env)?;
    let plan = Plan {
        targets: Vec::new(),
        url: masked_url(&url.text).into_owned(),
        ask,
        wait_ms: draft.wait_ms,
        ping_ms: draft.ping_ms,
        code: draft.code,
        reason,
        patience_ms: draft.patience_ms,
        prompt: None,
    };
    Ok(Command::Connect(Box::new(Connect { goal, plan })))
}

#[cfg(all(test, feature = "tools"))]
mod tests {
    use super::super::parse;
    use super::*;

    fn connected(args: &[&str]) -> Result<Connect, String> {
        let args = ["connect"].iter().chain(args).map(OsString::from);
        match parse(args, Vec::new(), &Surroundings::default()) {
            Ok(Command::Connect(connect)) => Ok(*connect),
            Ok(other) => panic!("{other:?}"),
            Err(usage) => Err(usage.to_string()),
        }
    }

    #[test]
    fn the_close_reason_precedes_or_follows_the_url() {
        for args in [
            &["ws://h/x", "--close", "4000", "going home"][..],
            &["--close", "4000", "going home", "ws://h/x"],
        ] {
            let Connect { plan, goal } = connected(args).unwrap();
            assert_eq!((plan.code, &*plan.reason), (4000, "going home"));
            assert_eq!((&*plan.url, goal.targets[0].to_string()), ("ws://h/x", "h:80".to_owned()));
        }
        let plain = connected(&["ws://h", "--ping", "1s", "--wait", "0"]).unwrap().plan;
        assert_eq!((plan_times(&plain), plain.code), ((Some(1_000), Some(0)), 1000));
    }

    fn plan_times(plan: &Plan) -> (Option<u64>, Option<u64>) {
        (plan.ping_ms, plan.wait_ms)
    }

    #[test]
    fn invalid_flags_and_values() {
        for (args, why) in [
            (&[][..], "connect needs a URL: wspulse connect ws://localhost:8080/echo"),
            (&["ws://h", "more"], "unexpected argument \"more\""),
            (&["--close", "4000", "a", "b", "ws://h"], "unexpected argument \"ws://h\""),
            (
                &["h:80"],
                "URL \"h:80\": must be ws://HOST[:PORT][/PATH][?QUERY], such as \
              ws://localhost:8080/echo",
            ),
            (
                &["ws://h", "--close", "1006"],
                "--close \"1006\": must be a close code that a server \
              may send: 1000 to 1003, 1007 to 1014 or 3000 to 4999",
            ),
        ] {
            assert_eq!(connected(args).unwrap_err(), why);
        }
    }
}

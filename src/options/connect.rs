//! The options of `wspulse connect`: whom to talk to, and when to end by itself.

use std::ffi::OsString;

use super::asked::{Asked, Asks, Flags, row};
use super::help::{self, Page};
use super::read::{self, Environment, Given};
use super::table::{Fallback, Group, Table, Takes};
use super::values;
use super::{Command, Goal, Surroundings, Usage, every_flag};
use crate::connect::Plan;

/// What its help says.
pub(super) const PAGE: Page = Page {
    about: "talk to one WebSocket",
    synopsis: "usage: wspulse connect URL [OPTIONS]
URL is ws://HOST[:PORT][/PATH][?QUERY] or wss://…. Each line that is typed, or comes through a
pipe, is sent as text. Ctrl-D closes with 1000.",
    foot: "Exit code 0 when it was closed with 1000 or 1001, else 1; 2 for a wrong flag.
Each flag has a twin in the environment: --wait is WSPULSE_WAIT. The flag wins.\n",
};

/// Its flags.
pub(super) const FLAGS: &Table<Draft> = &Table::of(&[
    Group {
        title: "What is done",
        flags: &[
            row(
                "wait",
                Takes::One("TIME"),
                Fallback::From { text: "until all is answered, at most 1s", source: "input" },
                "listen on after the last line",
                |d, v| {
                    d.wait_ms = Some(values::time_or_zero(v)?);
                    Ok(())
                },
            ),
            row(
                "ping",
                Takes::One("TIME"),
                Fallback::Off,
                "ping so often, and show how long each answer took",
                |d, v| {
                    d.ping_ms = Some(values::time(v)?);
                    Ok(())
                },
            ),
            row(
                "close",
                Takes::One("CODE [REASON]"),
                Fallback::Is("1000"),
                "what to close with: --close 4000 'going home'",
                |d, v| {
                    d.code = values::close_code(v)?;
                    Ok(())
                },
            ),
            row(
                "timeout",
                Takes::One("TIME"),
                Fallback::Is("10s"),
                "for the connection, the upgrade, and the answer to our Close",
                |d, v| {
                    d.patience_ms = values::time(v)?;
                    Ok(())
                },
            ),
        ],
        brief: false,
    },
    Group { title: "What is asked for", flags: Flags::<Draft>::ALL, brief: false },
]);

/// Everything that `wspulse connect` is told.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Where to connect to: it becomes the plan's targets.
    pub goal: Goal,
    /// What is done there.
    pub plan: Plan,
}

/// What the flags are written into.
pub(super) struct Draft {
    asked: Asked,
    wait_ms: Option<u64>,
    ping_ms: Option<u64>,
    code: u16,
    patience_ms: u64,
}

impl Asks for Draft {
    fn asked(&mut self) -> &mut Asked {
        &mut self.asked
    }
}

/// Reads what follows `wspulse connect`.
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
    let asked = Asked::default();
    let draft = Draft { asked, wait_ms: None, ping_ms: None, code: 0, patience_ms: 0 };
    let draft = read::fill(FLAGS, given, env, draft)?.draft;
    if words.is_empty() {
        return Err(Usage::Unclear(
            "connect needs a URL: wspulse connect ws://localhost:8080/echo",
        ));
    }
    // The reason of `--close CODE REASON` may stand before the URL as well as behind it.
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
    let (url, goal, ask) = draft.asked.settle(&url)?;
    let plan = Plan {
        targets: Vec::new(),
        url: url.text,
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
    fn the_reason_stands_where_it_likes() {
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
    fn what_cannot_be_used() {
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

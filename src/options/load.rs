//! The options of `wspulse load`: the destination, the load, and the thresholds.

use std::ffi::OsString;

use super::help::{self, Page};
use super::read::{self, Environment, Given};
use super::table::{Fallback, Flag, Group, Table, Takes, row};
use super::upgrade::{Flags, HasUpgradeFlags, UpgradeFlags};
use super::values;
use super::{Command, Goal, Surroundings, Usage, every_flag};
use crate::behaviours::Kind;
use crate::load::{Answers, Life, Pace, Plan, ServerKind, Thresholds, WhenLost};
use crate::proto::deflate::Compression;
use crate::proto::secrets::masked_url;
use crate::time;
use crate::units;

pub(super) const PAGE: Page = Page {
    about: "load-test a WebSocket server",
    synopsis: "usage: wspulse load URL [OPTIONS]
       wspulse load --merge FILE… [--max-…] [--json]
URL is ws://HOST[:PORT][/PATH][?QUERY] or wss://…. Each client sends the text <client>:<i>, waits
for the answer, and sends the next. Ctrl-C stops early and prints the report.",
    foot: "Exit code: 0; 4 if interrupted, else 1 if no client connected, or 3 if a --max-… is
exceeded; 2 for a usage error.
Every flag has an environment variable: --max-p99 is WSPULSE_MAX_P99. The flag wins.
HTTP_PROXY, HTTPS_PROXY and NO_PROXY are honoured.\n",
};

pub(super) const FLAGS: &Table<Draft> = &Table::of(&[
    Group { title: "Clients", flags: WORK, brief: false },
    Group { title: "Connection", flags: Flags::<Draft>::ALL, brief: false },
    Group { title: "Thresholds and report", flags: THRESHOLDS, brief: false },
]);

const WORK: &[Flag<Draft>] = &[
    row("clients", Takes::One("N"), Fallback::Is("10"), "concurrent clients", |d, v| {
        d.clients = values::count(v, 1_000_000)? as usize;
        Ok(())
    }),
    row(
        "messages",
        Takes::One("N"),
        Fallback::Off,
        "messages of each client; then it closes, or see --hold",
        |d, v| {
            d.messages = Some(values::count(v, u64::MAX)?);
            Ok(())
        },
    ),
    row(
        "duration",
        Takes::One("TIME"),
        Fallback::From { text: "10s, unless --messages or --hold", source: "--messages" },
        "send for this long",
        |d, v| {
            d.duration_ms = Some(values::time(v)?);
            Ok(())
        },
    ),
    row(
        "hold",
        Takes::One("TIME"),
        Fallback::Off,
        "stay connected for this long after --messages, or after one message",
        |d, v| {
            d.hold_ms = Some(values::time(v)?);
            Ok(())
        },
    ),
    row(
        "start-at",
        Takes::One("TIME"),
        Fallback::Off,
        "wait until then, such as 2026-11-21T09:41:00Z: for several generators",
        |d, v| {
            let time = time::from_rfc3339(v);
            d.start_ms = Some(time.ok_or("must be a time in UTC such as 2026-11-21T09:41:00Z")?);
            Ok(())
        },
    ),
    row("ramp", Takes::One("N/s"), Fallback::Off, "clients started per second", |d, v| {
        d.ramp = Some(values::count(v.strip_suffix("/s").unwrap_or(v), 1_000_000)?);
        Ok(())
    }),
    row(
        "rate",
        Takes::One("N/s"),
        Fallback::Off,
        "messages per second of each client, sent without waiting for answers",
        |d, v| {
            d.interval_ns = Some(values::interval_ns(v)?);
            Ok(())
        },
    ),
    row(
        "depth",
        Takes::One("N"),
        Fallback::Off,
        "unanswered messages of each client at a time",
        |d, v| {
            d.depth = Some(values::count(v, 1_024)? as usize);
            Ok(())
        },
    ),
    row("size", Takes::One("SIZE"), Fallback::Is("0B"), "pad messages to this size", |d, v| {
        d.size = size(v)?;
        Ok(())
    }),
    row(
        "deflate",
        Takes::One("on|off"),
        Fallback::Is("off"),
        "offer permessage-deflate compression",
        |d, v| {
            d.deflate = values::compression(v)?;
            Ok(())
        },
    ),
    row(
        "verify",
        Takes::Nothing,
        Fallback::Off,
        "check that each answer equals its message; implies --max-errors 0",
        |d, v| {
            d.answers = if values::switch(v)? { Answers::Same } else { Answers::Any };
            Ok(())
        },
    ),
    row(
        "reconnect",
        Takes::Nothing,
        Fallback::Off,
        "reconnect lost clients after a random, growing delay",
        |d, v| {
            d.when_lost = if values::switch(v)? { WhenLost::Reconnect } else { WhenLost::Leave };
            Ok(())
        },
    ),
    row(
        "timeout",
        Takes::One("TIME"),
        Fallback::Is("60s"),
        "for an answer; at most 10s to connect and to finish",
        |d, v| {
            d.patience_ms = values::time(v)?;
            Ok(())
        },
    ),
];

const THRESHOLDS: &[Flag<Draft>] = &[
    row(
        "max-p99",
        Takes::One("TIME"),
        Fallback::Off,
        "limit of the 99th percentile of the latency",
        |d, v| {
            let ns = values::span_or_zero(v)?;
            d.thresholds.p99_ns = Some(if ns == 0 { Err("must be longer than 0")? } else { ns });
            Ok(())
        },
    ),
    row(
        "max-errors",
        Takes::One("N"),
        Fallback::Off,
        "limit of failed connections, and of messages without an answer, together",
        |d, v| {
            let errors = v.parse().ok().filter(|_| v.bytes().all(|b| b.is_ascii_digit()));
            d.thresholds.errors = Some(errors.ok_or("must be a number, such as 0")?);
            Ok(())
        },
    ),
    row(
        "max-downtime",
        Takes::One("TIME"),
        Fallback::Off,
        "limit of a client's time without a connection, with --reconnect",
        |d, v| {
            d.thresholds.downtime_ns = Some(values::span_or_zero(v)?);
            Ok(())
        },
    ),
    row("json", Takes::Nothing, Fallback::Off, "print the report as one line of JSON", |d, v| {
        d.form = if values::switch(v)? { Form::Json } else { Form::Page };
        Ok(())
    }),
    row(
        "merge",
        Takes::Nothing,
        Fallback::Off,
        "add the reports that --json wrote to these files, and print them as one",
        |d, v| {
            d.merge = values::switch(v)?;
            Ok(())
        },
    ),
];

/// The flags that `--merge` leaves a meaning.
const MERGE_FLAGS: [&str; 5] = ["merge", "json", "max-p99", "max-errors", "max-downtime"];

/// The options of `wspulse load`.
#[derive(Clone, Debug)]
pub struct Load {
    /// The URL as it was given, for the report.
    pub url: String,
    /// Resolved by the caller into the plan's targets.
    pub goal: Goal,
    /// The load; its `targets` are empty.
    pub plan: Plan,
    /// The `--max-…` flags.
    pub thresholds: Thresholds,
    /// The format of the report.
    pub form: Form,
}

/// The options of `wspulse load --merge`.
#[derive(Clone, Debug)]
pub struct Merge {
    /// Files with reports.
    pub files: Vec<String>,
    /// The `--max-…` flags.
    pub thresholds: Thresholds,
    /// The format of the report.
    pub form: Form,
}

/// The format of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Text.
    Page,
    /// One line of JSON.
    Json,
}

pub(super) struct Draft {
    upgrade: UpgradeFlags,
    clients: usize,
    messages: Option<u64>,
    duration_ms: Option<u64>,
    hold_ms: Option<u64>,
    start_ms: Option<i64>,
    ramp: Option<u64>,
    interval_ns: Option<u64>,
    depth: Option<usize>,
    size: usize,
    deflate: Compression,
    answers: Answers,
    when_lost: WhenLost,
    patience_ms: u64,
    thresholds: Thresholds,
    form: Form,
    merge: bool,
}

impl HasUpgradeFlags for Draft {
    fn upgrade(&mut self) -> &mut UpgradeFlags {
        &mut self.upgrade
    }
}

/// A message's size, which is also that of the padding in memory.
fn size(text: &str) -> Result<usize, std::borrow::Cow<'static, str>> {
    let size = units::size(text).and_then(|size| usize::try_from(size).ok());
    let size = size.filter(|size| *size <= 64 << 20);
    size.ok_or_else(|| "must be a size up to 64MiB, such as 125B, 16KiB or 1MiB".into())
}

/// Parses the arguments after `wspulse load`.
#[cfg(feature = "tools")]
pub(super) fn parse(
    args: Vec<OsString>,
    env: &Environment,
    _: &Surroundings,
) -> Result<Command, Usage> {
    let (given, words) = match read::args(&read::known(FLAGS), args, usize::MAX)? {
        Given::Help => return Ok(Command::Print(help::screen(&PAGE, FLAGS))),
        Given::Version => return Ok(Command::Print(help::version())),
        Given::Values { flags, words } => (flags, words),
    };
    env.check(&every_flag())?;
    let draft = Draft {
        upgrade: UpgradeFlags::default(),
        clients: 0,
        messages: None,
        duration_ms: None,
        hold_ms: None,
        start_ms: None,
        ramp: None,
        interval_ns: None,
        depth: None,
        size: 0,
        deflate: Compression::Off,
        answers: Answers::Any,
        when_lost: WhenLost::Leave,
        patience_ms: 0,
        thresholds: Thresholds::default(),
        form: Form::Page,
        merge: false,
    };
    let others = given.keys().any(|name| !MERGE_FLAGS.contains(name));
    let draft = read::fill(FLAGS, given, env, draft)?.draft;
    if draft.merge {
        if others {
            return Err(Usage::Conflict("--merge takes only files, --max-… and --json"));
        }
        if words.is_empty() {
            return Err(Usage::Conflict("--merge needs files: wspulse load --merge a.json b.json"));
        }
        let Draft { thresholds, form, .. } = draft;
        return Ok(Command::Merge(Box::new(Merge { files: words, thresholds, form })));
    }
    match &words[..] {
        [] => Err(Usage::Conflict("load needs a URL: wspulse load ws://localhost:8080/echo")),
        [url] => settle(draft, url, env).map(|load| Command::Load(Box::new(load))),
        [_, other, ..] => Err(Usage::Unexpected(other.clone())),
    }
}

fn settle(draft: Draft, url: &str, env: &Environment) -> Result<Load, Usage> {
    let life = life(&draft)?;
    let pace = pace(&draft)?;
    if draft.thresholds.downtime_ns.is_some() && draft.when_lost == WhenLost::Leave {
        return Err(Usage::Conflict("--max-downtime needs --reconnect"));
    }
    let (url, goal, mut ask) = draft.upgrade.settle(url, env)?;
    if draft.deflate != Compression::Off {
        ask.extensions.push_str(crate::load::OFFER);
    }
    let plan = Plan {
        targets: Vec::new(),
        ask,
        clients: draft.clients,
        ramp: draft.ramp,
        life,
        when_lost: draft.when_lost,
        size: draft.size,
        kind: Kind::Text,
        pace,
        fragment: 0,
        server_kind: ServerKind::WebSocket,
        answers: draft.answers,
        patience_ms: draft.patience_ms,
        progress_ms: None,
        start_ms: draft.start_ms,
    };
    let (thresholds, form) = (draft.thresholds, draft.form);
    let url = masked_url(&url.text).into_owned();
    Ok(Load { url, goal, plan, thresholds, form })
}

fn life(draft: &Draft) -> Result<Life, Usage> {
    let Draft { messages, duration_ms, hold_ms, interval_ns, .. } = *draft;
    match (messages, duration_ms, hold_ms) {
        (None, None, None) => Ok(Life::Time { ms: 10_000 }),
        (None, Some(ms), None) => Ok(Life::Time { ms }),
        (Some(messages), None, None) => Ok(Life::Messages(messages)),
        (None, None, Some(ms)) if interval_ns.is_some() => Ok(Life::Time { ms }),
        (messages, None, Some(ms)) => Ok(Life::Hold { messages: messages.unwrap_or(1), ms }),
        (Some(_), Some(_), None) => {
            Err(Usage::Conflict("--messages and --duration exclude each other: leave one out"))
        }
        (_, Some(_), Some(_)) => {
            Err(Usage::Conflict("--duration and --hold exclude each other: leave one out"))
        }
    }
}

fn pace(draft: &Draft) -> Result<Pace, Usage> {
    match (draft.interval_ns, draft.depth) {
        (None, depth) => Ok(Pace::Closed { depth: depth.unwrap_or(1) }),
        (Some(interval_ns), None) => Ok(Pace::Open { interval_ns }),
        (Some(_), Some(_)) => {
            Err(Usage::Conflict("--rate and --depth exclude each other: leave one out"))
        }
    }
}

#[cfg(all(test, feature = "tools"))]
mod tests {
    use super::super::parse;
    use super::*;

    fn loaded(args: &str, env: &[(&str, &str)]) -> Result<Load, String> {
        let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let args = ["load"].into_iter().chain(args.split_whitespace()).map(OsString::from);
        match parse(args, env, &Surroundings::default()) {
            Ok(Command::Load(load)) => Ok(*load),
            Ok(other) => panic!("{other:?}"),
            Err(usage) => Err(usage.to_string()),
        }
    }

    #[test]
    fn flags_reach_the_plan() {
        let load = loaded("ws://h/echo", &[]).unwrap();
        assert_eq!((load.plan.clients, load.plan.life), (10, Life::Time { ms: 10_000 }));
        assert_eq!((load.plan.pace, load.plan.ramp), (Pace::Closed { depth: 1 }, None));
        assert_eq!(load.goal.targets, [crate::engine::Target::host("h", 80)]);
        let load = loaded(
            "--clients 500 ws://h:1/x?y --messages 6 --ramp 200/s --verify --size 1KiB --depth 4 \
             -H A:b --header=C:d --origin http://o --subprotocol s --connect-to 10.0.0.1:9",
            &[],
        );
        let Load { plan, goal, .. } = load.unwrap();
        assert_eq!((plan.clients, plan.life, plan.ramp), (500, Life::Messages(6), Some(200)));
        assert_eq!((plan.answers, plan.size), (Answers::Same, 1024));
        assert_eq!(
            (plan.pace, goal.targets[0].to_string()),
            (Pace::Closed { depth: 4 }, "10.0.0.1:9".into())
        );
        assert_eq!((&*plan.ask.host, &*plan.ask.path), ("h:1", "/x?y"));
        let fields = [("A", "b"), ("C", "d"), ("Origin", "http://o")];
        assert_eq!(plan.ask.fields, fields.map(|(name, value)| (name.into(), value.into())));
        assert_eq!(plan.ask.extensions, "");
        let load = loaded("ws://h --rate 0.5 --hold 3m -H Host:v", &[]).unwrap();
        assert_eq!(load.plan.pace, Pace::Open { interval_ns: 2_000_000_000 });
        assert_eq!((load.plan.life, &*load.plan.ask.host), (Life::Time { ms: 180_000 }, "v"));
        let env = [("WSPULSE_CLIENTS", "3"), ("WSPULSE_ORIGIN", "any")];
        let load = loaded("ws://h --hold 1s --messages 2", &env).unwrap();
        assert_eq!((load.plan.clients, load.plan.ask.fields.len()), (3, 0));
        assert_eq!(load.plan.life, Life::Hold { messages: 2, ms: 1_000 });
    }

    #[test]
    fn thresholds_in_microseconds() {
        let load = loaded("ws://h --max-p99 500us --reconnect --max-downtime 1.5s", &[]).unwrap();
        let Thresholds { p99_ns, downtime_ns, .. } = load.thresholds;
        assert_eq!((p99_ns, downtime_ns), (Some(500_000), Some(1_500_000_000)));
        let load = loaded("ws://h --start-at 1970-01-01T00:00:02.5Z", &[]).unwrap();
        assert_eq!(load.plan.start_ms, Some(2_500));
    }

    #[test]
    fn files_to_merge() {
        let merged = |args: &str| {
            let args = ["load"].into_iter().chain(args.split_whitespace()).map(OsString::from);
            parse(args, vec![("WSPULSE_CLIENTS".into(), "3".into())], &Surroundings::default())
        };
        match merged("a --merge b --max-p99 1ms --json c") {
            Ok(Command::Merge(merge)) => {
                assert_eq!(
                    (&merge.files[..], merge.form),
                    (&["a", "b", "c"].map(String::from)[..], Form::Json)
                );
                assert_eq!(merge.thresholds.p99_ns, Some(1_000_000));
            }
            other => panic!("{other:?}"),
        }
        for (args, why) in [
            ("--merge", "--merge needs files: wspulse load --merge a.json b.json"),
            ("--merge a --clients 3", "--merge takes only files, --max-… and --json"),
        ] {
            assert_eq!(merged(args).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn invalid_flags_and_values() {
        for (args, why) in [
            ("", "load needs a URL: wspulse load ws://localhost:8080/echo"),
            ("ws://h ws://i", "unexpected argument \"ws://i\""),
            ("ws://h --clients 0", "--clients \"0\": must be a number from 1 to 1000000"),
            (
                "ws://h --max-p99 1.5",
                "--max-p99 \"1.5\": must be a time such as 500us, 1.5ms or 10s",
            ),
            ("ws://h --max-p99 0us", "--max-p99 \"0us\": must be longer than 0"),
            (
                "ws://h --start-at 10:00",
                "--start-at \"10:00\": must be a time in UTC such as 2026-11-21T09:41:00Z",
            ),
            ("ws://h --rate 0", "--rate \"0\": must be a rate from 0.001/s to 1000000/s"),
            ("ws://h --rate inf", "--rate \"inf\": must be a rate from 0.001/s to 1000000/s"),
            (
                "ws://h --size 1GiB",
                "--size \"1GiB\": must be a size up to 64MiB, such as 125B, 16KiB or 1MiB",
            ),
            (
                "ws://h --messages 1 --duration 1s",
                "--messages and --duration exclude each other: leave one out",
            ),
            (
                "ws://h --hold 1s --duration 1s",
                "--duration and --hold exclude each other: leave one out",
            ),
            ("ws://h --rate 1 --depth 2", "--rate and --depth exclude each other: leave one out"),
            ("ws://h --max-downtime 1s", "--max-downtime needs --reconnect"),
            ("ws://h -H nonsense", "--header \"***\": must be NAME: VALUE"),
            (
                "ws://h -H Sec-WebSocket-Key:x",
                "--header \"Sec-WebSocket-Key:***\": is set by the upgrade and cannot be changed",
            ),
            (
                "ws://h --connect-to h",
                "--connect-to \"h\": must be HOST:PORT, such as 10.0.0.7:8080 or [::1]:8080",
            ),
            (
                "https://h/",
                "URL \"https://h/\": must begin with ws:// or wss://, not http:// or https://",
            ),
            (
                "ws://h --subprotocol a,b",
                "--subprotocol \"a,b\": must be a name without spaces or \
              commas, such as chat.v2",
            ),
            ("ws://h --verfy", "unknown flag --verfy; did you mean --verify?"),
        ] {
            assert_eq!(loaded(args, &[]).unwrap_err(), why, "{args}");
        }
    }
}

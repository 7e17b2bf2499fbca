//! The command `wspulse backend`: a server with other paths, which shares most of the flags of
//! `wspulse serve`.

use std::ffi::OsString;

use crate::limits;
use crate::options::flags::{self, set};
use crate::options::help::{self, Page};
use crate::options::read::{self, Environment, Given};
use crate::options::serve::{self, Draft, Mode};
use crate::options::table::{self, Fallback, Flag, Group, Table, Takes};
use crate::options::{
    Command, Listen, Surroundings, Usage, Verb, every_flag, manual, show, values,
};
use crate::parts;
use crate::server::config::Surface;

const PORT: u16 = 8501;

pub(crate) const PAGE: Page = Page {
    about: "the sample REST service behind the gateway",
    synopsis: "usage: wspulse backend [OPTIONS]
GET / is answered with `get`, POST /connect with `connect`, POST / with `default`. The client of
each message also gets `Got message:<text>`. Also: /healthz, /readyz, /metrics, /stats.",
    foot:
        "dynamodb, and a --gateway of AWS, need AWS_REGION and credentials: AWS_ACCESS_KEY_ID with
AWS_SECRET_ACCESS_KEY, EKS Pod Identity, or IRSA. AWS_ENDPOINT_URL_DYNAMODB and AWS_ENDPOINT_URL
name other endpoints; --dynamodb-endpoint wins.\n",
};

pub(crate) const FLAGS: &Table<Draft> = &Table::of(&[
    Group { title: "The service", flags: SERVICE, brief: false },
    Group { title: "Limits", flags: flags::LIMITS, brief: false },
    Group { title: "Stopping", flags: flags::STOPPING, brief: false },
    Group { title: "Logs", flags: flags::LOGS, brief: false },
    Group { title: "Fine tuning", flags: flags::TIMEOUTS, brief: true },
    Group { title: "Information", flags: flags::INFORMATION, brief: false },
]);

pub(crate) const COMMAND: parts::Command = parts::Command {
    verb: Verb {
        name: NAME,
        flag_names: || table::names(FLAGS),
        help: || help::screen(&PAGE, FLAGS),
        parse,
        is_built: true,
    },
    page: &PAGE,
    rows: || ("backend flags", help::rows(FLAGS)),
    entries: || manual::entries(FLAGS),
};

const NAME: &str = "backend";

const SERVICE: &[Flag<Draft>] = &[
    Flag {
        name: "listen",
        takes: Takes::Many("ADDR"),
        fallback: Fallback::Variable { name: "PORT", take: flags::port, text: "[::]:8501" },
        help: "where to serve: :80, [::1]:80, unix:/x; repeatable",
        take: flags::listen,
        show: |d| flags::joined(d.serve.listen.iter().map(Listen::to_string)),
    },
    Flag {
        name: "gateway",
        takes: Takes::One("URL"),
        fallback: Fallback::Is("http://127.0.0.1:8081"),
        help: "gateway that answers are sent to",
        take: |d, v| d.parts.backend.take_gateway(v),
        show: |d| d.parts.backend.gateway.clone(),
    },
    Flag {
        name: "gateway-token-file",
        takes: Takes::One("FILE"),
        fallback: Fallback::Off,
        help: "bearer token for that gateway; re-read every minute",
        take: |d, v| set(&mut d.parts.backend.token_file, Ok(v.to_owned())),
        show: |d| d.parts.backend.token_file.clone(),
    },
    Flag {
        name: "gateway-ca-file",
        takes: Takes::One("FILE"),
        fallback: Fallback::From { text: "--ca-file", source: "--ca-file" },
        help: "trust the CAs in this file (PEM) for --gateway alone",
        take: |d, v| {
            let file = values::tls_file(v).map(|_| v.to_owned());
            set(&mut d.parts.backend.gateway_ca_file, file)
        },
        show: |d| d.parts.backend.gateway_ca_file.clone(),
    },
    Flag {
        name: "ca-file",
        takes: Takes::One("FILE"),
        fallback: Fallback::Off,
        help: "trust the CAs in this file (PEM) instead of Mozilla's list",
        take: |d, v| set(&mut d.parts.backend.ca_file, values::tls_file(v).map(|_| v.to_owned())),
        show: |d| d.parts.backend.ca_file.clone(),
    },
    Flag {
        name: "sessions",
        takes: Takes::One("WHERE"),
        fallback: Fallback::Is("memory"),
        help: "memory, or dynamodb:TABLE, which several backends can share",
        take: |d, v| d.parts.backend.take_sessions(v),
        show: |d| d.parts.backend.sessions.clone(),
    },
    Flag {
        name: "dynamodb-endpoint",
        takes: Takes::One("URL"),
        fallback: Fallback::From { text: "AWS' own", source: "AWS_ENDPOINT_URL, AWS_REGION" },
        help: "DynamoDB or a compatible service",
        take: |d, v| d.parts.backend.take_endpoint(v),
        show: |d| d.parts.backend.endpoint.clone(),
    },
    Flag {
        name: "create-table",
        takes: Takes::Nothing,
        fallback: Fallback::Off,
        help: "create the table if it does not exist",
        take: |d, v| set(&mut d.parts.backend.create, values::switch(v)),
        show: |d| flags::on_off(d.parts.backend.create),
    },
];

/// Parses the arguments of `wspulse backend`.
pub(crate) fn parse(
    args: Vec<OsString>,
    env: &Environment,
    surroundings: &Surroundings,
) -> Result<Command, Usage> {
    let given = match read::args(&read::known(FLAGS), args, 0)? {
        Given::Help => return Ok(Command::Print(help::screen(&PAGE, FLAGS))),
        Given::Version => return Ok(Command::Print(help::version())),
        Given::Values { flags, .. } => flags,
    };
    env.check(&every_flag())?;
    let mut filled = read::fill(FLAGS, given, env, blank())?;
    let draft = &mut filled.draft;
    if draft.serve.listen.is_empty() {
        draft.serve.listen.push(Listen::Default { port: PORT });
    }
    serve::settle(draft, env, surroundings)?;
    let plan = draft.parts.backend.settle(env)?;
    draft.serve.parts.push(Box::new(plan));
    Ok(match filled.draft.mode {
        Mode::Serve => Command::Serve(Box::new(filled.draft.serve)),
        Mode::Check => Command::Check(Box::new(filled.draft.serve)),
        Mode::Print => Command::Print(show::screen(FLAGS, &filled)),
    })
}

/// The defaults of the server, without mounts and pages.
fn blank() -> Draft {
    let mut draft = serve::blank();
    draft.serve.server.mounts = Vec::new();
    draft.serve.server.surface = Surface::Bare;
    draft.serve.server.limits.max_message = limits::READ_BYTES_PER_TURN;
    draft
}

//! What the operator asked for: argv and the environment become one small struct for each owner.
//! Each command has one table of flags; parsing, the environment's twins, `--help`,
//! `--print-config` and the rows of docs/REFERENCE.md all come from it.
//! `parse` is a pure function: nothing here opens a file or a socket.

#[cfg_attr(
    not(feature = "tools"),
    allow(dead_code, unused_imports, reason = "their flags are still known")
)]
mod asked;
#[cfg_attr(
    not(feature = "tools"),
    allow(dead_code, unused_imports, reason = "their flags are still known")
)]
mod connect;
pub(crate) mod flags;
mod goal;
mod healthcheck;
pub(crate) mod help;
#[cfg_attr(
    not(feature = "tools"),
    allow(dead_code, unused_imports, reason = "their flags are still known")
)]
mod load;
pub mod manual;
pub(crate) mod read;
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod table;
mod usage;
pub(crate) mod values;

use std::ffi::{OsStr, OsString};

use crate::parts;
pub use connect::Connect;
pub use goal::{Goal, Proof, Voucher};
pub use healthcheck::Healthcheck;
pub use load::{Form, Load};
use read::Environment;
pub use serve::{Listen, LogFormat, LogStyle, Profile, Serve, TlsFiles};
pub use usage::Usage;

/// What the process is to do.
#[derive(Debug)]
pub enum Command {
    /// Run the server.
    Serve(Box<Serve>),
    /// The options are in order; say so and leave.
    Check(Box<Serve>),
    /// Ask a server whether it is healthy.
    Healthcheck(Healthcheck),
    /// Open many `WebSockets` and measure.
    #[cfg(feature = "tools")]
    Load(Box<Load>),
    /// Talk to one WebSocket.
    #[cfg(feature = "tools")]
    Connect(Box<Connect>),
    /// Print this on standard output and leave.
    Print(String),
}

/// What the options need to know of the machine.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The host's name: who serves when nothing else says so.
    pub host_name: String,
}

/// Who can connect to the main listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Programs of this machine.
    Local,
    /// Other machines too, as far as can be told.
    Open,
}

/// A command: `wspulse NAME`.
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    /// Its flags' twins are shared: a variable that any command knows is no error.
    pub(crate) flag_names: fn() -> Vec<&'static str>,
    pub(crate) help: fn() -> String,
    pub(crate) parse: Parse,
    /// Whether this build can do it.
    pub(crate) is_built: bool,
}

type Parse = fn(Vec<OsString>, &Environment, &Surroundings) -> Result<Command, Usage>;

/// The commands, those of parts behind the others.
fn verbs() -> impl Iterator<Item = &'static Verb> {
    VERBS.iter().chain(parts::commands().map(|command| &command.verb))
}

/// The command that is meant when none is named.
const SERVE: Verb = Verb {
    name: "serve",
    flag_names: || table::names(flags::SERVE),
    help: || help::screen(&serve::PAGE, flags::SERVE),
    parse: serve::parse,
    is_built: true,
};

/// The commands that are not a part's.
const VERBS: &[Verb] = &[
    SERVE,
    Verb {
        name: "healthcheck",
        flag_names: || table::names(healthcheck::FLAGS),
        help: || help::screen(&healthcheck::PAGE, healthcheck::FLAGS),
        parse: healthcheck::parse,
        is_built: true,
    },
    Verb {
        name: "load",
        flag_names: || table::names(load::FLAGS),
        help: || help::screen(&load::PAGE, load::FLAGS),
        #[cfg(feature = "tools")]
        parse: load::parse,
        #[cfg(not(feature = "tools"))]
        parse: not_built,
        is_built: cfg!(feature = "tools"),
    },
    Verb {
        name: "connect",
        flag_names: || table::names(connect::FLAGS),
        help: || help::screen(&connect::PAGE, connect::FLAGS),
        #[cfg(feature = "tools")]
        parse: connect::parse,
        #[cfg(not(feature = "tools"))]
        parse: not_built,
        is_built: cfg!(feature = "tools"),
    },
];

/// A server in a small image need not carry what measures servers.
#[cfg(not(feature = "tools"))]
fn not_built(_: Vec<OsString>, _: &Environment, _: &Surroundings) -> Result<Command, Usage> {
    Err(Usage::Unclear("this build has neither load nor connect: cargo build --features tools"))
}

/// The command that this word is, if it has a help of its own in this build.
#[must_use]
pub fn command_with_help(word: &OsStr) -> Option<&'static str> {
    let mut others = verbs().filter(|verb| verb.is_built && verb.name != SERVE.name);
    others.find(|verb| word == verb.name).map(|verb| verb.name)
}

/// Reads the arguments (without the program's name) and the environment.
///
/// # Errors
/// What cannot be used, by name: exit code 2.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: Vec<(OsString, OsString)>,
    surroundings: &Surroundings,
) -> Result<Command, Usage> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let word = args.first().map(|arg| arg.to_string_lossy().into_owned());
    let word = word.filter(|word| !word.starts_with('-'));
    if word.is_some() {
        args.remove(0);
    }
    let verb = match word.as_deref() {
        None => &SERVE,
        Some("help") => return help_for(&args).map(Command::Print),
        Some(word) => find(word)?,
    };
    (verb.parse)(args, &Environment::new(env)?, surroundings)
}

/// The rows of the reference's tables of flags, in Markdown: a name for each, and its rows.
#[must_use]
pub fn readme_rows() -> Vec<(&'static str, String)> {
    let own = [
        ("flags", help::rows(flags::SERVE)),
        ("healthcheck", help::rows(healthcheck::FLAGS)),
        ("load flags", help::rows(load::FLAGS)),
        ("connect flags", help::rows(connect::FLAGS)),
    ];
    own.into_iter().chain(parts::commands().map(|command| (command.rows)())).collect()
}

/// `wspulse help [COMMAND]`.
fn help_for(args: &[OsString]) -> Result<String, Usage> {
    let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    match words.as_slice() {
        [] => Ok((SERVE.help)()),
        [word] if word == "--help" || word == "-h" => Ok((SERVE.help)()),
        [word] => find(word).map(|verb| (verb.help)()),
        [_, extra, ..] => Err(Usage::Unexpected(extra.clone().into_owned())),
    }
}

fn find(word: &str) -> Result<&'static Verb, Usage> {
    verbs().find(|verb| verb.name == word).ok_or_else(|| {
        let names = verbs().map(|verb| verb.name.to_owned()).chain(["help".to_owned()]);
        Usage::UnknownCommand { given: word.to_owned(), near: usage::nearest(word, names) }
    })
}

/// The flags of every command: a variable is unknown only when it is unknown to all of them.
pub(crate) fn every_flag() -> Vec<&'static str> {
    verbs().flat_map(|verb| (verb.flag_names)()).collect()
}

#[cfg(test)]
mod tests;

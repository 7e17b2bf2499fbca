//! Command line and environment: argv and variables become one struct per command.
//! Each command has one table of flags; parsing, environment variables, `--help`,
//! `--print-config` and the rows of docs/REFERENCE.md are all derived from it.
//! `parse` is a pure function: nothing here opens a file or a socket.

#[cfg_attr(
    not(feature = "tools"),
    allow(dead_code, unused_imports, reason = "the flags stay known without the commands")
)]
mod connect;
mod destination;
pub(crate) mod flags;
mod healthcheck;
pub(crate) mod help;
#[cfg_attr(
    not(feature = "tools"),
    allow(dead_code, unused_imports, reason = "the flags stay known without the commands")
)]
mod load;
pub mod manual;
#[cfg_attr(
    not(feature = "tools"),
    allow(dead_code, unused_imports, reason = "the flags stay known without the commands")
)]
mod probe;
pub mod proxies;
pub(crate) mod read;
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod table;
#[cfg_attr(
    not(feature = "tools"),
    allow(dead_code, unused_imports, reason = "the flags stay known without the commands")
)]
mod upgrade;
mod usage;
pub(crate) mod values;

use std::ffi::{OsStr, OsString};

use crate::parts;
pub use connect::Connect;
pub use destination::{Goal, Roots, Tls};
pub use healthcheck::Healthcheck;
pub use load::{Form, Load, Merge};
pub use probe::Probe;
use read::Environment;
pub use serve::{Listen, LogFormat, LogStyle, Profile, Serve, TlsFiles};
pub use usage::Usage;

/// A parsed command line.
#[derive(Debug)]
pub enum Command {
    /// Run the server.
    Serve(Box<Serve>),
    /// Report that the options are valid, then exit.
    Check(Box<Serve>),
    /// Check whether a server is healthy.
    Healthcheck(Healthcheck),
    /// Load-test a server.
    #[cfg(feature = "tools")]
    Load(Box<Load>),
    /// Print the reports of several load tests as one.
    #[cfg(feature = "tools")]
    Merge(Box<Merge>),
    /// Run the interactive client.
    #[cfg(feature = "tools")]
    Connect(Box<Connect>),
    /// Find out what a path does to WebSockets.
    #[cfg(feature = "tools")]
    Probe(Box<Probe>),
    /// Print this to standard output, then exit.
    Print(String),
}

/// Facts about the machine that defaults depend on.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The pod name that is reported when `POD_NAME` is not set.
    pub host_name: String,
}

/// Which machines can connect to the main listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only this machine: loopback addresses and Unix sockets.
    Local,
    /// Other machines may be able to.
    Open,
}

/// A command: `wspulse NAME`.
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    /// Commands share the environment: a variable is valid when any command has the flag.
    pub(crate) flag_names: fn() -> Vec<&'static str>,
    pub(crate) help: fn() -> String,
    pub(crate) parse: Parse,
    /// False when the build lacks the command's feature.
    pub(crate) is_built: bool,
}

type Parse = fn(Vec<OsString>, &Environment, &Surroundings) -> Result<Command, Usage>;

/// All commands; those of parts come last.
fn verbs() -> impl Iterator<Item = &'static Verb> {
    VERBS.iter().chain(parts::commands().map(|command| &command.verb))
}

/// The default command.
const SERVE: Verb = Verb {
    name: "serve",
    flag_names: || table::names(flags::SERVE),
    help: serve::screen,
    parse: serve::parse,
    is_built: true,
};

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
    Verb {
        name: "probe",
        flag_names: || table::names(probe::FLAGS),
        help: || help::screen(&probe::PAGE, probe::FLAGS),
        #[cfg(feature = "tools")]
        parse: probe::parse,
        #[cfg(not(feature = "tools"))]
        parse: not_built,
        is_built: cfg!(feature = "tools"),
    },
];

#[cfg(not(feature = "tools"))]
fn not_built(_: Vec<OsString>, _: &Environment, _: &Surroundings) -> Result<Command, Usage> {
    Err(Usage::Conflict("this build has no load, connect or probe: cargo build --features tools"))
}

/// The command of this name, if this build has it and its help is not that of the server.
#[must_use]
pub fn command_with_help(word: &OsStr) -> Option<&'static str> {
    let mut others = verbs().filter(|verb| verb.is_built && verb.name != SERVE.name);
    others.find(|verb| word == verb.name).map(|verb| verb.name)
}

/// Parses the arguments (without the program's name) and the environment.
///
/// # Errors
/// The first invalid flag, value or variable. The process exits with code 2.
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

/// The flag tables of docs/REFERENCE.md in Markdown, each with the name of its marker.
#[must_use]
pub fn readme_rows() -> Vec<(&'static str, String)> {
    let own = [
        ("flags", help::rows(flags::SERVE)),
        ("healthcheck", help::rows(healthcheck::FLAGS)),
        ("load flags", help::rows(load::FLAGS)),
        ("connect flags", help::rows(connect::FLAGS)),
        ("probe flags", help::rows(probe::FLAGS)),
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

/// The flags of every command: a variable is unknown only when no command has its flag.
pub(crate) fn every_flag() -> Vec<&'static str> {
    verbs().flat_map(|verb| (verb.flag_names)()).collect()
}

#[cfg(test)]
mod tests;

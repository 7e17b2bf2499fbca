//! Parses argv and the environment with a table of flags. A flag overrides its variable, and the
//! variable overrides the default. Knows no flag by name except `--help`, `--version` and `-H`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use lexopt::Arg;

use super::table::{Fallback, Flag, Table, Takes, env_name, flags};
use super::usage::{Usage, nearest};
use crate::proto::secrets::MASK;

const PREFIX: &str = "WSPULSE_";

/// The flag that has the short form `-H`, as in curl.
const HEADER: &str = "header";

/// The environment variables that are valid UTF-8.
pub(crate) struct Environment(BTreeMap<String, String>);

/// Parsed argv.
pub(crate) enum Given {
    Help,
    Version,
    Values {
        flags: BTreeMap<&'static str, Vec<String>>,
        /// Positional arguments, in order.
        words: Vec<String>,
    },
}

impl<D> Filled<D> {
    /// Whether this flag, or its variable, was given.
    #[allow(dead_code, reason = "only parts ask, and a build may have none")]
    pub(crate) fn was_given(&self, table: &Table<D>, name: &str) -> bool {
        let origins = flags(table).into_iter().zip(&self.origins);
        let given = |origin: &Origin| matches!(origin, Origin::Flag | Origin::Variable(_));
        origins.into_iter().any(|(flag, origin)| flag.name == name && given(origin))
    }
}

/// A complete draft, and the source of each flag's value in the order of the table.
pub(crate) struct Filled<D> {
    pub(crate) draft: D,
    pub(crate) origins: Vec<Origin>,
}

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    Variable(String),
    Default,
    From(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Default => f.write_str("default"),
            Self::From(source) => write!(f, "derived from {source}"),
        }
    }
}

impl Environment {
    /// Rejects `WSPULSE_` variables that are not UTF-8; ignores such variables of other programs.
    pub(crate) fn new(pairs: Vec<(OsString, OsString)>) -> Result<Self, Usage> {
        let mut variables = BTreeMap::new();
        for (name, value) in pairs {
            let ours = name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => {
                    variables.insert(name, value);
                }
                (Ok(name), Err(_)) if ours && !injected(&name, "") => {
                    return Err(Usage::NotText { name });
                }
                (Err(name), _) if ours => {
                    let given = name.to_string_lossy().into_owned();
                    return Err(Usage::UnknownVariable { given, near: None });
                }
                _ => {}
            }
        }
        Ok(Self(variables))
    }

    /// The value of a variable, if it is set and not empty.
    pub(crate) fn filled(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The values given for a flag or by its variable: their origin, the name to show in an error,
    /// and the values.
    fn or_variable(
        &self,
        given: Option<Vec<String>>,
        name: &str,
        takes: Takes,
    ) -> Option<(Origin, String, Vec<String>)> {
        if let Some(values) = given {
            return Some((Origin::Flag, format!("--{name}"), values));
        }
        let variable = env_name(name);
        let value = self.0.get(&variable)?;
        let values: Vec<String> = match takes {
            Takes::Many(_) => value.split_whitespace().map(str::to_owned).collect(),
            Takes::Lines(_) => {
                let lines = value.lines().map(str::trim).filter(|line| !line.is_empty());
                lines.map(str::to_owned).collect()
            }
            Takes::Nothing | Takes::One(_) => vec![value.clone()],
        };
        (!values.is_empty()).then(|| (Origin::Variable(variable.clone()), variable, values))
    }

    /// Rejects a `WSPULSE_` variable that belongs to none of these flags.
    pub(crate) fn check(&self, known: &[&str]) -> Result<(), Usage> {
        let names: Vec<String> = known.iter().map(|name| env_name(name)).collect();
        let unknown = self.0.iter().find(|(name, value)| {
            name.starts_with(PREFIX) && !names.contains(name) && !injected(name, value)
        });
        let Some((name, _)) = unknown else { return Ok(()) };
        Err(Usage::UnknownVariable { given: name.clone(), near: nearest(name, names.into_iter()) })
    }
}

/// Whether Kubernetes sets this variable for a Service named `wspulse` or `wspulse-*`. Rejecting it
/// would keep every pod in that namespace from starting.
fn injected(name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix("WSPULSE") else { return false };
    let address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let port = |tail: &str| {
        let (number, protocol) = tail.split_once('_').unwrap_or((tail, ""));
        !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
            && ["TCP", "UDP", "SCTP"].iter().any(|p| protocol.starts_with(p))
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || (rest.ends_with("_PORT") && address)
        || rest.match_indices("_PORT_").any(|(at, word)| port(&rest[at + word.len()..]))
}

/// The names of flags and what they take: all that is needed to parse argv.
pub(crate) type Known = Vec<(&'static str, Takes)>;

pub(crate) fn known<D>(table: &Table<D>) -> Known {
    flags(table).into_iter().map(|flag| (flag.name, flag.takes)).collect()
}

/// Parses argv with up to `words_max` positional arguments. `--help` and `--version` win over
/// anything after them and over the environment.
pub(crate) fn args(known: &Known, args: Vec<OsString>, words_max: usize) -> Result<Given, Usage> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut values: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let mut words = Vec::new();
    while let Some(arg) = parser.next().map_err(|error| Usage::Unexpected(error.to_string()))? {
        let name = match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Given::Help),
            Arg::Short('V') | Arg::Long("version") => return Ok(Given::Version),
            Arg::Long(name) => name.to_owned(),
            Arg::Short('H') if known.iter().any(|(name, _)| *name == HEADER) => HEADER.to_owned(),
            Arg::Short(letter) => {
                return Err(Usage::UnknownFlag { given: format!("-{letter}"), near: None });
            }
            Arg::Value(word) if words.len() < words_max => {
                words.push(word.to_string_lossy().into_owned());
                continue;
            }
            Arg::Value(word) => {
                return Err(Usage::Unexpected(word.to_string_lossy().into_owned()));
            }
        };
        let Some((name, takes)) = known.iter().find(|(known, _)| *known == name) else {
            let given = format!("--{name}");
            let all = known.iter().map(|(name, _)| format!("--{name}"));
            let near = nearest(&given, all.chain(["--help".to_owned(), "--version".to_owned()]));
            return Err(Usage::UnknownFlag { given, near });
        };
        values.entry(name).or_default().push(value(name, *takes, &mut parser)?);
    }
    Ok(Given::Values { flags: values, words })
}

fn value(name: &str, takes: Takes, parser: &mut lexopt::Parser) -> Result<String, Usage> {
    let name = format!("--{name}");
    match takes.value() {
        None => match parser.optional_value() {
            None => Ok("true".to_owned()),
            Some(given) => {
                let given = given.to_string_lossy().into_owned();
                Err(Usage::NeedlessValue { flag: name, given })
            }
        },
        Some(value) => {
            let given = parser.value();
            let given = given.map_err(|_| Usage::MissingValue { flag: name.clone(), value })?;
            given.into_string().map_err(|_| Usage::NotText { name })
        }
    }
}

/// Fills the draft: each flag from argv, from its variable, or with its default.
pub(crate) fn fill<D>(
    table: &Table<D>,
    mut given: BTreeMap<&'static str, Vec<String>>,
    env: &Environment,
    mut draft: D,
) -> Result<Filled<D>, Usage> {
    let mut origins = Vec::new();
    for flag in flags(table) {
        let found = env.or_variable(given.remove(flag.name), flag.name, flag.takes);
        let Some((origin, name, values)) = found else {
            origins.push(fall_back(flag, env, &mut draft)?);
            continue;
        };
        for value in values {
            let taken = (flag.take)(&mut draft, &value);
            taken.map_err(|why| {
                let secret = matches!(flag.takes, Takes::Lines(_));
                let value = if secret { name_only(&value) } else { value };
                Usage::BadValue { name: name.clone(), value, why: why.into() }
            })?;
        }
        origins.push(origin);
    }
    Ok(Filled { draft, origins })
}

/// `Authorization:***`: what an error may repeat of a header field.
fn name_only(field: &str) -> String {
    match field.split_once(':') {
        Some((name, _)) => format!("{name}:{MASK}"),
        None => MASK.to_owned(),
    }
}

fn fall_back<D>(flag: &Flag<D>, env: &Environment, draft: &mut D) -> Result<Origin, Usage> {
    match flag.fallback {
        Fallback::Off => Ok(Origin::Default),
        Fallback::From { source, .. } => Ok(Origin::From(source)),
        Fallback::Is(text) => {
            let taken = (flag.take)(draft, text);
            assert!(taken.is_ok(), "the default of --{} must parse", flag.name);
            Ok(Origin::Default)
        }
        Fallback::Variable { name, take, .. } => {
            let Some(value) = env.filled(name) else { return Ok(Origin::Default) };
            let name = name.to_owned();
            match take(draft, value) {
                Ok(()) => Ok(Origin::Variable(name)),
                Err(why) => Err(Usage::BadValue { name, value: value.to_owned(), why: why.into() }),
            }
        }
    }
}

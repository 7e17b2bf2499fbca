//! Reads argv and the environment by a table of flags: a flag beats its twin, its twin beats the
//! default. It knows no flag by name but `--help` and `--version`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use lexopt::Arg;

use super::table::{Fallback, Flag, Table, Takes, flags, twin};
use super::usage::{Usage, nearest};

/// What an environment variable of ours begins with.
const PREFIX: &str = "WSPULSE_";

/// The flag that is also `-H`, as it is for curl.
const HEADER: &str = "header";

/// The variables that are text.
pub(crate) struct Environment(BTreeMap<String, String>);

/// What argv holds.
pub(crate) enum Given {
    Help,
    Version,
    Values {
        flags: BTreeMap<&'static str, Vec<String>>,
        /// What is no flag, in order.
        words: Vec<String>,
    },
}

impl<D> Filled<D> {
    /// Whether this flag of the table, or its twin, was given.
    #[allow(dead_code, reason = "only parts ask, and a build may have none")]
    pub(crate) fn was_given(&self, table: &Table<D>, name: &str) -> bool {
        let origins = flags(table).into_iter().zip(&self.origins);
        let given = |origin: &Origin| matches!(origin, Origin::Flag | Origin::Variable(_));
        origins.into_iter().any(|(flag, origin)| flag.name == name && given(origin))
    }
}

/// A draft with every flag taken, and for each flag of the table where its value came from.
pub(crate) struct Filled<D> {
    pub(crate) draft: D,
    pub(crate) origins: Vec<Origin>,
}

/// Where a value came from.
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
    /// Refuses a variable of ours that is not text; one of somebody else is none of our business.
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

    /// The value of a variable, if it is set to anything.
    pub(crate) fn filled(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// What argv gave for a flag, or else its twin: where that came from, the name to show in an
    /// error, and the values.
    fn or_twin(
        &self,
        given: Option<Vec<String>>,
        name: &str,
        takes: Takes,
    ) -> Option<(Origin, String, Vec<String>)> {
        if let Some(values) = given {
            return Some((Origin::Flag, format!("--{name}"), values));
        }
        let variable = twin(name);
        let value = self.0.get(&variable)?;
        let values: Vec<String> = match takes {
            Takes::Many(_) => value.split_whitespace().map(str::to_owned).collect(),
            Takes::Nothing | Takes::One(_) => vec![value.clone()],
        };
        (!values.is_empty()).then(|| (Origin::Variable(variable.clone()), variable, values))
    }

    /// Refuses a variable of ours that is the twin of none of these flags.
    pub(crate) fn check(&self, known: &[&str]) -> Result<(), Usage> {
        let twins: Vec<String> = known.iter().map(|name| twin(name)).collect();
        let stranger = self.0.iter().find(|(name, value)| {
            name.starts_with(PREFIX) && !twins.contains(name) && !injected(name, value)
        });
        let Some((name, _)) = stranger else { return Ok(()) };
        Err(Usage::UnknownVariable { given: name.clone(), near: nearest(name, twins.into_iter()) })
    }
}

/// Whether Kubernetes sets this variable for a Service called `wspulse` or `wspulse-anything`.
/// Refusing it would keep every pod of that namespace from starting.
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

/// What argv may hold: the flags of a table, without what they do.
pub(crate) type Known = Vec<(&'static str, Takes)>;

/// The flags of a table, to be read.
pub(crate) fn known<D>(table: &Table<D>) -> Known {
    flags(table).into_iter().map(|flag| (flag.name, flag.takes)).collect()
}

/// Reads argv, with at most so many words that are no flags. `--help` and `--version` win over
/// whatever follows them and over the environment.
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
    match takes {
        Takes::Nothing => match parser.optional_value() {
            None => Ok("true".to_owned()),
            Some(given) => {
                let given = given.to_string_lossy().into_owned();
                Err(Usage::NeedlessValue { flag: name, given })
            }
        },
        Takes::One(value) | Takes::Many(value) => {
            let given = parser.value();
            let given = given.map_err(|_| Usage::MissingValue { flag: name.clone(), value })?;
            given.into_string().map_err(|_| Usage::NotText { name })
        }
    }
}

/// Takes for each flag what is given, or else what holds without it.
pub(crate) fn fill<D>(
    table: &Table<D>,
    mut given: BTreeMap<&'static str, Vec<String>>,
    env: &Environment,
    mut draft: D,
) -> Result<Filled<D>, Usage> {
    let mut origins = Vec::new();
    for flag in flags(table) {
        let found = env.or_twin(given.remove(flag.name), flag.name, flag.takes);
        let Some((origin, name, values)) = found else {
            origins.push(fall_back(flag, env, &mut draft)?);
            continue;
        };
        for value in values {
            let taken = (flag.take)(&mut draft, &value);
            taken.map_err(|why| Usage::BadValue { name: name.clone(), value, why: why.into() })?;
        }
        origins.push(origin);
    }
    Ok(Filled { draft, origins })
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

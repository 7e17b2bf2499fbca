//! Errors in the arguments or the environment: one line that names the flag, the value, and what
//! would be valid. Exit code 2.

use std::borrow::Cow;
use std::fmt;

use crate::proto::secrets::masked_url;
use crate::units::show_duration;

/// An error in the arguments or the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The first word is not a command.
    UnknownCommand {
        /// The word.
        given: String,
        /// The command with the most similar name.
        near: Option<String>,
    },
    /// The command does not have this flag.
    UnknownFlag {
        /// The flag, with its dashes.
        given: String,
        /// The flag with the most similar name.
        near: Option<String>,
    },
    /// A `WSPULSE_` variable that belongs to no flag of any command.
    UnknownVariable {
        /// The variable.
        given: String,
        /// The variable with the most similar name.
        near: Option<String>,
    },
    /// A surplus argument.
    Unexpected(String),
    /// A flag without its value.
    MissingValue {
        /// The flag, with its dashes.
        flag: String,
        /// The placeholder of the value in the help.
        value: &'static str,
    },
    /// A value for a flag that takes none.
    NeedlessValue {
        /// The flag, with its dashes.
        flag: String,
        /// What was given.
        given: String,
    },
    /// A value that is not UTF-8.
    NotText {
        /// The flag or variable.
        name: String,
    },
    /// A mount with a harmful parameter, without `--faults`.
    NeedsFaults {
        /// The mount as it was given.
        mount: String,
        /// The harmful parameter.
        parameter: &'static str,
    },
    /// An error of a part: a sentence that names flags and values.
    OfPart(String),
    /// A value that cannot be used.
    BadValue {
        /// The flag or variable.
        name: String,
        /// The value.
        value: String,
        /// A clause that says what the value must be.
        why: String,
    },
    /// Flags that exclude each other, or a missing one: a sentence that names them.
    Conflict(&'static str),
    /// A certificate without its key, or a key without its certificate.
    HalfTls {
        /// The flag that is there.
        given: &'static str,
        /// The flag that is not.
        missing: &'static str,
    },
    /// Origins beside `any`, which already allows them.
    OriginsBesideAny,
    /// `--ready`, which chooses a path, beside a URL that has one.
    ReadyBesidePath(String),
    /// A drain that the hard stop would cut short.
    DrainTooLong {
        /// `--drain-delay`.
        delay_ms: u64,
        /// `--drain-window`.
        window_ms: u64,
        /// What the last connection gets to answer the Close.
        close_wait_ms: u64,
        /// `--drain-timeout`.
        timeout_ms: u64,
    },
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCommand { given, near: None } => {
                let names: Vec<_> = super::verbs().map(|verb| verb.name).collect();
                unknown(f, "command", given, None)?;
                write!(f, "; the commands are {} and help", names.join(", "))
            }
            Self::UnknownCommand { given, near } => unknown(f, "command", given, near.as_deref()),
            Self::UnknownFlag { given, near } => unknown(f, "flag", given, near.as_deref()),
            Self::UnknownVariable { given, near } => unknown(f, "variable", given, near.as_deref()),
            Self::Unexpected(word) => write!(f, "unexpected argument {word:?}"),
            Self::MissingValue { flag, value } => write!(f, "{flag} needs a value: {flag} {value}"),
            Self::NeedlessValue { flag, given } => {
                write!(f, "{flag} takes no value: leave {given:?} out")
            }
            Self::NotText { name } => write!(f, "{name}: the value is not UTF-8 text"),
            Self::BadValue { name, value, why } => {
                write!(f, "{name} {:?}: {why}", masked_url(&without_user(value)))
            }
            Self::OfPart(sentence) => f.write_str(sentence),
            Self::NeedsFaults { mount, parameter } => {
                write!(f, "--mount {mount:?}: {parameter} needs --faults")
            }
            Self::Conflict(sentence) => f.write_str(sentence),
            Self::HalfTls { given, missing } => {
                write!(f, "--{given} needs --{missing}")
            }
            Self::OriginsBesideAny => {
                f.write_str("--origin any allows every page: leave the other origins out")
            }
            Self::ReadyBesidePath(path) => write!(
                f,
                "--ready requests /readyz, but the URL has the path {}: leave one out",
                path.escape_debug()
            ),
            Self::DrainTooLong { delay_ms, window_ms, close_wait_ms, timeout_ms } => write!(
                f,
                "--drain-delay {} + --drain-window {} + {} for close handshakes = {}, longer than \
                 --drain-timeout {}: raise it or shorten the others",
                show_duration(*delay_ms),
                show_duration(*window_ms),
                show_duration(*close_wait_ms),
                show_duration(delay_ms + window_ms + close_wait_ms),
                show_duration(*timeout_ms),
            ),
        }
    }
}

impl std::error::Error for Usage {}

/// A value without the user and the password that a URL may have.
fn without_user(value: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = value.split_once("://") else { return Cow::Borrowed(value) };
    // A password may have a slash that should be encoded.
    let place = rest.find(['?', '#']).map_or(rest, |end| &rest[..end]);
    match place.rfind('@') {
        Some(at) => Cow::Owned(format!("{scheme}://***{}", &rest[at..])),
        None => Cow::Borrowed(value),
    }
}

fn unknown(f: &mut fmt::Formatter<'_>, what: &str, given: &str, near: Option<&str>) -> fmt::Result {
    write!(f, "unknown {what} {}", given.escape_debug())?;
    near.map_or(Ok(()), |near| write!(f, "; did you mean {near}?"))
}

/// The name within an edit distance of two, if there is one.
pub(super) fn nearest(given: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let ranked = names.map(|name| (distance(given, &name), name));
    ranked.filter(|(errors, _)| *errors <= 2).min().map(|(_, name)| name)
}

/// The Levenshtein distance, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They end up in the logs of CI.
    #[test]
    fn passwords_in_urls_are_not_repeated() {
        for (value, want) in [
            ("ws://u:p@h/", "ws://***@h/"),
            ("ws://u:p@q/r@h/?a@b", "ws://***@h/?a@b"),
            ("ws://h/?user=a@b#c", "ws://h/?user=a@b#c"),
            ("u@h", "u@h"),
        ] {
            assert_eq!(without_user(value), want);
        }
    }

    #[test]
    fn distances() {
        for (a, b, errors) in [
            ("", "abc", 3),
            ("listen", "listen", 0),
            ("lisen", "listen", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), errors, "{a} {b}");
            assert_eq!(distance(b, a), errors, "{b} {a}");
        }
    }
}

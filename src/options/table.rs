//! The types of a flag table; the rows are in the commands' files.
//! `D` is the draft that a command's flags are written into.

use std::borrow::Cow;

/// One flag and its environment variable.
pub(crate) struct Flag<D: 'static> {
    /// `drain-window` stands for `--drain-window` and `WSPULSE_DRAIN_WINDOW`.
    pub(crate) name: &'static str,
    pub(crate) takes: Takes,
    pub(crate) fallback: Fallback<D>,
    pub(crate) help: &'static str,
    /// Parses a value into the draft, or says what it must be.
    pub(crate) take: fn(&mut D, &str) -> Taken,
    /// The effective value; empty for a flag that is not a setting, such as `--check`.
    pub(crate) show: fn(&D) -> String,
}

/// A row of a command without `--print-config`, which needs no `show`.
pub(super) const fn row<D>(
    name: &'static str,
    takes: Takes,
    fallback: Fallback<D>,
    help: &'static str,
    take: fn(&mut D, &str) -> Taken,
) -> Flag<D> {
    Flag { name, takes, fallback, help, take, show: |_| String::new() }
}

/// The result of a row's `take`: an error is a clause such as `must be a port`.
pub(crate) type Taken = Result<(), Cow<'static, str>>;

/// The value of a flag on the command line.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    /// A switch. Its variable takes 1, 0, true or false.
    Nothing,
    /// One value, shown as this placeholder; the last one given wins.
    One(&'static str),
    /// A repeatable flag. Its variable separates the values by spaces.
    Many(&'static str),
    /// The same for header fields, which may have spaces and secrets: its variable has one on each
    /// line, and errors do not repeat their values.
    Lines(&'static str),
}

impl Takes {
    /// The placeholder of the value, if the flag takes one.
    pub(crate) fn value(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::One(value) | Self::Many(value) | Self::Lines(value) => Some(value),
        }
    }
}

/// The default, when neither the flag nor its variable is given.
pub(crate) enum Fallback<D: 'static> {
    /// A switch that is off, or an optional setting that is unset.
    Off,
    /// This value is parsed as if it had been given, so help and behaviour cannot differ.
    Is(&'static str),
    /// Help shows `text`; the actual value is derived from `source`.
    From { text: &'static str, source: &'static str },
    /// The value of a variable that other programs use too; without it, help shows `text`.
    Variable { name: &'static str, take: fn(&mut D, &str) -> Taken, text: &'static str },
}

/// Flags under one heading; without a title, they continue the group above.
pub(crate) struct Group<D: 'static> {
    pub(crate) title: &'static str,
    pub(crate) flags: &'static [Flag<D>],
    /// Help lists only the names: few users need them, and help must fit a screen.
    pub(crate) brief: bool,
}

impl<D> Flag<D> {
    /// `--name VALUE`, as help shows it.
    pub(crate) fn usage(&self) -> String {
        match self.takes.value() {
            None => format!("--{}", self.name),
            Some(value) => format!("--{} {value}", self.name),
        }
    }

    /// The default as help shows it.
    pub(crate) fn default_text(&self) -> &'static str {
        match self.fallback {
            Fallback::Off => "",
            Fallback::Is("") => "empty",
            Fallback::Is(text) | Fallback::From { text, .. } | Fallback::Variable { text, .. } => {
                text
            }
        }
    }
}

/// The environment variable of a flag.
pub(crate) fn env_name(name: &str) -> String {
    format!("WSPULSE_{}", name.replace('-', "_").to_ascii_uppercase())
}

/// The flags of a command; the groups of parts are shown between its own.
pub(crate) struct Table<D: 'static> {
    pub(crate) first: &'static [Group<D>],
    pub(crate) of_parts: &'static [&'static [Group<D>]],
    pub(crate) last: &'static [Group<D>],
}

impl<D> Table<D> {
    /// A command that parts add no flags to.
    pub(crate) const fn of(groups: &'static [Group<D>]) -> Self {
        Self { first: groups, of_parts: &[], last: &[] }
    }
}

pub(crate) fn groups<D>(table: &Table<D>) -> Vec<&'static Group<D>> {
    let mut groups: Vec<&Group<D>> = table.first.iter().collect();
    for of_part in table.of_parts {
        groups.extend(of_part.iter());
    }
    groups.extend(table.last);
    groups
}

pub(crate) fn flags<D>(table: &Table<D>) -> Vec<&'static Flag<D>> {
    let mut flags = Vec::new();
    for group in groups(table) {
        flags.extend(group.flags);
    }
    flags
}

pub(crate) fn names<D>(table: &Table<D>) -> Vec<&'static str> {
    flags(table).into_iter().map(|flag| flag.name).collect()
}

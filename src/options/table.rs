//! The shape of a table of flags: what a row says, not which rows there are.
//! `D` is the draft that a command's flags are written into.

use std::borrow::Cow;

/// One flag, with its twin in the environment.
pub(crate) struct Flag<D: 'static> {
    /// `drain-window`, from which `--drain-window` and `WSPULSE_DRAIN_WINDOW` are made.
    pub(crate) name: &'static str,
    pub(crate) takes: Takes,
    pub(crate) fallback: Fallback<D>,
    /// A line of help, in plain words.
    pub(crate) help: &'static str,
    /// Writes a value into the draft, or says what it must be.
    pub(crate) take: fn(&mut D, &str) -> Taken,
    /// The effective value; empty for a flag that is no setting, such as `--check`.
    pub(crate) show: fn(&D) -> String,
}

/// What a row's `take` answers: an error is a clause such as `must be a port`.
pub(crate) type Taken = Result<(), Cow<'static, str>>;

/// What follows a flag on the command line.
#[derive(Clone, Copy)]
pub(crate) enum Takes {
    /// Nothing: it is switched on. Its twin takes 1, 0, true or false.
    Nothing,
    /// One value, named by this placeholder; of several the last one counts.
    One(&'static str),
    /// A value each time that it is given. Its twin separates them by spaces.
    Many(&'static str),
}

/// What holds when neither the flag nor its twin is given.
pub(crate) enum Fallback<D: 'static> {
    /// A switch that is off, or a thing that is not there.
    Off,
    /// This value, taken as if it had been given, so that help cannot lie about it.
    Is(&'static str),
    /// What `text` says in the help, found from `source`.
    From { text: &'static str, source: &'static str },
    /// A variable that other programs share; without it, what `text` says.
    Variable { name: &'static str, take: fn(&mut D, &str) -> Taken, text: &'static str },
}

/// Flags under one heading; without a title they belong to the group above.
pub(crate) struct Group<D: 'static> {
    pub(crate) title: &'static str,
    pub(crate) flags: &'static [Flag<D>],
    /// Help only names them: few will turn them, and a screen has an end.
    pub(crate) brief: bool,
}

impl<D> Flag<D> {
    /// `--name VALUE`, as help shows it.
    pub(crate) fn usage(&self) -> String {
        match self.takes {
            Takes::Nothing => format!("--{}", self.name),
            Takes::One(value) | Takes::Many(value) => format!("--{} {value}", self.name),
        }
    }

    /// The value that holds when none is given, in words.
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

/// The variable that stands for a flag.
pub(crate) fn twin(name: &str) -> String {
    format!("WSPULSE_{}", name.replace('-', "_").to_ascii_uppercase())
}

/// The flags of a command: groups of its own, and between them those that parts bring.
pub(crate) struct Table<D: 'static> {
    pub(crate) first: &'static [Group<D>],
    pub(crate) of_parts: &'static [&'static [Group<D>]],
    pub(crate) last: &'static [Group<D>],
}

impl<D> Table<D> {
    /// The flags of a command that parts have nothing to do with.
    pub(crate) const fn of(groups: &'static [Group<D>]) -> Self {
        Self { first: groups, of_parts: &[], last: &[] }
    }
}

/// The groups of a table, in order.
pub(crate) fn groups<D>(table: &Table<D>) -> Vec<&'static Group<D>> {
    let mut groups: Vec<&Group<D>> = table.first.iter().collect();
    for of_part in table.of_parts {
        groups.extend(of_part.iter());
    }
    groups.extend(table.last);
    groups
}

/// The flags of all groups, in order.
pub(crate) fn flags<D>(table: &Table<D>) -> Vec<&'static Flag<D>> {
    let mut flags = Vec::new();
    for group in groups(table) {
        flags.extend(group.flags);
    }
    flags
}

/// The names of all flags.
pub(crate) fn names<D>(table: &Table<D>) -> Vec<&'static str> {
    flags(table).into_iter().map(|flag| flag.name).collect()
}

//! The table of flags as people read it: `--help` on one screen, and rows for the reference.

use std::fmt::Write;

use super::table::{Flag, Table, flags, groups, twin};

/// A line of help is no longer.
const COLUMNS: usize = 98;

/// What stands around a command's flags.
pub(crate) struct Page {
    pub(crate) about: &'static str,
    pub(crate) synopsis: &'static str,
    pub(crate) foot: &'static str,
}

/// `wspulse 0.1.0`.
pub(crate) fn version() -> String {
    format!("wspulse {}\n", env!("CARGO_PKG_VERSION"))
}

/// One screen: a line a flag.
pub(crate) fn screen<D>(page: &Page, table: &Table<D>) -> String {
    let lines =
        groups(table).into_iter().filter(|group| !group.brief).flat_map(|group| group.flags);
    let width = lines.map(|flag| flag.usage().len()).max().unwrap_or(0);
    let mut text = format!("{}: {}\n{}\n", version().trim_end(), page.about, page.synopsis);
    let mut named: Vec<&str> = Vec::new();
    for group in groups(table) {
        if !group.brief || !group.title.is_empty() {
            name_them(&mut text, std::mem::take(&mut named));
        }
        if !group.title.is_empty() {
            text.push_str(group.title);
            text.push('\n');
        }
        if group.brief {
            named.extend(group.flags.iter().map(|flag| flag.name));
            continue;
        }
        for flag in group.flags {
            line(&mut text, width, &flag.usage(), &sentence(flag));
        }
    }
    name_them(&mut text, named);
    line(&mut text, width, "-h, --help", "print this text");
    line(&mut text, width, "-V, --version", "print the version");
    text + page.foot
}

/// One row a flag, for the reference.
pub(crate) fn rows<D>(table: &Table<D>) -> String {
    let mut text = String::from("| flag | variable | default | |\n|---|---|---|---|\n");
    for flag in flags(table) {
        let usage = flag.usage().replace('|', "\\|");
        let default = match flag.default_text() {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let row = format!("| `{usage}` | `{}` | {default} | {} |\n", twin(flag.name), flag.help);
        text.push_str(&row);
    }
    text
}

fn sentence<D>(flag: &Flag<D>) -> String {
    match flag.default_text() {
        "" => flag.help.to_owned(),
        default => format!("{} (default {default})", flag.help),
    }
}

/// Flags side by side; what they take and mean is said elsewhere.
fn name_them(text: &mut String, names: Vec<&str>) {
    let mut line = String::new();
    for name in names {
        let item = format!("  --{name}");
        if line.len() + item.len() > COLUMNS {
            text.push_str(&line);
            text.push('\n');
            line.clear();
        }
        line.push_str(&item);
    }
    if !line.is_empty() {
        text.push_str(&line);
        text.push('\n');
    }
}

fn line(text: &mut String, width: usize, usage: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {usage:width$}  {help}");
}

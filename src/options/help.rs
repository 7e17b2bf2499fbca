//! `--help`, which fits one screen, and the rows of docs/REFERENCE.md.

use std::fmt::Write;

use super::table::{Flag, Table, env_name, flags, groups};

const LINE_COLUMNS_MAX: usize = 98;

/// The texts around a command's flags.
pub(crate) struct Page {
    pub(crate) about: &'static str,
    pub(crate) synopsis: &'static str,
    pub(crate) foot: &'static str,
}

pub(crate) fn version() -> String {
    format!("wspulse {}\n", env!("CARGO_PKG_VERSION"))
}

/// The output of `--help`.
pub(crate) fn screen<D>(page: &Page, table: &Table<D>) -> String {
    screen_with(page, page.synopsis, table)
}

/// The same with another synopsis.
pub(crate) fn screen_with<D>(page: &Page, synopsis: &str, table: &Table<D>) -> String {
    let lines =
        groups(table).into_iter().filter(|group| !group.brief).flat_map(|group| group.flags);
    let width = lines.map(|flag| flag.usage().len()).max().unwrap_or(0);
    let mut text = format!("{}: {}\n{}\n", version().trim_end(), page.about, synopsis);
    let mut brief: Vec<&str> = Vec::new();
    for group in groups(table) {
        if !group.brief || !group.title.is_empty() {
            write_names(&mut text, std::mem::take(&mut brief));
        }
        if !group.title.is_empty() {
            text.push_str(group.title);
            text.push('\n');
        }
        if group.brief {
            brief.extend(group.flags.iter().map(|flag| flag.name));
            continue;
        }
        for flag in group.flags {
            line(&mut text, width, &flag.usage(), &sentence(flag));
        }
    }
    write_names(&mut text, brief);
    line(&mut text, width, "-h, --help", "print this text");
    line(&mut text, width, "-V, --version", "print the version");
    text + page.foot
}

/// The Markdown table of docs/REFERENCE.md.
pub(crate) fn rows<D>(table: &Table<D>) -> String {
    let mut text = String::from("| flag | variable | default | |\n|---|---|---|---|\n");
    for flag in flags(table) {
        let usage = flag.usage().replace('|', "\\|");
        let default = match flag.default_text() {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let row =
            format!("| `{usage}` | `{}` | {default} | {} |\n", env_name(flag.name), flag.help);
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

fn write_names(text: &mut String, names: Vec<&str>) {
    let mut line = String::new();
    for name in names {
        let item = format!("  --{name}");
        if line.len() + item.len() > LINE_COLUMNS_MAX {
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

//! `--print-config`: every setting with its origin, then the limits that no flag changes.

use std::fmt::Write;

use super::read::Filled;
use super::table::{Table, flags};
use crate::limits;

/// Values longer than this do not push the column of origins any further.
const VALUE_COLUMNS_MAX: usize = 28;

pub(crate) fn screen<D>(table: &Table<D>, filled: &Filled<D>) -> String {
    let rows: Vec<(&str, String, String)> = flags(table)
        .into_iter()
        .zip(&filled.origins)
        .map(|(flag, origin)| (flag.name, (flag.show)(&filled.draft), origin.to_string()))
        .filter(|(_, value, _)| !value.is_empty())
        .collect();
    let limits = limits::table().into_iter();
    let limits: Vec<_> = limits.map(|(name, value, over)| (name, value, over.to_owned())).collect();
    let mut text = String::from("# setting, value, where it comes from\n");
    columns(&mut text, &rows);
    text.push_str("\n# limits that no flag changes: name, value, what happens beyond\n");
    columns(&mut text, &limits);
    text
}

fn columns(text: &mut String, rows: &[(&str, String, String)]) {
    let names = rows.iter().map(|row| row.0.len()).max().unwrap_or(0);
    let values = rows.iter().map(|row| row.1.chars().count());
    let values = values.filter(|width| *width <= VALUE_COLUMNS_MAX).max().unwrap_or(0);
    for (name, value, note) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:names$}  {value:values$}  {note}");
    }
}

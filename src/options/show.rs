//! `--print-config`: every setting and its source, then the fixed limits.

use std::fmt::Write;

use super::read::Filled;
use super::table::{Table, flags};
use crate::limits;

/// Longer values do not widen their column.
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
    let mut text = String::from("# setting, value, source\n");
    columns(&mut text, &rows);
    text.push_str("\n# fixed limits: name, value, what happens beyond it\n");
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

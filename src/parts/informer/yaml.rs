//! Parses the subset of YAML that kubeconfigs use, including JSON: mappings, sequences, scalars.
//! As in client-go, a member that is an empty string is as if it were absent.
//! Aliases are rejected, since a few lines of them can expand to gigabytes.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

const DEPTH_MAX: usize = 32;

/// Parses the first document; `None` if it is invalid.
pub(super) fn read(text: &str) -> Option<Value> {
    let mut parser = Parser::new_from_str(text);
    let mut next = || parser.next()?.ok().map(|(event, _)| event);
    loop {
        match next()? {
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            Event::StreamEnd | Event::DocumentEnd => return Some(Value::Null),
            event => return value(event, &mut next, DEPTH_MAX),
        }
    }
}

fn value<'a>(
    event: Event<'a>,
    next: &mut dyn FnMut() -> Option<Event<'a>>,
    depth: usize,
) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    match event {
        Event::Scalar(text, style, ..) => Some(scalar(&text, style)),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match next()? {
                    Event::SequenceEnd => return Some(Value::Array(items)),
                    event => items.push(value(event, next, depth)?),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut members = Map::new();
            loop {
                match next()? {
                    Event::MappingEnd => return Some(Value::Object(members)),
                    Event::Scalar(key, ..) => {
                        let event = next()?;
                        let member = value(event, next, depth)?;
                        if member != "" {
                            members.insert(key.into_owned(), member);
                        }
                    }
                    _ => return None,
                }
            }
        }
        _ => None,
    }
}

/// Numbers stay strings, since no field of a kubeconfig that we read is a number.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    match (style, text) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        (ScalarStyle::Plain, "true" | "True" | "TRUE") => Value::Bool(true),
        (ScalarStyle::Plain, "false" | "False" | "FALSE") => Value::Bool(false),
        (_, text) => Value::String(text.to_owned()),
    }
}

//! Formats a record as one line: text for people, JSON for machines. Bytes from peers are escaped
//! in both, since either may be shown in a terminal.

use std::fmt::Write;

use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};

use crate::time::rfc3339;

/// Messages and values are cut at this many bytes: the queue limits lines, this limits a line.
const PART_BYTES_MAX: usize = 1024;

/// The format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `2026-11-21T03:18:00.123Z info  closed mount=/ws`
    Text,
    /// `{"ts":"2026-11-21T03:18:00.123Z","level":"info","event":"close","message":"closed",…}`
    Json,
}

pub(super) fn render(shape: Shape, wall_ms: i64, record: &Record<'_>) -> String {
    let message = cut(&record.args().to_string());
    let mut line = Line::begin(shape, wall_ms, record.level(), record.target(), &message);
    // Only a visitor can fail, and this one does not.
    let _ = record.key_values().visit(&mut line);
    line.end()
}

/// Formats a line of the logger itself.
pub(super) fn plain(shape: Shape, wall_ms: i64, level: Level, kind: &str, message: &str) -> String {
    Line::begin(shape, wall_ms, level, kind, &cut(message)).end()
}

/// Formats the number of suppressed lines of a kind.
pub(super) fn suppressed(shape: Shape, wall_ms: i64, kind: &str, n: u64) -> String {
    let message = format!("suppressed {n}");
    let mut line = Line::begin(shape, wall_ms, Level::Info, "suppressed", &message);
    line.pair("kind", Part::Text(cut(kind)));
    line.end()
}

/// Escapes everything that could move a cursor, change a colour or reverse the reading order.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

/// A formatted value: text is quoted in JSON, a word is not.
enum Part {
    Text(String),
    /// A number, `true`, `false` or `null`.
    Word(String),
}

struct Line {
    shape: Shape,
    text: String,
}

impl Line {
    fn begin(shape: Shape, wall_ms: i64, level: Level, kind: &str, message: &str) -> Self {
        let level = match level {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        let ts = rfc3339(wall_ms);
        match shape {
            Shape::Text => Self { shape, text: format!("{ts} {level:5} {}", escaped(message)) },
            Shape::Json => {
                let mut line = Self { shape, text: String::new() };
                let fields =
                    [("ts", &*ts), ("level", level), ("event", kind), ("message", message)];
                for (name, value) in fields {
                    line.pair(name, Part::Text(value.to_owned()));
                }
                line
            }
        }
    }

    fn pair(&mut self, name: &str, value: Part) {
        // Writing to a String cannot fail.
        let _ = match (self.shape, value) {
            (Shape::Text, Part::Text(text)) => {
                write!(self.text, " {}={}", escaped(name), quoted(&text))
            }
            (Shape::Text, Part::Word(word)) => write!(self.text, " {}={word}", escaped(name)),
            (Shape::Json, Part::Text(text)) => {
                write!(self.text, "{}{}:{}", self.separator(), json(name), json(&text))
            }
            (Shape::Json, Part::Word(word)) => {
                write!(self.text, "{}{}:{word}", self.separator(), json(name))
            }
        };
    }

    fn separator(&self) -> char {
        if self.text.is_empty() { '{' } else { ',' }
    }

    fn end(mut self) -> String {
        match self.shape {
            Shape::Text => self.text.push('\n'),
            Shape::Json => {
                self.text = visible_json(&self.text);
                self.text.push_str("}\n");
            }
        }
        self.text
    }
}

impl<'kvs> VisitSource<'kvs> for Line {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let mut visitor = Visitor(Part::Word("null".to_owned()));
        value.visit(&mut visitor)?;
        self.pair(key.as_str(), visitor.0);
        Ok(())
    }
}

/// Visits a value: numbers stay numbers, unknown types become text.
struct Visitor(Part);

impl VisitValue<'_> for Visitor {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.0 = Part::Text(cut(&value.to_string()));
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.0 = Part::Word("null".to_owned());
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = Part::Word(value.to_string());
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = Part::Word(value.to_string());
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        let text = value.to_string();
        // JSON has no infinity.
        self.0 = if value.is_finite() { Part::Word(text) } else { Part::Text(text) };
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.0 = Part::Word(value.to_string());
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
        self.0 = Part::Text(cut(value));
        Ok(())
    }
}

fn json(text: &str) -> String {
    // A string always serializes.
    serde_json::to_string(text).unwrap_or_default()
}

/// Quotes text that would otherwise not be read as one value.
fn quoted(text: &str) -> String {
    let plain = |c: char| !matches!(c, ' ' | '"' | '\\' | '=') && c.escape_debug().len() == 1;
    if !text.is_empty() && text.chars().all(|c| c == '\'' || plain(c)) {
        return text.to_owned();
    }
    format!("{text:?}")
}

/// Escapes DEL, C1 controls and invisible characters, which JSON allows and `kubectl logs` would
/// print. Outside ASCII a character can only be part of a string, where `\u` is allowed.
fn visible_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        let seen = if c.is_ascii() { c != '\x7f' } else { c.escape_debug().len() == 1 };
        if seen {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

fn cut(text: &str) -> String {
    if text.len() <= PART_BYTES_MAX {
        return text.to_owned();
    }
    let whole = text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= PART_BYTES_MAX);
    let end = whole.last().map_or(0, |(at, c)| at + c.len_utf8());
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON_MS: i64 = 1_795_231_080_123;

    fn both(message: &str, pairs: &[(&str, Value<'_>)]) -> (String, String) {
        let made = [Shape::Text, Shape::Json].map(|shape| {
            let mut record = Record::builder();
            record.level(Level::Info).target("close").key_values(&pairs);
            render(shape, NOON_MS, &record.args(format_args!("{message}")).build())
        });
        let [text, json] = made;
        (text, json)
    }

    #[test]
    fn a_closed_connection() {
        let pairs = [
            ("mount", Value::from("/ws")),
            ("duration_ms", Value::from(1500_u64)),
            ("rtt", Value::from(1.5_f64)),
            ("clean", Value::from(true)),
            ("code", Value::from(1001_u16)),
            ("left", Value::from(-1)),
        ];
        let (text, json) = both("closed", &pairs);
        assert_eq!(
            text,
            "2026-11-21T03:18:00.123Z info  closed mount=/ws duration_ms=1500 rtt=1.5 clean=true \
             code=1001 left=-1\n"
        );
        assert_eq!(
            json,
            "{\"ts\":\"2026-11-21T03:18:00.123Z\",\"level\":\"info\",\"event\":\"close\",\
             \"message\":\"closed\",\"mount\":\"/ws\",\"duration_ms\":1500,\"rtt\":1.5,\
             \"clean\":true,\"code\":1001,\"left\":-1}\n"
        );
    }

    #[test]
    fn text_values_are_quoted_when_they_must_be() {
        for (value, shown) in [
            ("/ws", "/ws"),
            ("it's", "it's"),
            ("Grüße", "Grüße"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("a=b", "\"a=b\""),
            ("say \"x\"", "\"say \\\"x\\\"\""),
            ("a\\b", "\"a\\\\b\""),
            ("\x1b[31m", "\"\\u{1b}[31m\""),
            ("a\nb", "\"a\\nb\""),
        ] {
            let (text, _) = both("m", &[("k", Value::from(value))]);
            assert_eq!(text, format!("2026-11-21T03:18:00.123Z info  m k={shown}\n"));
        }
    }

    #[test]
    fn no_invisible_character_reaches_a_terminal() {
        let nasty =
            "\x1b]0;x\x07 \r\n \x7f \u{9b}2J \u{202e}evil \u{2028} \u{feff} \u{0} \u{e0041}";
        let (text, json) = both(nasty, &[("k", Value::from(nasty))]);
        for line in [&text, &json] {
            let body = line.strip_suffix('\n').unwrap();
            assert!(
                body.chars().all(|c| c.escape_debug().len() == 1 || "\"'\\".contains(c)),
                "{body}"
            );
        }
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((read["k"].as_str(), read["message"].as_str()), (Some(nasty), Some(nasty)));
    }

    #[test]
    fn parts_are_cut_between_characters() {
        let long = "é".repeat(PART_BYTES_MAX);
        let (text, _) = both("m", &[("k", Value::from(long.as_str()))]);
        assert!(text.ends_with("é…\n") && text.len() < PART_BYTES_MAX + 64, "{}", text.len());
    }

    #[test]
    fn lines_of_the_logger_itself() {
        let text = suppressed(Shape::Text, NOON_MS, "close", 12);
        assert_eq!(text, "2026-11-21T03:18:00.123Z info  suppressed 12 kind=close\n");
        let json = plain(Shape::Json, NOON_MS, Level::Warn, "logs", "dropped 3 log lines");
        assert!(json.contains("\"level\":\"warn\",\"event\":\"logs\",\"message\":\"dropped 3"));
    }
}

//! Splits a list into its items and metadata as it arrives. Buffers one item at a time, so a page
//! needs no more memory than its largest object. Finds the ends of values without parsing them.

use super::limits;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ListPart<'a> {
    /// A whole element of `items`.
    Item(&'a [u8]),
    Metadata(&'a [u8]),
    TooLong,
    End,
}

/// Not a JSON object, or not a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

#[derive(Debug, Default)]
pub(super) struct ListParser {
    state: State,
    scan: Scanner,
    key: Vec<u8>,
    /// The beginning of an incomplete value.
    kept: Vec<u8>,
    retention: Retention,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    /// Before a member or the end of the list.
    Member,
    Key,
    Colon,
    Value,
    InValue,
    /// Before an element or the end of `items`.
    Element,
    InElement,
    Over,
}

/// Whether the current value is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Retention {
    #[default]
    Dropped,
    Kept,
    TooLong,
}

enum Found<'b> {
    /// A complete value; `None`: it is in [`ListParser::kept`].
    Value {
        state: State,
        value: Option<&'b [u8]>,
    },
    TooLong,
    End,
}

#[derive(Clone, Copy, Debug, Default)]
struct Scanner {
    depth: u32,
    within: ScanState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ScanState {
    #[default]
    Value,
    /// A number, `true`, `false` or `null`, which ends before the next delimiter.
    Word,
    String,
    Escape,
}

impl ListParser {
    /// Takes the next part off the front of `bytes`; `None`: more bytes are needed.
    pub(super) fn next<'p, 'b: 'p>(
        &'p mut self,
        bytes: &mut &'b [u8],
    ) -> Result<Option<ListPart<'p>>, Broken> {
        if !self.is_within() {
            self.kept.clear();
            self.kept.shrink_to(limits::FIELD_BYTES);
        }
        let Some(found) = self.advance(bytes)? else { return Ok(None) };
        Ok(Some(match found {
            Found::End => ListPart::End,
            Found::TooLong => ListPart::TooLong,
            Found::Value { state, value } => {
                let value = value.unwrap_or(&self.kept);
                if state == State::InElement {
                    ListPart::Item(value)
                } else {
                    ListPart::Metadata(value)
                }
            }
        }))
    }

    fn advance<'b>(&mut self, bytes: &mut &'b [u8]) -> Result<Option<Found<'b>>, Broken> {
        while let Some(&byte) = bytes.first() {
            if self.is_within() {
                let all = *bytes;
                let Some(end) = self.scan.end_of(all) else {
                    self.keep(all);
                    *bytes = &[];
                    return Ok(None);
                };
                let (value, rest) = all.split_at(end);
                *bytes = rest;
                let whole = self.kept.is_empty() && self.retention == Retention::Kept;
                if !whole {
                    self.keep(value);
                }
                let next =
                    if self.state == State::InElement { State::Element } else { State::Member };
                let state = std::mem::replace(&mut self.state, next);
                match self.retention {
                    Retention::Dropped => {}
                    Retention::TooLong => return Ok(Some(Found::TooLong)),
                    Retention::Kept => {
                        return Ok(Some(Found::Value { state, value: whole.then_some(value) }));
                    }
                }
                continue;
            }
            self.advance_state(byte)?;
            if self.is_within() {
                // The byte belongs to the value, so it is not consumed.
                self.scan = Scanner::default();
                continue;
            }
            *bytes = &bytes[1..];
            if self.state == State::Over && byte == b'}' {
                return Ok(Some(Found::End));
            }
        }
        Ok(None)
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    pub(super) fn cost(&self) -> usize {
        self.kept.capacity()
    }

    fn is_within(&self) -> bool {
        matches!(self.state, State::InValue | State::InElement)
    }

    /// Handles a byte between values.
    fn advance_state(&mut self, byte: u8) -> Result<(), Broken> {
        let space = byte.is_ascii_whitespace();
        self.state = match (self.state, byte) {
            (State::Key, b'"') => State::Colon,
            (State::Key, _) => {
                // Longer names do not matter; names with escapes are rejected.
                if self.key.len() < 16 {
                    self.key.push(byte);
                }
                if byte == b'\\' {
                    return Err(Broken);
                }
                State::Key
            }
            (state, _) if space => state,
            (State::Start, b'{') | (State::Member, b',') | (State::Element, b']') => State::Member,
            (State::Member, b'"') => {
                self.key.clear();
                State::Key
            }
            (State::Member, b'}') => State::Over,
            (State::Colon, b':') => State::Value,
            (State::Value, b'[') if self.key == b"items" => State::Element,
            (State::Value, b',' | b'}' | b']' | b':') | (State::Element, b'}' | b':') => {
                return Err(Broken);
            }
            (State::Value, _) => {
                let wanted = self.key == b"metadata";
                self.retention = if wanted { Retention::Kept } else { Retention::Dropped };
                State::InValue
            }
            (State::Element, b',') => State::Element,
            (State::Element, _) => {
                self.retention = Retention::Kept;
                State::InElement
            }
            _ => return Err(Broken),
        };
        Ok(())
    }

    /// Buffers a part of a value, up to the limit.
    fn keep(&mut self, bytes: &[u8]) {
        let most =
            if self.state == State::InElement { limits::OBJECT_BYTES } else { limits::FIELD_BYTES };
        if self.retention == Retention::Kept && self.kept.len() + bytes.len() > most {
            self.retention = Retention::TooLong;
            self.kept = Vec::new();
        }
        if self.retention == Retention::Kept {
            self.kept.extend_from_slice(bytes);
        }
    }
}

impl Scanner {
    /// The index after the value; `None` if it does not end in these bytes.
    fn end_of(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            match (self.within, byte) {
                (ScanState::Escape, _) | (ScanState::Value, b'"') => {
                    self.within = ScanState::String;
                }
                (ScanState::String, b'\\') => self.within = ScanState::Escape,
                (ScanState::String, b'"') => {
                    self.within = ScanState::Value;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                (ScanState::Word, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') => {
                    return Some(at);
                }
                (ScanState::Value, b'{' | b'[') => self.depth += 1,
                (ScanState::Value, b'}' | b']') => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                (ScanState::Value, _) if self.depth == 0 => self.within = ScanState::Word,
                (ScanState::Value | ScanState::String | ScanState::Word, _) => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parser(parts: &[&[u8]]) -> String {
        let mut parser = ListParser::default();
        let mut said = Vec::new();
        for part in parts {
            let mut bytes = *part;
            loop {
                match parser.next(&mut bytes) {
                    Ok(Some(ListPart::Item(item))) => {
                        said.push(format!("i{}", item.escape_ascii()));
                    }
                    Ok(Some(ListPart::Metadata(m))) => said.push(format!("m{}", m.escape_ascii())),
                    Ok(Some(ListPart::TooLong)) => said.push("long".to_owned()),
                    Ok(Some(ListPart::End)) => said.push("end".to_owned()),
                    Ok(None) => break,
                    Err(Broken) => {
                        said.push("broken".to_owned());
                        return said.join(" ");
                    }
                }
            }
        }
        said.join(" ")
    }

    fn any_cut(text: &str) -> String {
        let bytes = text.as_bytes();
        let whole = parser(&[bytes]);
        for cut in 0..bytes.len() {
            assert_eq!(parser(&[&bytes[..cut], &bytes[cut..]]), whole, "{text} cut at {cut}");
        }
        assert_eq!(parser(&bytes.chunks(1).collect::<Vec<_>>()), whole, "{text} in bytes");
        whole
    }

    #[test]
    fn cuts_do_not_change_the_parts() {
        for (text, want) in [
            (
                r#"{"kind":"L","metadata":{"a":"}"},"items":[{"b":[1]},{"c":"\"]"}]}"#,
                r#"m{\"a\":\"}\"} i{\"b\":[1]} i{\"c\":\"\\\"]\"} end"#,
            ),
            (r#" { "items" : [ ] , "metadata" : { } } "#, "m{ } end"),
            (r#"{"items":null,"metadata":{"x":1}}"#, r#"m{\"x\":1} end"#),
            (r#"{"items":[1,true,"x",null],"n":12}"#, r#"i1 itrue i\"x\" inull end"#),
            ("{}", "end"),
            ("{}x", "end broken"),
            ("<html>", "broken"),
            ("[]", "broken"),
            ("null", "broken"),
            (r#"{"items":[}"#, "broken"),
            (r#"{"items":,"#, "broken"),
            (r#"{"a"x"#, "broken"),
            (r#"{"ite\u006ds":[]}"#, "broken"),
            (r#"{"items":[{"a":1"#, ""),
        ] {
            assert_eq!(any_cut(text), want, "{text}");
        }
    }

    #[test]
    fn long_values_are_dropped() {
        let text = format!(r#"{{"items":[{{"a":"{}"}},2]}}"#, "x".repeat(limits::OBJECT_BYTES));
        let parts: Vec<&[u8]> = text.as_bytes().chunks(60_000).collect();
        assert_eq!(parser(&parts), "long i2 end");
        let bomb = format!(r#"{{"items":[{}{},3]}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(parser(&[bomb.as_bytes()]).ends_with(" i3 end"));
    }
}

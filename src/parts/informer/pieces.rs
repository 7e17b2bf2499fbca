//! A list, taken apart as it arrives: each of its items, and its own metadata. It holds one item
//! at a time, so a page costs no more memory than its largest object. It judges no value; where
//! values begin and end is all that it knows of JSON.

use super::limits;

/// A part of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A whole element of `items`.
    Item(&'a [u8]),
    /// The value of `metadata`.
    Metadata(&'a [u8]),
    /// A value that is too long to be kept.
    TooLong,
    /// The list is over.
    End,
}

/// It is no JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// A list that arrives.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    place: Place,
    scan: Scan,
    /// The present member's name, as far as it can matter.
    key: Vec<u8>,
    /// The beginning of a value that is not there as a whole.
    kept: Vec<u8>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    /// Before a member, or the end.
    Member,
    Key,
    Colon,
    Value,
    InValue,
    /// Before an element of `items`, or their end.
    Element,
    InElement,
    Over,
}

/// What becomes of the present value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Dropped,
    Kept,
    TooLong,
}

/// What [`Pieces::advance`] comes to.
enum Found<'b> {
    /// A value that lies whole in the bytes, or in what was kept.
    Value {
        place: Place,
        value: Option<&'b [u8]>,
    },
    TooLong,
    End,
}

/// How deep in a value we are.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    depth: u32,
    within: Within,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Within {
    #[default]
    Value,
    /// A number, `true`, `false` or `null`, which ends before whatever follows.
    Word,
    String,
    Escape,
}

impl Pieces {
    /// The next piece in `bytes`, which it takes off their front; `None`: more bytes are needed.
    pub(super) fn next<'p, 'b: 'p>(
        &'p mut self,
        bytes: &mut &'b [u8],
    ) -> Result<Option<Piece<'p>>, Broken> {
        if !self.is_within() {
            self.kept.clear();
            self.kept.shrink_to(limits::FIELD_BYTES);
        }
        let Some(found) = self.advance(bytes)? else { return Ok(None) };
        Ok(Some(match found {
            Found::End => Piece::End,
            Found::TooLong => Piece::TooLong,
            Found::Value { place, value } => {
                let value = value.unwrap_or(&self.kept);
                if place == Place::InElement { Piece::Item(value) } else { Piece::Metadata(value) }
            }
        }))
    }

    /// Goes on to where something is found.
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
                let whole = self.kept.is_empty() && self.fate == Fate::Kept;
                if !whole {
                    self.keep(value);
                }
                let next =
                    if self.place == Place::InElement { Place::Element } else { Place::Member };
                let place = std::mem::replace(&mut self.place, next);
                match self.fate {
                    Fate::Dropped => {}
                    Fate::TooLong => return Ok(Some(Found::TooLong)),
                    Fate::Kept => {
                        return Ok(Some(Found::Value { place, value: whole.then_some(value) }));
                    }
                }
                continue;
            }
            self.step(byte)?;
            if self.is_within() {
                // The value's first byte is part of it.
                self.scan = Scan::default();
                continue;
            }
            *bytes = &bytes[1..];
            if self.place == Place::Over && byte == b'}' {
                return Ok(Some(Found::End));
            }
        }
        Ok(None)
    }

    /// Whether all of it has come.
    pub(super) fn is_over(&self) -> bool {
        self.place == Place::Over
    }

    /// What it holds.
    pub(super) fn cost(&self) -> usize {
        self.kept.capacity()
    }

    fn is_within(&self) -> bool {
        matches!(self.place, Place::InValue | Place::InElement)
    }

    /// A byte between values.
    fn step(&mut self, byte: u8) -> Result<(), Broken> {
        let space = byte.is_ascii_whitespace();
        self.place = match (self.place, byte) {
            (Place::Key, b'"') => Place::Colon,
            (Place::Key, _) => {
                // Longer ones, and those with escapes, are none of ours.
                if self.key.len() < 16 {
                    self.key.push(byte);
                }
                if byte == b'\\' {
                    return Err(Broken);
                }
                Place::Key
            }
            (place, _) if space => place,
            (Place::Start, b'{') | (Place::Member, b',') | (Place::Element, b']') => Place::Member,
            (Place::Member, b'"') => {
                self.key.clear();
                Place::Key
            }
            (Place::Member, b'}') => Place::Over,
            (Place::Colon, b':') => Place::Value,
            (Place::Value, b'[') if self.key == b"items" => Place::Element,
            (Place::Value, b',' | b'}' | b']' | b':') | (Place::Element, b'}' | b':') => {
                return Err(Broken);
            }
            (Place::Value, _) => {
                let wanted = self.key == b"metadata";
                self.fate = if wanted { Fate::Kept } else { Fate::Dropped };
                Place::InValue
            }
            (Place::Element, b',') => Place::Element,
            (Place::Element, _) => {
                self.fate = Fate::Kept;
                Place::InElement
            }
            _ => return Err(Broken),
        };
        Ok(())
    }

    /// What there is of a value that goes on.
    fn keep(&mut self, bytes: &[u8]) {
        let most =
            if self.place == Place::InElement { limits::OBJECT_BYTES } else { limits::FIELD_BYTES };
        if self.fate == Fate::Kept && self.kept.len() + bytes.len() > most {
            self.fate = Fate::TooLong;
            self.kept = Vec::new();
        }
        if self.fate == Fate::Kept {
            self.kept.extend_from_slice(bytes);
        }
    }
}

impl Scan {
    /// Where the value ends; `None`: not in these bytes.
    fn end_of(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            match (self.within, byte) {
                (Within::Escape, _) | (Within::Value, b'"') => self.within = Within::String,
                (Within::String, b'\\') => self.within = Within::Escape,
                (Within::String, b'"') => {
                    self.within = Within::Value;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                (Within::Word, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') => {
                    return Some(at);
                }
                (Within::Value, b'{' | b'[') => self.depth += 1,
                (Within::Value, b'}' | b']') => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                (Within::Value, _) if self.depth == 0 => self.within = Within::Word,
                (Within::Value | Within::String | Within::Word, _) => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(parts: &[&[u8]]) -> String {
        let mut pieces = Pieces::default();
        let mut said = Vec::new();
        for part in parts {
            let mut bytes = *part;
            loop {
                match pieces.next(&mut bytes) {
                    Ok(Some(Piece::Item(item))) => said.push(format!("i{}", item.escape_ascii())),
                    Ok(Some(Piece::Metadata(m))) => said.push(format!("m{}", m.escape_ascii())),
                    Ok(Some(Piece::TooLong)) => said.push("long".to_owned()),
                    Ok(Some(Piece::End)) => said.push("end".to_owned()),
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
        let whole = pieces(&[bytes]);
        for cut in 0..bytes.len() {
            assert_eq!(pieces(&[&bytes[..cut], &bytes[cut..]]), whole, "{text} cut at {cut}");
        }
        assert_eq!(pieces(&bytes.chunks(1).collect::<Vec<_>>()), whole, "{text} in bytes");
        whole
    }

    #[test]
    fn a_list_comes_apart_wherever_it_is_cut() {
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
    fn what_is_too_long_is_not_kept() {
        let text = format!(r#"{{"items":[{{"a":"{}"}},2]}}"#, "x".repeat(limits::OBJECT_BYTES));
        let parts: Vec<&[u8]> = text.as_bytes().chunks(60_000).collect();
        assert_eq!(pieces(&parts), "long i2 end");
        let bomb = format!(r#"{{"items":[{}{},3]}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(pieces(&[bomb.as_bytes()]).ends_with(" i3 end"));
    }
}

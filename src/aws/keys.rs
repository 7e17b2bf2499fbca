//! Whose signatures count: a file in the format of `~/.aws/credentials`, so that one file serves
//! a client and the gateway. It knows the text, not how the file is read.

use std::collections::BTreeMap;

use super::secret::Secret;

/// More keys than this are no file of ours.
const KEYS_MAX: usize = 1024;
const FILE_BYTES: usize = 256 * 1024;
/// Longer ones are no keys.
const KEY_BYTES: usize = 128;

/// Access keys and their secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(BTreeMap<String, Secret>);

/// Why a file has no keys; it never says what stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Nobody could sign.
    Empty,
    /// It is too long, or has too many keys.
    TooLong,
    /// It is not text.
    NotText,
    /// This line is neither a section, nor `name = value`, nor a comment.
    Line(usize),
    /// The section that ends with this line has one half of a pair.
    Half(usize),
    /// The key in the section that ends with this line stands in another one as well.
    Twice(usize),
}

impl core::fmt::Display for Wrong {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("has no aws_access_key_id with its aws_secret_access_key"),
            Self::TooLong => f.write_str("is too long"),
            Self::NotText => f.write_str("is not text"),
            Self::Line(line) => write!(f, "line {line} is neither [section] nor name = value"),
            Self::Half(line) => write!(
                f,
                "the section that ends with line {line} needs aws_access_key_id and \
                 aws_secret_access_key"
            ),
            Self::Twice(line) => {
                write!(f, "the key in the section that ends with line {line} is there twice")
            }
        }
    }
}

impl Keys {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it; half a file has no keys at all, so that the old ones stay.
    pub fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        if bytes.len() > FILE_BYTES {
            return Err(Wrong::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Wrong::NotText)?;
        let mut keys = Self::default();
        let (mut id, mut secret) = (None, None);
        let mut last = 0;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            last = number;
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if line.starts_with('[') && line.ends_with(']') {
                keys.add(number - 1, id.take(), secret.take())?;
                continue;
            }
            let (name, value) = line.split_once('=').ok_or(Wrong::Line(number))?;
            let value = value.trim();
            let sound = value.len() <= KEY_BYTES && value.bytes().all(|b| b.is_ascii_graphic());
            match name.trim() {
                "aws_access_key_id" if sound => id = Some(value),
                "aws_secret_access_key" if sound => secret = Some(value),
                "aws_access_key_id" | "aws_secret_access_key" => return Err(Wrong::Line(number)),
                // A region, a role: others read them.
                _ => {}
            }
        }
        keys.add(last, id, secret)?;
        if keys.0.is_empty() { Err(Wrong::Empty) } else { Ok(keys) }
    }

    fn add(&mut self, line: usize, id: Option<&str>, secret: Option<&str>) -> Result<(), Wrong> {
        let (id, secret) = match (id, secret) {
            (None, None) => return Ok(()),
            (Some(id), Some(secret)) if !id.is_empty() && !secret.is_empty() => (id, secret),
            _ => return Err(Wrong::Half(line)),
        };
        if self.0.insert(id.to_owned(), Secret::new(secret)).is_some() {
            return Err(Wrong::Twice(line));
        }
        if self.0.len() > KEYS_MAX { Err(Wrong::TooLong) } else { Ok(()) }
    }

    /// The secret that goes with an access key.
    #[must_use]
    pub fn secret(&self, access_key: &str) -> Option<&Secret> {
        self.0.get(access_key)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody can sign.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_aws_tools() {
        let text = b"# ours\n[default]\naws_access_key_id = AKID1\naws_secret_access_key=a/b+c=\n\
            region = eu-west-1\n\n[other]\r\naws_secret_access_key = two\r\n\
            aws_access_key_id = AKID2\r\n";
        let keys = Keys::parse(text).unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys.secret("AKID1").unwrap().reveal(), "a/b+c=");
        assert_eq!(keys.secret("AKID2").unwrap().reveal(), "two");
        assert_eq!(keys.secret("AKID3"), None);
        assert!(!format!("{keys:?}").contains("two"));
    }

    #[test]
    fn files_that_are_none() {
        for (text, why) in [
            ("", Wrong::Empty),
            ("[default]\n", Wrong::Empty),
            ("AKID secret\n", Wrong::Line(1)),
            ("[a]\naws_access_key_id = A B\n", Wrong::Line(2)),
            ("[a]\naws_access_key_id = A\n[b]\n", Wrong::Half(2)),
            ("[a]\naws_access_key_id =\naws_secret_access_key = s\n", Wrong::Half(3)),
            (
                "[a]\naws_access_key_id=A\naws_secret_access_key=s\n\
                 [b]\naws_access_key_id=A\naws_secret_access_key=s",
                Wrong::Twice(6),
            ),
        ] {
            assert_eq!(Keys::parse(text.as_bytes()), Err(why), "{text}");
        }
        assert_eq!(Keys::parse(b"\xff"), Err(Wrong::NotText));
        assert_eq!(Keys::parse(&vec![b'\n'; FILE_BYTES + 1]), Err(Wrong::TooLong));
    }
}

//! Parses access keys in the format of `~/.aws/credentials`, so that a client and the gateway can
//! share one file.

use std::collections::BTreeMap;

use super::secret::Secret;

const KEYS_MAX: usize = 1024;
const FILE_BYTES: usize = 256 * 1024;
const KEY_BYTES: usize = 128;
const TOKEN_BYTES: usize = 8 * 1024;

/// Secret keys by access key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(BTreeMap<String, Key>);

/// A secret key and, for temporary credentials, the session token that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Signs requests.
    pub secret: Secret,
    /// Sent with each request, in `X-Amz-Security-Token`.
    pub session_token: Option<Secret>,
}

/// The lines of one section.
#[derive(Default)]
struct Section<'a> {
    id: Option<&'a str>,
    secret: Option<&'a str>,
    session_token: Option<&'a str>,
}

/// Why a file is invalid. Never quotes its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysError {
    /// The file has no keys.
    Empty,
    /// The file is too large or has too many keys.
    TooLong,
    /// The file is not UTF-8.
    NotText,
    /// This line is not a section, `name = value` or a comment.
    Line(usize),
    /// The section that ends at this line has an access key or a secret key but not both.
    Half(usize),
    /// The access key of the section that ends at this line appears in another section too.
    Twice(usize),
}

impl core::fmt::Display for KeysError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("has no aws_access_key_id with its aws_secret_access_key"),
            Self::TooLong => f.write_str("is too long"),
            Self::NotText => f.write_str("is not text"),
            Self::Line(line) => write!(f, "line {line} is not [section] or name = value"),
            Self::Half(line) => write!(
                f,
                "the section that ends at line {line} needs both aws_access_key_id and \
             aws_secret_access_key"
            ),
            Self::Twice(line) => {
                write!(f, "duplicate access key in the section that ends at line {line}")
            }
        }
    }
}

impl Keys {
    /// Parses a file.
    ///
    /// # Errors
    /// Any error rejects the whole file, so that a half-written one does not replace the old keys.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeysError> {
        if bytes.len() > FILE_BYTES {
            return Err(KeysError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| KeysError::NotText)?;
        let mut keys = Self::default();
        let mut section = Section::default();
        let mut last = 0;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            last = number;
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if line.starts_with('[') && line.ends_with(']') {
                keys.add(number - 1, &std::mem::take(&mut section))?;
                continue;
            }
            let (name, value) = line.split_once('=').ok_or(KeysError::Line(number))?;
            let value = value.trim();
            let (field, most) = match name.trim() {
                "aws_access_key_id" => (&mut section.id, KEY_BYTES),
                "aws_secret_access_key" => (&mut section.secret, KEY_BYTES),
                "aws_session_token" => (&mut section.session_token, TOKEN_BYTES),
                // Settings of other tools, such as the region.
                _ => continue,
            };
            if value.len() > most || !value.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(KeysError::Line(number));
            }
            *field = Some(value);
        }
        keys.add(last, &section)?;
        if keys.0.is_empty() { Err(KeysError::Empty) } else { Ok(keys) }
    }

    fn add(&mut self, line: usize, section: &Section<'_>) -> Result<(), KeysError> {
        let (id, secret) = match (section.id, section.secret) {
            (None, None) => return Ok(()),
            (Some(id), Some(secret)) if !id.is_empty() && !secret.is_empty() => (id, secret),
            _ => return Err(KeysError::Half(line)),
        };
        let token = section.session_token.filter(|token| !token.is_empty());
        let key = Key { secret: Secret::new(secret), session_token: token.map(Secret::new) };
        if self.0.insert(id.to_owned(), key).is_some() {
            return Err(KeysError::Twice(line));
        }
        if self.0.len() > KEYS_MAX { Err(KeysError::TooLong) } else { Ok(()) }
    }

    /// The key of this access key.
    #[must_use]
    pub fn find(&self, access_key: &str) -> Option<&Key> {
        self.0.get(access_key)
    }

    /// The number of access keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_file() {
        let text = b"# ours\n[default]\naws_access_key_id = AKID1\naws_secret_access_key=a/b+c=\n\
            region = eu-west-1\n\n[other]\r\naws_secret_access_key = two\r\n\
            aws_access_key_id = AKID2\r\naws_session_token = three==\r\n";
        let keys = Keys::parse(text).unwrap();
        assert_eq!(keys.len(), 2);
        let [first, second] = ["AKID1", "AKID2"].map(|id| keys.find(id).unwrap());
        assert_eq!((first.secret.reveal(), &first.session_token), ("a/b+c=", &None));
        assert_eq!(second.secret.reveal(), "two");
        assert_eq!(second.session_token.as_ref().unwrap().reveal(), "three==");
        assert_eq!(keys.find("AKID3"), None);
        assert!(!format!("{keys:?}").contains("two"));
    }

    #[test]
    fn invalid_files() {
        for (text, why) in [
            ("", KeysError::Empty),
            ("[default]\n", KeysError::Empty),
            ("AKID secret\n", KeysError::Line(1)),
            ("[a]\naws_access_key_id = A B\n", KeysError::Line(2)),
            ("[a]\naws_session_token = a b\n", KeysError::Line(2)),
            ("[a]\naws_access_key_id = A\n[b]\n", KeysError::Half(2)),
            ("[a]\naws_access_key_id =\naws_secret_access_key = s\n", KeysError::Half(3)),
            (
                "[a]\naws_access_key_id=A\naws_secret_access_key=s\n\
                 [b]\naws_access_key_id=A\naws_secret_access_key=s",
                KeysError::Twice(6),
            ),
        ] {
            assert_eq!(Keys::parse(text.as_bytes()), Err(why), "{text}");
        }
        assert_eq!(Keys::parse(b"\xff"), Err(KeysError::NotText));
        assert_eq!(Keys::parse(&vec![b'\n'; FILE_BYTES + 1]), Err(KeysError::TooLong));
    }
}

//! Ids of connections: 128 random bits, opaque to everyone, written in base64url.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The id of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub [u8; 16]);

impl Name {
    /// Reads what somebody sent in its place; `None`: nobody has such a name. What it may end
    /// with as padding is no part of it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
        let mut bytes = [0; 16];
        let read = URL_SAFE_NO_PAD.decode_slice(bare.get(..22)?, &mut bytes);
        (bare.len() == 22 && read == Ok(16)).then_some(Self(bytes))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// Names for tests: they can be guessed.
#[must_use]
pub fn counted(count: u64) -> Option<[u8; 16]> {
    let mut bytes = *b"for tests\0\0\0\0\0\0\0";
    bytes[9..].copy_from_slice(&count.to_be_bytes()[1..]);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_shape() {
        let name = Name(*b"\xff\xfe0123456789abcd");
        let text = name.to_string();
        assert_eq!(text.len(), 22);
        for padding in ["", "=", "=="] {
            assert_eq!(Name::parse(&format!("{text}{padding}")), Some(name));
        }
        for other in [
            "",
            "=",
            "a",
            "../",
            &text[..21],
            &format!("{text}a"),
            "☃☃☃☃☃☃☃☃",
            "//////////////////////",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
        // The last digit has four bits that mean nothing: one spelling for each name.
        assert_eq!(Name::parse(&format!("{}B", &text[..21])), None);
    }
}

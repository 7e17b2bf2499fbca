//! Connection ids of the callback API: 128 random bits in base64url.

use core::cmp::Ordering;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Unguessable, unlike [`Id`](crate::engine::Id).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId(pub [u8; 16]);

/// As one number, since comparing bytes costs several times as much.
impl Ord for ConnectionId {
    fn cmp(&self, other: &Self) -> Ordering {
        u128::from_ne_bytes(self.0).cmp(&u128::from_ne_bytes(other.0))
    }
}

impl PartialOrd for ConnectionId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl ConnectionId {
    /// An id of these random bits.
    pub(super) fn drawn(mut bits: [u8; 16]) -> Self {
        bits[0] = without_dash(bits[0]);
        Self(bits)
    }

    /// The id as clients and backends see it.
    pub(super) fn text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Parses an id from a request, with or without padding; `None` if it is invalid.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
        let mut bytes = [0; 16];
        let read = URL_SAFE_NO_PAD.decode_slice(bare.get(..22)?, &mut bytes);
        (bare.len() == 22 && read == Ok(16)).then_some(Self(bytes))
    }
}

/// A first byte whose text in base64url does not begin with `-`: the `aws` command and others would
/// take such an id for a flag.
#[must_use]
pub fn without_dash(first: u8) -> u8 {
    const DASH: u8 = 62;
    if first >> 2 == DASH { first & 0x7f } else { first }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// Predictable ids, for tests.
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
    fn no_id_looks_like_a_flag() {
        let texts = (0..=255).map(|first| ConnectionId::drawn([first; 16]).to_string());
        let all: Vec<String> = texts.collect();
        assert!(all.iter().all(|id| !id.starts_with('-')), "{all:?}");
        assert_eq!(all.iter().filter(|id| id.starts_with('_')).count(), 4);
    }

    #[test]
    fn valid_and_invalid_ids() {
        let id = ConnectionId(*b"\xff\xfe0123456789abcd");
        let text = id.to_string();
        assert_eq!(text.len(), 22);
        for padding in ["", "=", "=="] {
            assert_eq!(ConnectionId::parse(&format!("{text}{padding}")), Some(id));
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
            assert_eq!(ConnectionId::parse(other), None, "{other}");
        }
        // The last digit has four unused bits, which must be 0: each id has one spelling.
        assert_eq!(ConnectionId::parse(&format!("{}B", &text[..21])), None);
    }
}

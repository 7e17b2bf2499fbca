//! The peer keys: read from a file, shared by all replicas. Ids and peer connections are protected
//! by keys derived from them (HKDF), so that no derived key is used for two purposes.

use core::fmt;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::{aead, hkdf};

use super::super::connection_id::without_dash;

/// Maximum keys in a file.
pub const KEYS_MAX: usize = 3;
/// Length of a key.
pub const KEY_BYTES: usize = 32;
const FINGERPRINT_BYTES: usize = 16;
/// Separates these keys from other uses of the same secret.
const SALT: &[u8] = b"wspulse peers 1";

/// Identifies a key in ids and handshakes; derived from the key.
pub type KeyId = u8;

/// A peer key.
#[derive(Clone, Debug)]
pub struct PeerKey {
    prk: hkdf::Prk,
    fingerprint: [u8; FINGERPRINT_BYTES],
}

impl PeerKey {
    fn new(secret: &[u8; KEY_BYTES]) -> Self {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(secret);
        let mut fingerprint = [0; FINGERPRINT_BYTES];
        // The length is valid, so this cannot fail.
        let filled = prk
            .expand(&[b"fingerprint"], FingerprintLen)
            .and_then(|okm| okm.fill(&mut fingerprint));
        debug_assert!(filled.is_ok(), "a fingerprint has {FINGERPRINT_BYTES} bytes");
        Self { prk, fingerprint }
    }

    /// Its id, with which ids of connections begin.
    #[must_use]
    pub fn id(&self) -> KeyId {
        without_dash(self.fingerprint[0])
    }

    /// Derives the key for a purpose.
    pub(super) fn derive(&self, purpose: &[&[u8]]) -> Option<aead::LessSafeKey> {
        let okm = self.prk.expand(purpose, &aead::CHACHA20_POLY1305).ok()?;
        Some(aead::LessSafeKey::new(aead::UnboundKey::from(okm)))
    }
}

impl PartialEq for PeerKey {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

struct FingerprintLen;

impl hkdf::KeyType for FingerprintLen {
    fn len(&self) -> usize {
        FINGERPRINT_BYTES
    }
}

/// The keys of a file, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerKeys(Vec<PeerKey>);

/// Why a key file is refused. Line numbers count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFileError {
    /// It has no key.
    Empty,
    /// It has more than [`KEYS_MAX`] keys.
    TooMany,
    /// This line is not hex or base64.
    NotEncoded(usize),
    /// This line has this many bytes instead of [`KEY_BYTES`].
    WrongLength(usize, usize),
    /// These lines have the same key.
    Duplicate(usize, usize),
    /// The keys of these lines have the same id.
    Collision(usize, usize),
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "has no key: it needs 1 to {KEYS_MAX} lines of 32 bytes"),
            Self::TooMany => write!(f, "has more than {KEYS_MAX} keys"),
            Self::NotEncoded(line) => {
                write!(f, "line {line} must be {KEY_BYTES} bytes in hex or base64")
            }
            Self::WrongLength(line, bytes) => {
                write!(f, "line {line} has {bytes} bytes instead of {KEY_BYTES}")
            }
            Self::Duplicate(one, other) => write!(f, "lines {one} and {other} have the same key"),
            Self::Collision(one, other) => write!(
                f,
                "the keys of lines {one} and {other} have the same key id: generate another key"
            ),
        }
    }
}

impl PeerKeys {
    /// Parses a key file: 1 to 3 lines, each with 32 bytes in hex or base64. The first key mints
    /// ids, all of them open ids. Empty lines are skipped.
    ///
    /// # Errors
    /// The reason, without any part of a key.
    pub fn parse(file: &[u8]) -> Result<Self, KeyFileError> {
        let mut keys: Vec<(usize, PeerKey)> = Vec::new();
        for (line, text) in (1..).zip(file.split(|byte| *byte == b'\n')) {
            let text = text.trim_ascii();
            if text.is_empty() {
                continue;
            }
            if keys.len() == KEYS_MAX {
                return Err(KeyFileError::TooMany);
            }
            let bytes = decoded(text).ok_or(KeyFileError::NotEncoded(line))?;
            let secret = <[u8; KEY_BYTES]>::try_from(bytes)
                .map_err(|bytes| KeyFileError::WrongLength(line, bytes.len()))?;
            let key = PeerKey::new(&secret);
            for (other, known) in &keys {
                if *known == key {
                    return Err(KeyFileError::Duplicate(*other, line));
                }
                if known.id() == key.id() {
                    return Err(KeyFileError::Collision(*other, line));
                }
            }
            keys.push((line, key));
        }
        if keys.is_empty() {
            return Err(KeyFileError::Empty);
        }
        Ok(Self(keys.into_iter().map(|(_, key)| key).collect()))
    }

    /// The key that mints ids.
    #[must_use]
    pub fn first(&self) -> &PeerKey {
        &self.0[0]
    }

    /// The key with this id.
    #[must_use]
    pub fn find(&self, id: KeyId) -> Option<&PeerKey> {
        self.0.iter().find(|key| key.id() == id)
    }

    /// Whether it has this key.
    pub(super) fn has(&self, key: &PeerKey) -> bool {
        self.0.contains(key)
    }
}

/// Decodes hex, or base64 in either alphabet with or without padding. Hex digits are valid base64:
/// text with the length of a key in base64 is base64.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let is_key_length = matches!(text.len(), 43 | 44);
    if text.iter().all(u8::is_ascii_hexdigit) && text.len().is_multiple_of(2) && !is_key_length {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
        let pair = |pair: &[u8]| Some(digit(&pair[0])? << 4 | digit(&pair[1])?);
        return text.chunks_exact(2).map(pair).collect();
    }
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let mut alphabets = [STANDARD, URL_SAFE].into_iter();
    alphabets.find_map(|alphabet| GeneralPurpose::new(&alphabet, lenient).decode(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

    fn hex(byte: u8) -> String {
        format!("{byte:02x}").repeat(KEY_BYTES)
    }

    #[test]
    fn no_sealed_id_looks_like_a_flag() {
        let ids: Vec<KeyId> = (0..=255).map(|n| PeerKey::new(&[n; KEY_BYTES]).id()).collect();
        assert!(ids.iter().all(|id| id >> 2 != 62), "{ids:?}");
    }

    #[test]
    fn hex_and_base64_are_the_same_key() {
        let base64 = "ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=";
        let keys = PeerKeys::parse(ONE.as_bytes()).unwrap();
        for other in [
            base64.to_owned(),
            base64.trim_end_matches('=').to_owned(),
            base64.replace('/', "_"),
            format!("\r\n  {ONE}\r\n\n"),
        ] {
            assert_eq!(PeerKeys::parse(other.as_bytes()).as_ref(), Ok(&keys), "{other}");
        }
    }

    #[test]
    fn invalid_files() {
        let lines = |keys: &[String]| PeerKeys::parse(keys.join("\n").as_bytes());
        let one = || ONE.to_owned();
        for (file, why) in [
            (vec![], "has no key: it needs 1 to 3 lines of 32 bytes"),
            (vec![String::new(), " ".to_owned()], "has no key: it needs 1 to 3 lines of 32 bytes"),
            (vec![ONE[..62].to_owned()], "line 1 has 31 bytes instead of 32"),
            (vec![one(), "c2hvcnQ=".to_owned()], "line 2 has 5 bytes instead of 32"),
            (vec!["☃".to_owned()], "line 1 must be 32 bytes in hex or base64"),
            (vec![String::new(), format!("{ONE}0!")], "line 2 must be 32 bytes in hex or base64"),
            (vec![one(), one()], "lines 1 and 2 have the same key"),
            (vec![one(), ONE.to_ascii_lowercase()], "lines 1 and 2 have the same key"),
            (vec![hex(1), hex(2), hex(3), hex(4)], "has more than 3 keys"),
        ] {
            assert_eq!(lines(&file).unwrap_err().to_string(), why, "{file:?}");
        }
    }

    /// Ids have one byte: of 24 keys, two collide.
    #[test]
    fn keys_with_the_same_id_are_refused() {
        let mut collisions = 0;
        for (one, other) in (0..48).flat_map(|one| (0..one).map(move |other| (one, other))) {
            match PeerKeys::parse(format!("{}\n\n{}", hex(one), hex(other)).as_bytes()) {
                Ok(keys) => assert!(keys.find(keys.first().id()).is_some()),
                Err(KeyFileError::Collision(1, 3)) => collisions += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert!((1..40).contains(&collisions), "{collisions}");
    }

    #[test]
    fn debug_output_has_no_key() {
        let shown = format!("{:?}", PeerKeys::parse(ONE.as_bytes()));
        assert!(!shown.to_ascii_lowercase().contains("00112233"), "{shown}");
    }
}

//! SHA-256 and HMAC-SHA-256; the only file that names the crypto library.

use ring::{digest, hmac};

/// Size of a hash or MAC.
pub const BYTES: usize = 32;

/// Computes a SHA-256 hash.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; BYTES] {
    sized(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Computes an HMAC-SHA-256.
#[must_use]
pub fn hmac(key: &[u8], bytes: &[u8]) -> [u8; BYTES] {
    sized(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes).as_ref())
}

/// Verifies an HMAC-SHA-256 in constant time.
#[must_use]
pub fn verify_hmac(key: &[u8], bytes: &[u8], code: &[u8]) -> bool {
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes, code).is_ok()
}

/// Encodes bytes in lowercase hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|b| [b >> 4, b & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Parses a MAC in lowercase hex; uppercase digits are rejected.
#[must_use]
pub fn parse_hex(text: &str) -> Option<[u8; BYTES]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * BYTES {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn sized(bytes: &[u8]) -> [u8; BYTES] {
    let mut sized = [0; BYTES];
    sized.copy_from_slice(bytes);
    sized
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trip() {
        let hash = sha256(b"");
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(&hash), text);
        assert_eq!(parse_hex(text), Some(hash));
        for bad in ["", "e3", &text.to_uppercase(), &text.replace('e', "g"), &format!("{text}00")] {
            assert_eq!(parse_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn hmac_of_rfc_4231() {
        let code = hmac(b"Jefe", b"what do ya want for nothing?");
        let text = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&code), text);
        assert!(verify_hmac(b"Jefe", b"what do ya want for nothing?", &code));
        assert!(!verify_hmac(b"Jefe", b"what do ya want for nothing!", &code));
        assert!(!verify_hmac(b"Jefe", b"what do ya want for nothing?", &code[..31]));
    }
}

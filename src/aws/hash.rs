//! SHA-256 and HMAC, all that signatures need of cryptography; the only place that names who
//! computes them.

use ring::{digest, hmac};

/// Bytes of a hash, and of a code.
pub const BYTES: usize = 32;

/// The hash of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; BYTES] {
    sized(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// The code of some bytes, which only who has the key can compute.
#[must_use]
pub fn hmac(key: &[u8], bytes: &[u8]) -> [u8; BYTES] {
    sized(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes).as_ref())
}

/// Whether that is the code; it takes as long wherever they differ.
#[must_use]
pub fn is_hmac(key: &[u8], bytes: &[u8], code: &[u8]) -> bool {
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), bytes, code).is_ok()
}

/// As signatures write bytes: in hex, with small letters.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|b| [b >> 4, b & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// A code as [`hex`] wrote it; capital letters are another text, and so none.
#[must_use]
pub fn unhex(text: &str) -> Option<[u8; BYTES]> {
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
    fn there_and_back() {
        let hash = sha256(b"");
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(&hash), text);
        assert_eq!(unhex(text), Some(hash));
        for bad in ["", "e3", &text.to_uppercase(), &text.replace('e', "g"), &format!("{text}00")] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }

    #[test]
    fn codes_as_rfc_4231_has_them() {
        let code = hmac(b"Jefe", b"what do ya want for nothing?");
        let text = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&code), text);
        assert!(is_hmac(b"Jefe", b"what do ya want for nothing?", &code));
        assert!(!is_hmac(b"Jefe", b"what do ya want for nothing!", &code));
        assert!(!is_hmac(b"Jefe", b"what do ya want for nothing?", &code[..31]));
    }
}

//! Eight bytes examined at once.

/// This byte, eight times.
#[inline]
pub(super) fn each(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Whether some byte of the word is below `limit`, which is at most 128.
#[inline]
pub(super) fn has_below(word: u64, limit: u8) -> bool {
    // Only a byte below the limit borrows, and only one below 128 keeps the top bit.
    word.wrapping_sub(each(limit)) & !word & each(0x80) != 0
}

/// Whether some byte of the word is above `limit`, which is at most 127.
#[inline]
pub(super) fn has_above(word: u64, limit: u8) -> bool {
    (word & each(0x7f)).wrapping_add(each(127 - limit)) & each(0x80) != 0 || word & each(0x80) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn words_as_bytes() {
        let mut rng = Rng::new(1);
        for _ in 0..100_000 {
            let usual = rng.below(256) as u8;
            let mut bytes = [usual; 8];
            for _ in 0..rng.below(4) {
                bytes[rng.below(8) as usize] = rng.below(256) as u8;
            }
            let (word, limit) = (u64::from_le_bytes(bytes), rng.below(128) as u8);
            let below = bytes.iter().any(|byte| *byte < limit);
            assert_eq!(has_below(word, limit), below, "{bytes:?} {limit}");
            let above = bytes.iter().any(|byte| *byte > limit);
            assert_eq!(has_above(word, limit), above, "{bytes:?} {limit}");
        }
    }
}

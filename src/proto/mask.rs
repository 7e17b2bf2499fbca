//! Masking and unmasking of payloads (RFC 6455 §5.3), in place or while copying.

use wide::u8x64;

/// Found while unmasking: ASCII needs no UTF-8 check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// Every byte is below 128.
    Ascii,
    /// Some byte is 128 or above.
    Other,
}

/// The length from which vector instructions pay off.
const LONG: usize = 256;
/// The top bit of each byte of a word.
const NOT_ASCII: u64 = 0x8080_8080_8080_8080;

/// Masks or unmasks in place. `offset` is the position of `bytes` in the frame's payload.
pub fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: usize) -> Charset {
    let key = u32::from_le_bytes(mask).rotate_right(8 * (offset % 4) as u32);
    let is_ascii =
        if bytes.len() < LONG { unmask_short(bytes, key) } else { unmask_long(bytes, key) };
    if is_ascii { Charset::Ascii } else { Charset::Other }
}

/// Returns whether the result is ASCII.
fn unmask_short(bytes: &mut [u8], key: u32) -> bool {
    let mut key = u64::from(key) << 32 | u64::from(key);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    let mut seen = 0;
    for word in words {
        let plain = u64::from_le_bytes(*word) ^ key;
        seen |= plain;
        *word = plain.to_le_bytes();
    }
    for byte in rest {
        *byte ^= key as u8;
        seen |= u64::from(*byte);
        key >>= 8;
    }
    seen & NOT_ASCII == 0
}

/// The same with vectors of a cache line. They are aligned to 16 bytes, since one that crosses a
/// cache line takes twice as long.
fn unmask_long(bytes: &mut [u8], key: u32) -> bool {
    let (head, aligned) = bytes.split_at_mut(bytes.as_ptr().align_offset(16).min(bytes.len()));
    let head_is_ascii = unmask_short(head, key);
    let key = key.rotate_right(8 * (head.len() % 4) as u32);
    let key_bytes = key.to_le_bytes();
    let wide_key = u8x64::new(std::array::from_fn(|i| key_bytes[i % 4]));
    let (vectors, tail) = aligned.as_chunks_mut::<64>();
    let mut seen = u8x64::ZERO;
    for vector in vectors {
        let plain = u8x64::new(*vector) ^ wide_key;
        seen |= plain;
        *vector = plain.to_array();
    }
    let tail_is_ascii = unmask_short(tail, key);
    head_is_ascii && tail_is_ascii && seen.to_bitmask() == 0
}

/// Unmasks a short payload into `plain`, which has the same length.
#[inline]
pub fn unmask_into(plain: &mut [u8], masked: &[u8], mask: [u8; 4]) -> Charset {
    debug_assert_eq!(plain.len(), masked.len(), "the lengths are equal");
    let key = u32::from_le_bytes(mask);
    let wide_key = u64::from(key) << 32 | u64::from(key);
    let mut seen = 0;
    let (words, to_words) = (masked.as_chunks().0, plain.as_chunks_mut().0);
    for (to, word) in to_words.iter_mut().zip(words) {
        let word = u64::from_le_bytes(*word) ^ wide_key;
        seen |= word;
        *to = word.to_le_bytes();
    }
    // The last word may overlap the one before it: the same bytes are written again.
    if let (Some(to), Some(word)) = (plain.last_chunk_mut(), masked.last_chunk()) {
        let word = u64::from_le_bytes(*word) ^ wide_key.rotate_right(8 * (masked.len() % 4) as u32);
        seen |= word;
        *to = word.to_le_bytes();
    } else {
        for ((to, byte), key) in plain.iter_mut().zip(masked).zip(mask.iter().cycle()) {
            *to = byte ^ key;
            seen |= u64::from(*to);
        }
    }
    if seen & NOT_ASCII == 0 { Charset::Ascii } else { Charset::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At any alignment and split, also of lengths that use vectors.
    #[test]
    fn unmasking_is_the_mask_at_each_place() {
        let mask = [0x12, 0x34, 0x56, 0x78];
        for ascii in [false, true] {
            let plain: Vec<u8> =
                (0..3 * LONG).map(|i| if ascii { i % 128 } else { i } as u8).collect();
            let masked: Vec<u8> =
                plain.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            for at in 0..64 {
                for cut in [0, 1, 7, 64, LONG - 1, LONG, LONG + 70 + at, plain.len()] {
                    let mut memory = [vec![0; at], masked.clone()].concat();
                    let (a, b) = memory[at..].split_at_mut(cut);
                    let charsets = [unmask(a, mask, 0), unmask(b, mask, cut)];
                    assert_eq!(memory[at..], plain, "at {at}, cut at {cut}");
                    assert_eq!(charsets == [Charset::Ascii; 2], ascii, "at {at}, cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn copied_without_its_mask() {
        let mask = [0x12, 0x34, 0x56, 0x78];
        for length in 0..=125 {
            for other in 0..=length {
                let mut plain: Vec<u8> = (1..=length as u8).collect();
                plain.get_mut(other).into_iter().for_each(|byte| *byte |= 0x80);
                let mut masked = plain.clone();
                unmask(&mut masked, mask, 0);
                let mut copy = vec![0; length];
                let charset = unmask_into(&mut copy, &masked, mask);
                assert_eq!(copy, plain);
                assert_eq!(charset == Charset::Ascii, other == length, "{other} of {length}");
            }
        }
    }
}

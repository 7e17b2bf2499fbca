//! The mask of a client's frame (RFC 6455 §5.3): taken off where the bytes lie, or on the way to
//! where they go.

use wide::u8x64;

/// What [`unmask`] saw in passing: ASCII needs no further check to be UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Every byte is below 128.
    Ascii,
    /// Some are not.
    Other,
}

/// From this length on it pays to go by vectors.
const LONG: usize = 256;
/// The top bit of each byte of a word.
const NOT_ASCII: u64 = 0x8080_8080_8080_8080;

/// Takes the mask off (or puts it on). `offset` is how far into the frame's payload this lies.
pub fn unmask(bytes: &mut [u8], mask: [u8; 4], offset: usize) -> Script {
    let key = u32::from_le_bytes(mask).rotate_right(8 * (offset % 4) as u32);
    let is_ascii =
        if bytes.len() < LONG { unmask_short(bytes, key) } else { unmask_long(bytes, key) };
    if is_ascii { Script::Ascii } else { Script::Other }
}

/// Returns whether all bytes of the result are ASCII.
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

/// The same, a cache line's worth at a time. Most of it begins where a vector should: one that lies
/// across two cache lines takes twice as long.
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

/// Copies a short payload to `plain`, of the same length, without its mask.
#[inline]
pub fn unmask_into(plain: &mut [u8], masked: &[u8], mask: [u8; 4]) -> Script {
    debug_assert_eq!(plain.len(), masked.len(), "each byte has its place");
    let key = u32::from_le_bytes(mask);
    let wide_key = u64::from(key) << 32 | u64::from(key);
    let ((words, rest), (to_words, to_rest)) = (masked.as_chunks(), plain.as_chunks_mut());
    let mut seen = 0;
    for (to, word) in to_words.iter_mut().zip(words) {
        let word = u64::from_le_bytes(*word) ^ wide_key;
        seen |= word;
        *to = word.to_le_bytes();
    }
    let ((halves, rest), (to_halves, to_rest)) = (rest.as_chunks(), to_rest.as_chunks_mut());
    for (to, half) in to_halves.iter_mut().zip(halves) {
        let half = u32::from_le_bytes(*half) ^ key;
        seen |= u64::from(half);
        *to = half.to_le_bytes();
    }
    for ((to, byte), key) in to_rest.iter_mut().zip(rest).zip(mask) {
        *to = byte ^ key;
        seen |= u64::from(*to);
    }
    if seen & NOT_ASCII == 0 { Script::Ascii } else { Script::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At any address and in parts of any length, among them those that go by cache lines.
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
                    let scripts = [unmask(a, mask, 0), unmask(b, mask, cut)];
                    assert_eq!(memory[at..], plain, "at {at}, cut at {cut}");
                    assert_eq!(scripts == [Script::Ascii; 2], ascii, "at {at}, cut at {cut}");
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
                let script = unmask_into(&mut copy, &masked, mask);
                assert_eq!(copy, plain);
                assert_eq!(script == Script::Ascii, other == length, "{other} of {length}");
            }
        }
    }
}

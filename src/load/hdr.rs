//! Histograms in the V2 format of `HdrHistogram`, as base64, for any of its readers. Ours has the
//! buckets of one with two significant digits from 1 to 2^47 - 1, so counts map one to one.
//! The compressed envelope holds a stored block (RFC 1951 §3.2.4), which needs no compressor.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::histogram::{self, Histogram};

/// The first word of an encoded histogram, without its word size.
const COOKIE: u32 = 0x1c84_9303;
/// The same of the compressed envelope.
const COMPRESSED: u32 = 0x1c84_9304;
/// Counts are variable-length words of at most this size, in the cookie's fifth hexadecimal digit.
const WORD_SIZE: u32 = 0x10;
/// Cookie, length, normalizing offset, significant digits, lowest and highest value, ratio.
const HEADER_BYTES: usize = 40;

/// The header after its length: everything about the buckets.
fn shape() -> [u8; HEADER_BYTES - 8] {
    let mut shape = [0; HEADER_BYTES - 8];
    shape[4..8].copy_from_slice(&2_u32.to_be_bytes());
    shape[8..16].copy_from_slice(&1_u64.to_be_bytes());
    shape[16..24].copy_from_slice(&(histogram::END - 1).to_be_bytes());
    shape[24..].copy_from_slice(&1.0_f64.to_be_bytes());
    shape
}

/// The encoded counts. The exact minimum and maximum are not among them.
pub(super) fn encode(histogram: &Histogram) -> String {
    let mut counts = Vec::new();
    let mut zeros = 0;
    for count in histogram.counts() {
        if *count == 0 {
            zeros += 1;
            continue;
        }
        // A negative number stands for a run of zeros.
        if zeros > 0 {
            put_varint(&mut counts, 2 * zeros - 1);
        }
        zeros = 0;
        put_varint(&mut counts, 2 * count);
    }
    let mut plain = (COOKIE | WORD_SIZE).to_be_bytes().to_vec();
    plain.extend((counts.len() as u32).to_be_bytes());
    plain.extend(shape());
    plain.append(&mut counts);
    let length = plain.len() as u16;
    // zlib (RFC 1950): deflate with any window, one last block, and a checksum.
    let mut zlib = vec![0x78, 0x01, 0x01];
    zlib.extend(length.to_le_bytes());
    zlib.extend((!length).to_le_bytes());
    zlib.extend(&plain);
    zlib.extend(adler32(&plain).to_be_bytes());
    let mut envelope = (COMPRESSED | WORD_SIZE).to_be_bytes().to_vec();
    envelope.extend((zlib.len() as u32).to_be_bytes());
    envelope.append(&mut zlib);
    STANDARD.encode(envelope)
}

/// Reads what [`encode`] wrote, and the same without its envelope. The error is a clause.
pub(super) fn decode(text: &str) -> Result<Histogram, &'static str> {
    let bytes = STANDARD.decode(text).map_err(|_| "is not base64, or was cut off")?;
    let (cookie, body) = word(&bytes)?;
    match cookie & !0xf0 {
        COMPRESSED => {
            let (length, zlib) = word(body)?;
            if zlib.len() != length as usize {
                return Err("was cut off");
            }
            plain(stored(zlib)?)
        }
        COOKIE => plain(&bytes),
        _ => Err("is not HdrHistogram's V2 format"),
    }
}

/// The bytes of the only block.
fn stored(zlib: &[u8]) -> Result<&[u8], &'static str> {
    let [0x78, 0x01, 0x01, low, high, inverse_low, inverse_high, rest @ ..] = zlib else {
        return Err("is compressed, which this program cannot read");
    };
    let length = u16::from_le_bytes([*low, *high]);
    let inverse = u16::from_le_bytes([*inverse_low, *inverse_high]);
    let (plain, sum) = rest.split_at_checked(length.into()).ok_or("was cut off")?;
    if inverse != !length || sum != adler32(plain).to_be_bytes() {
        return Err("is damaged");
    }
    Ok(plain)
}

fn plain(bytes: &[u8]) -> Result<Histogram, &'static str> {
    let (cookie, rest) = word(bytes)?;
    let (length, rest) = word(rest)?;
    let (found, mut counts) = rest.split_at_checked(HEADER_BYTES - 8).ok_or("was cut off")?;
    if cookie != COOKIE | WORD_SIZE {
        return Err("is not HdrHistogram's V2 format");
    }
    if found != shape() {
        return Err("has buckets of another size");
    }
    if counts.len() != length as usize {
        return Err("was cut off");
    }
    let mut histogram = Histogram::default();
    let mut bucket: u64 = 0;
    while !counts.is_empty() {
        let zigzag = take_varint(&mut counts).ok_or("was cut off")?;
        let number = zigzag / 2;
        if zigzag % 2 == 1 {
            bucket = bucket.saturating_add(number + 1);
        } else {
            histogram.put(bucket, number)?;
            bucket = bucket.saturating_add(1);
        }
    }
    Ok(histogram)
}

fn word(bytes: &[u8]) -> Result<(u32, &[u8]), &'static str> {
    let (word, rest) = bytes.split_first_chunk().ok_or("was cut off")?;
    Ok((u32::from_be_bytes(*word), rest))
}

/// Seven bits a byte, the lowest first; a ninth byte has eight.
fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    for _ in 0..8 {
        if number < 0x80 {
            return out.push(number as u8);
        }
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if at == 8 {
            return Some(number | u64::from(*byte) << 56);
        }
        number |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// RFC 1950 §8.2.
fn adler32(bytes: &[u8]) -> u32 {
    let (mut low, mut high) = (1, 0);
    for byte in bytes {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    high << 16 | low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::histogram::COUNT_MAX;
    use crate::rng::Rng;

    fn filled(rng: &mut Rng, values: u64) -> Histogram {
        let mut histogram = Histogram::default();
        for _ in 0..values {
            let magnitude = rng.below(47);
            histogram.record(rng.below(1 << magnitude));
        }
        histogram
    }

    #[test]
    fn comes_back_as_it_was() {
        let mut rng = Rng::new(3);
        for values in [0, 1, 50, 20_000] {
            let histogram = filled(&mut rng, values);
            let read = decode(&encode(&histogram)).unwrap();
            assert_eq!((read.counts(), read.total()), (histogram.counts(), values));
        }
        let mut most = Histogram::default();
        most.record(u64::MAX);
        most.record(0);
        assert_eq!(decode(&encode(&most)).unwrap().counts(), most.counts());
    }

    #[test]
    fn numbers_of_any_length() {
        let sizes = (0..64).flat_map(|bits| [1 << bits, (1_u64 << bits) - 1]).chain([u64::MAX]);
        for number in sizes {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            assert_eq!(take_varint(&mut &bytes[..]), Some(number), "{number} {bytes:?}");
            assert_eq!(take_varint(&mut &bytes[1..]).filter(|_| bytes.len() == 1), None);
        }
    }

    /// No byte can be changed or left out without an error, but for base64's own padding.
    #[test]
    fn damage_is_an_error() {
        let text = encode(&filled(&mut Rng::new(5), 300));
        for length in 0..text.len() {
            assert!(decode(&text[..length]).is_err(), "{length}");
        }
        let bytes = STANDARD.decode(&text).unwrap();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 4;
            // The word size of the envelope means nothing.
            assert!(decode(&STANDARD.encode(bytes)).is_err() || at == 3, "{at}");
        }
    }

    #[test]
    fn absurd_counts_are_an_error() {
        let with = |numbers: &[u64]| {
            let mut counts = Vec::new();
            for number in numbers {
                put_varint(&mut counts, *number);
            }
            let mut plain = (COOKIE | WORD_SIZE).to_be_bytes().to_vec();
            plain.extend((counts.len() as u32).to_be_bytes());
            plain.extend(shape());
            plain.append(&mut counts);
            decode(&STANDARD.encode(plain)).map(|read| read.total())
        };
        assert_eq!(with(&[2, 4]), Ok(3));
        assert_eq!(with(&[2 * COUNT_MAX]), Ok(COUNT_MAX));
        let many = Err("has an absurd number of values");
        assert_eq!(with(&[2 * COUNT_MAX + 2]), many);
        assert_eq!(with(&[2 * COUNT_MAX, 2]), many);
        assert_eq!(with(&[u64::MAX - 1]), many);
        let beyond = Err("has more buckets than there are");
        assert_eq!(with(&[u64::MAX, 2]), beyond);
        assert_eq!(with(&[u64::MAX, u64::MAX, u64::MAX, 2]), beyond);
        assert_eq!(with(&[2 * 5_248 - 1, 2]), beyond);
        assert_eq!(with(&[2 * 5_247 - 1, 2]), Ok(1));
    }
}

//! The format of inputs: cuts, then bytes. It knows no protocol.

/// Marks a repetition, see [`expanded`]. It does not occur in text.
pub const AGAIN: u8 = 1;

/// Where a stream of bytes is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuts(Vec<usize>);

impl Cuts {
    /// No cuts.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// After each byte.
    pub fn everywhere() -> Self {
        Self(vec![1])
    }

    /// The ends of the parts of `len` bytes; the sizes are used cyclically.
    pub fn ends(&self, len: usize) -> impl Iterator<Item = usize> {
        let mut sizes = self.0.iter().copied().cycle();
        let mut at = 0;
        std::iter::from_fn(move || {
            if at == len {
                return None;
            }
            at = sizes.next().map_or(len, |size| (at + size).min(len));
            Some(at)
        })
    }

    /// The parts of these bytes.
    pub fn parts<'b>(&self, bytes: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        let mut start = 0;
        self.ends(bytes.len()).map(move |end| &bytes[std::mem::replace(&mut start, end)..end])
    }
}

/// The length of the cuts at the front of an input.
fn cuts_len(data: &[u8]) -> usize {
    data.first().map_or(0, |first| 1 + usize::from(first & 7)).min(data.len())
}

/// The low three bits of the first byte are the number of sizes, one byte each: up to 127 the size
/// minus one, from 128 on in steps of 256. So text without cuts begins with `0`.
pub fn cuts(data: &[u8]) -> (Cuts, &[u8]) {
    let (front, rest) = data.split_at(cuts_len(data));
    let size = |&byte: &u8| match usize::from(byte) {
        byte @ 0..128 => byte + 1,
        byte => (byte - 127) * 256,
    };
    (Cuts(front.iter().skip(1).map(size).collect()), rest)
}

/// The same input with other cuts: `sizes` are bytes as [`cuts`] reads them, seven at most.
pub fn recut(data: &[u8], sizes: &[u8]) -> Vec<u8> {
    let count = u8::try_from(sizes.len().min(7)).unwrap_or(7);
    [&[b'0' + count], &sizes[..usize::from(count)], &data[cuts_len(data)..]].concat()
}

/// Bytes in which [`AGAIN`], `l`, `n` repeats the last `l` bytes `n` times, so that short
/// inputs reach large limits. Stops before `limit` is exceeded.
pub fn expanded(data: &[u8], limit: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.len().min(limit));
    let mut rest = data.iter().copied();
    while let Some(byte) = rest.next() {
        if byte == AGAIN {
            let (Some(length), Some(times)) = (rest.next(), rest.next()) else { break };
            let stretch = bytes[bytes.len().saturating_sub(usize::from(length))..].to_vec();
            for _ in 0..times {
                bytes.extend_from_slice(&stretch);
                if bytes.len() > limit {
                    break;
                }
            }
        } else {
            bytes.push(byte);
        }
        if bytes.len() > limit {
            bytes.truncate(limit);
            break;
        }
    }
    bytes
}

/// Reads an input piece by piece; after its end come zeros.
#[derive(Clone, Debug)]
pub struct Source<'b>(pub &'b [u8]);

impl<'b> Source<'b> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// The next `n` bytes, or as many as there are.
    pub fn take(&mut self, n: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

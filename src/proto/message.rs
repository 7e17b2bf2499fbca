//! Assembles a message that is not complete in one read: fragments (RFC 6455 §5.4) or one large
//! frame. Its bytes go into one block, unmasked and validated as they arrive.

use super::frame::{Fault, Header, Kind};
use super::mask::{self, Charset};
use crate::limits::EMPTY_FRAGMENTS;
use crate::outbox::{Block, Blocks, MAP_MIN};

/// A message that is being assembled.
#[derive(Debug)]
pub struct Assembly {
    /// The type of the message.
    pub kind: Kind,
    /// RSV1 of its first frame.
    pub compressed: bool,
    block: Block,
    utf8: Utf8,
    frame: Fragment,
    empty_fragments: u16,
}

#[derive(Debug)]
struct Fragment {
    left: u64,
    offset: usize,
    mask: [u8; 4],
    fin: bool,
}

impl Assembly {
    /// Starts a message with the header of its first frame.
    pub fn begin(
        kind: Kind,
        header: &Header,
        limit: usize,
        blocks: &mut Blocks,
    ) -> Result<Self, Fault> {
        let length = fits(0, header.length, limit)?;
        let frame = Fragment { left: header.length, offset: 0, mask: header.mask, fin: header.fin };
        Ok(Self {
            kind,
            compressed: header.compressed,
            block: blocks.take(length),
            utf8: Utf8::default(),
            frame,
            empty_fragments: 0,
        })
    }

    /// Continues with the header of a further frame.
    pub fn proceed(
        &mut self,
        header: &Header,
        limit: usize,
        blocks: &mut Blocks,
    ) -> Result<(), Fault> {
        assert!(self.frame.left == 0 && !self.frame.fin, "a frame follows a finished one");
        let length = fits(self.block.len(), header.length, limit)?;
        if header.length == 0 && !header.fin {
            self.empty_fragments += 1;
            if self.empty_fragments > EMPTY_FRAGMENTS {
                return Err(Fault::EmptyFragments);
            }
        }
        let more = length - self.block.len();
        if length >= MAP_MIN && self.block.spare().len() < more {
            blocks.grow(&mut self.block, more);
        }
        self.frame =
            Fragment { left: header.length, offset: 0, mask: header.mask, fin: header.fin };
        Ok(())
    }

    /// Bytes of the current frame still to come.
    #[must_use]
    pub fn frame_left(&self) -> u64 {
        self.frame.left
    }

    /// Whether the message is complete.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.frame.left == 0 && self.frame.fin
    }

    /// Its current memory cost.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.block.cost()
    }

    /// Appends bytes of the current frame, still masked.
    pub fn absorb(&mut self, bytes: &mut [u8], blocks: &mut Blocks) -> Result<(), Fault> {
        let charset = mask::unmask(bytes, self.frame.mask, self.frame.offset);
        if self.kind == Kind::Text && !self.compressed {
            self.utf8.feed_unmasked(bytes, charset)?;
        }
        blocks.append(&mut self.block, bytes);
        self.advance(bytes.len());
        Ok(())
    }

    /// Space to read the frame's next bytes into directly; empty if the block has none.
    pub fn spare(&mut self) -> &mut [u8] {
        let left = usize::try_from(self.frame.left).unwrap_or(usize::MAX);
        let spare = self.block.spare();
        let n = spare.len().min(left);
        &mut spare[..n]
    }

    /// `n` bytes were read into [`Assembly::spare`].
    pub fn absorb_spare(&mut self, n: usize) -> Result<(), Fault> {
        let from = self.block.len();
        self.block.filled(n);
        let bytes = self.block.bytes_mut(from);
        let charset = mask::unmask(bytes, self.frame.mask, self.frame.offset);
        if self.kind == Kind::Text && !self.compressed {
            self.utf8.feed_unmasked(bytes, charset)?;
        }
        self.advance(n);
        Ok(())
    }

    fn advance(&mut self, n: usize) {
        self.frame.left -= n as u64;
        self.frame.offset += n;
    }

    /// Returns the complete message.
    pub fn finish(self) -> Result<(Kind, Block), Fault> {
        assert!(self.is_whole(), "only a complete message is finished");
        if self.kind == Kind::Text && !self.compressed {
            self.utf8.finish()?;
        }
        Ok((self.kind, self.block))
    }
}

/// Checks the limit at the header, before any payload is stored.
fn fits(have: usize, more: u64, limit: usize) -> Result<usize, Fault> {
    let more = usize::try_from(more).map_err(|_| Fault::TooBig)?;
    have.checked_add(more).filter(|&sum| sum <= limit).ok_or(Fault::TooBig)
}

/// Validates UTF-8 as it arrives: a byte that cannot become valid is rejected at once, even in the
/// middle of a frame (RFC 6455 §8.1; the Autobahn suite calls this fail-fast).
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8 {
    /// The beginning of an incomplete character.
    tail: [u8; 4],
    len: u8,
}

impl Utf8 {
    /// Validates bytes whose [`Charset`] is known: ASCII needs no check between characters.
    fn feed_unmasked(&mut self, bytes: &[u8], charset: Charset) -> Result<(), Fault> {
        if charset == Charset::Ascii && self.len == 0 { Ok(()) } else { self.feed(bytes) }
    }

    /// Validates the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while self.len > 0 {
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            self.tail[usize::from(self.len)] = byte;
            self.len += 1;
            match std::str::from_utf8(&self.tail[..usize::from(self.len)]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return Err(Fault::Utf8),
                Err(_) => {}
            }
        }
        match simdutf8::compat::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(Fault::Utf8),
            Err(error) => {
                let tail = &bytes[error.valid_up_to()..];
                self.tail[..tail.len()].copy_from_slice(tail);
                self.len = tail.len() as u8;
                Ok(())
            }
        }
    }

    /// Fails if the last character is incomplete.
    pub fn finish(self) -> Result<(), Fault> {
        if self.len == 0 { Ok(()) } else { Err(Fault::Utf8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_parts(parts: &[&[u8]]) -> bool {
        let mut utf8 = Utf8::default();
        parts.iter().all(|part| utf8.feed(part).is_ok()) && utf8.finish().is_ok()
    }

    #[test]
    fn any_split_agrees_with_the_whole() {
        let samples: [&[u8]; 9] = [
            "κόσμε ☃ 𝄞 end".as_bytes(),
            b"",
            b"\x80",
            b"\xc0\xaf",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"ab\xf0\x9d\x84",
            b"\xe2\x98\x83\xe2",
            b"ok\xffbad",
        ];
        for sample in samples {
            let valid = std::str::from_utf8(sample).is_ok();
            for a in 0..=sample.len() {
                for b in a..=sample.len() {
                    let parts = [&sample[..a], &sample[a..b], &sample[b..]];
                    assert_eq!(in_parts(&parts), valid, "{sample:02x?} cut at {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn invalid_bytes_fail_at_once() {
        for (prefix, fine) in [(&b"\xf4\x90"[..], false), (b"\xed\xa0", false), (b"\xf4\x8f", true)]
        {
            let mut utf8 = Utf8::default();
            assert_eq!(utf8.feed(prefix).is_ok(), fine, "{prefix:02x?}");
            let mut utf8 = Utf8::default();
            let fed = prefix.iter().all(|byte| utf8.feed(&[*byte]).is_ok());
            assert_eq!(fed, fine, "{prefix:02x?} in single bytes");
        }
    }
}

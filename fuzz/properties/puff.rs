//! Reference inflater, written from RFC 1951 and RFC 7692 alone, slow and simple. It decides which
//! of two readers is right, and measures the largest distance.

/// The bytes that a sender omits, and an empty final block, so that a message can end.
const END: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];
/// Final blocks inside one message.
const LAST_BLOCKS: usize = 64;

/// Why a message is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    TooBig,
    Damaged,
}

/// A message, and its largest distance.
#[derive(Debug)]
pub struct Puffed {
    pub bytes: Vec<u8>,
    pub farthest: usize,
    /// Of the sender's own.
    pub last_blocks: usize,
}

/// Inflates a payload.
pub fn message(wire: &[u8], limit: usize) -> Result<Puffed, Wrong> {
    let all = [wire, &END].concat();
    let mut puff = Puff {
        input: &all,
        at: 0,
        begin: 0,
        limit,
        out: Puffed { bytes: Vec::new(), farthest: 0, last_blocks: 0 },
    };
    loop {
        let last = puff.block()?;
        let byte = puff.at.div_ceil(8);
        if last && byte == all.len() {
            return Ok(puff.out);
        }
        if last {
            puff.out.last_blocks += 1;
            if byte == wire.len() {
                return Ok(puff.out);
            }
            if puff.out.last_blocks > LAST_BLOCKS {
                return Err(Wrong::Damaged);
            }
            (puff.at, puff.begin) = (byte * 8, puff.out.bytes.len());
        }
    }
}

struct Puff<'b> {
    input: &'b [u8],
    /// In bits.
    at: usize,
    /// Where in the output this stream began.
    begin: usize,
    limit: usize,
    out: Puffed,
}

/// RFC 1951 §3.2.2: how many codes have each length, and their symbols in order.
struct Codes {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Codes {
    fn new(lengths: &[usize]) -> Self {
        let mut counts = [0; 16];
        for length in lengths {
            counts[*length] += 1;
        }
        let ordered = (1..16).flat_map(|wanted| {
            lengths.iter().enumerate().filter(move |(_, length)| **length == wanted)
        });
        Self { counts, symbols: ordered.map(|(symbol, _)| symbol).collect() }
    }

    /// Unused codes, in units of the longest; negative if there are too many.
    fn left(&self) -> isize {
        let taken = |length: usize| (self.counts[length] << (15 - length)).cast_signed();
        (1 << 15) - (1..16).map(taken).sum::<isize>()
    }

    /// RFC 1951 §3.2.7 allows a single code of one bit.
    fn may_be(&self) -> bool {
        self.left() == 0 || (self.left() > 0 && self.symbols.len() == self.counts[1])
    }
}

impl Puff<'_> {
    fn bits(&mut self, count: usize) -> Result<usize, Wrong> {
        let mut value = 0;
        for place in 0..count {
            let byte = *self.input.get(self.at / 8).ok_or(Wrong::Damaged)?;
            value |= usize::from(byte >> (self.at % 8) & 1) << place;
            self.at += 1;
        }
        Ok(value)
    }

    fn symbol(&mut self, codes: &Codes) -> Result<usize, Wrong> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for length in 1..16 {
            code |= self.bits(1)?;
            let count = codes.counts[length];
            if code < first + count {
                return Ok(codes.symbols[index + code - first]);
            }
            index += count;
            (first, code) = ((first + count) << 1, code << 1);
        }
        Err(Wrong::Damaged)
    }

    /// Returns whether it is the final block.
    fn block(&mut self) -> Result<bool, Wrong> {
        let last = self.bits(1)? == 1;
        match self.bits(2)? {
            0 => self.stored()?,
            1 => {
                let lengths = [[8; 144].as_slice(), &[9; 112], &[7; 24], &[8; 8]].concat();
                self.coded(&Codes::new(&lengths), &Codes::new(&[5; 32]))?;
            }
            2 => {
                let (literals, distances) = self.tables()?;
                self.coded(&literals, &distances)?;
            }
            _ => return Err(Wrong::Damaged),
        }
        Ok(last)
    }

    fn stored(&mut self) -> Result<(), Wrong> {
        self.at = self.at.div_ceil(8) * 8;
        let (length, complement) = (self.bits(16)?, self.bits(16)?);
        if length != complement ^ 0xffff {
            return Err(Wrong::Damaged);
        }
        for _ in 0..length {
            let byte = self.bits(8)?;
            self.push(byte as u8)?;
        }
        Ok(())
    }

    fn push(&mut self, byte: u8) -> Result<(), Wrong> {
        self.out.bytes.push(byte);
        if self.out.bytes.len() > self.limit { Err(Wrong::TooBig) } else { Ok(()) }
    }

    /// RFC 1951 §3.2.7.
    fn tables(&mut self) -> Result<(Codes, Codes), Wrong> {
        const ORDER: [usize; 19] =
            [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        let (literals, distances) = (self.bits(5)? + 257, self.bits(5)? + 1);
        let count = self.bits(4)? + 4;
        if literals > 286 || distances > 30 {
            return Err(Wrong::Damaged);
        }
        let mut lengths = [0; 19];
        for place in &ORDER[..count] {
            lengths[*place] = self.bits(3)?;
        }
        let codes = Codes::new(&lengths);
        if codes.left() != 0 {
            return Err(Wrong::Damaged);
        }
        let mut lengths: Vec<usize> = Vec::new();
        while lengths.len() < literals + distances {
            let (length, times) = match self.symbol(&codes)? {
                16 => (*lengths.last().ok_or(Wrong::Damaged)?, 3 + self.bits(2)?),
                17 => (0, 3 + self.bits(3)?),
                18 => (0, 11 + self.bits(7)?),
                length => (length, 1),
            };
            lengths.extend(std::iter::repeat_n(length, times));
        }
        let sound = lengths.len() == literals + distances && lengths[256] != 0;
        let tables = (Codes::new(&lengths[..literals]), Codes::new(&lengths[literals..]));
        if sound && tables.0.may_be() && tables.1.may_be() {
            Ok(tables)
        } else {
            Err(Wrong::Damaged)
        }
    }

    /// RFC 1951 §3.2.5.
    fn coded(&mut self, literals: &Codes, distances: &Codes) -> Result<(), Wrong> {
        loop {
            let symbol = self.symbol(literals)?;
            match symbol {
                0..256 => self.push(symbol as u8)?,
                256 => return Ok(()),
                257..286 => {
                    let length = self.length(symbol - 257)?;
                    let symbol = self.symbol(distances)?;
                    self.copy(length, symbol)?;
                }
                _ => return Err(Wrong::Damaged),
            }
        }
    }

    fn length(&mut self, symbol: usize) -> Result<usize, Wrong> {
        Ok(match symbol {
            0..8 => symbol + 3,
            28 => 258,
            _ => {
                let extra = symbol / 4 - 1;
                3 + ((4 + symbol % 4) << extra) + self.bits(extra)?
            }
        })
    }

    fn copy(&mut self, length: usize, symbol: usize) -> Result<(), Wrong> {
        let distance = match symbol {
            0..4 => symbol + 1,
            4..30 => {
                let extra = symbol / 2 - 1;
                1 + ((2 + symbol % 2) << extra) + self.bits(extra)?
            }
            _ => return Err(Wrong::Damaged),
        };
        if distance > self.out.bytes.len() - self.begin {
            return Err(Wrong::Damaged);
        }
        self.out.farthest = self.out.farthest.max(distance);
        for _ in 0..length {
            let byte = self.out.bytes[self.out.bytes.len() - distance];
            self.push(byte)?;
        }
        Ok(())
    }
}

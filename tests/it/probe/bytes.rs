//! Heads and frames as a hop reads and writes them.

pub(super) const PONG: u8 = 0x8a;

/// The head of a request or response, without its last line.
#[derive(Clone, Debug)]
pub(super) struct Head {
    lines: Vec<String>,
}

impl Head {
    /// Takes a complete head off the front.
    pub(super) fn take(bytes: &mut Vec<u8>) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes.drain(..end + 4);
        Some(Self { lines: head.split("\r\n").map(str::to_owned).collect() })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        (self.lines.join("\r\n") + "\r\n\r\n").into_bytes()
    }

    pub(super) fn len(&self) -> usize {
        self.lines.iter().map(|line| line.len() + 2).sum::<usize>() + 2
    }

    pub(super) fn asks_for_upgrade(&self) -> bool {
        self.lines.iter().any(|line| line.starts_with("Upgrade:"))
    }

    pub(super) fn first_line(&self) -> &str {
        &self.lines[0]
    }

    pub(super) fn edit_first_line(&mut self, edit: impl FnOnce(&str) -> String) {
        self.lines[0] = edit(&self.lines[0]);
    }

    /// Edits the path of a request with a query.
    pub(super) fn edit_path(&mut self, edit: impl FnOnce(&str) -> String) {
        self.edit_first_line(|line| match line.split_once('?') {
            Some((path, rest)) => format!("{}?{rest}", edit(path)),
            None => line.to_owned(),
        });
    }

    pub(super) fn edit_query(&mut self, edit: impl FnOnce(&str) -> String) {
        self.edit_first_line(|line| match line.split_once('?') {
            Some((path, rest)) => format!("{path}?{}", edit(rest)),
            None => line.to_owned(),
        });
    }

    pub(super) fn edit_lines(&mut self, edit: impl Fn(&str) -> String) {
        for line in &mut self.lines[1..] {
            *line = edit(line);
        }
    }

    pub(super) fn field(&self, name: &str) -> Option<String> {
        let mut fields = self.lines.iter().filter_map(|line| line.split_once(':'));
        let found = fields.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    }

    /// Removes a field.
    pub(super) fn remove(&mut self, name: &str) {
        let is_field = |line: &String| {
            line.split_once(':').is_some_and(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        self.lines.retain(|line| !is_field(line));
    }

    pub(super) fn add(&mut self, field: &str) {
        self.lines.push(field.to_owned());
    }
}

/// A frame of either direction, unmasked.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) first: u8,
    pub(super) mask: Option<[u8; 4]>,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// Takes a complete frame off the front.
    pub(super) fn take(bytes: &mut Vec<u8>) -> Option<Self> {
        let (first, second) = (*bytes.first()?, *bytes.get(1)?);
        let (length, mut at) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
            length => (u64::from(length), 2),
        };
        let mut mask = None;
        if second & 0x80 != 0 {
            mask = Some(bytes.get(at..at + 4)?.try_into().ok()?);
            at += 4;
        }
        let mut payload = bytes.get(at..at + usize::try_from(length).ok()?)?.to_vec();
        bytes.drain(..at + payload.len());
        apply(mask, &mut payload);
        Some(Self { first, mask, payload })
    }

    pub(super) fn bytes(mut self) -> Vec<u8> {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        match self.payload.len() {
            length @ ..126 => bytes.push(masked | length as u8),
            length @ 126..=0xffff => {
                bytes.push(masked | 0x7e);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(masked | 0x7f);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(self.mask.into_iter().flatten());
        apply(self.mask, &mut self.payload);
        bytes.append(&mut self.payload);
        bytes
    }

    fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    pub(super) fn is_ping(&self) -> bool {
        self.opcode() == 9
    }

    pub(super) fn is_close(&self) -> bool {
        self.opcode() == 8
    }

    pub(super) fn is_data(&self) -> bool {
        self.opcode() < 3
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.first & 0x40 != 0 && !self.payload.is_empty()
    }

    /// Two frames instead of one, if it has more than a byte.
    pub(super) fn split(mut self) -> (Self, Option<Self>) {
        if self.payload.len() < 2 {
            return (self, None);
        }
        let payload = self.payload.split_off(self.payload.len() / 2);
        let other = Self { first: self.first & 0x80, mask: self.mask, payload };
        self.first &= 0x7f;
        (self, Some(other))
    }
}

fn apply(mask: Option<[u8; 4]>, payload: &mut [u8]) {
    if let Some(mask) = mask {
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }
}

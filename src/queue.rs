//! A queue of messages in one contiguous allocation: a thousand messages of one byte are not a
//! thousand allocations, and all of it goes back to the kernel with the last one.

use crate::engine::Now;
use crate::outbox::{Block, Blocks};
use crate::proto::frame::Kind;

/// Before each message: due time, turn, length and kind.
const HEADER: usize = 8 + 8 + 4 + 1;

/// A queued message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting<'q> {
    /// When it is due; 0 if unused.
    pub due_ns: u64,
    /// Its turn number, until [`Queue::next_turn`] has passed it.
    pub turn: Option<u64>,
    /// Whether text or binary.
    pub kind: Kind,
    /// The message itself, without the queue's header.
    pub payload: &'q [u8],
}

/// Messages in arrival order.
#[derive(Debug, Default)]
pub struct Queue {
    memory: Option<Block>,
    messages: usize,
    /// This many bytes at the front belong to messages whose turn has passed.
    passed: usize,
}

impl Queue {
    /// The number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages
    }

    /// Whether it holds no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// The cost of its memory.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.memory.as_ref().map_or(0, Block::cost)
    }

    /// Bytes of the messages including their headers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, Block::len)
    }

    /// Appends a message.
    pub fn push(&mut self, message: Waiting<'_>, blocks: &mut Blocks) {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&message.due_ns.to_le_bytes());
        // 0 means no turn; a turn never reaches `u64::MAX`.
        let turn = message.turn.map_or(0, |turn| turn + 1);
        header[8..16].copy_from_slice(&turn.to_le_bytes());
        header[16..20].copy_from_slice(&(message.payload.len() as u32).to_le_bytes());
        header[20] = u8::from(message.kind == Kind::Binary);
        let memory =
            self.memory.get_or_insert_with(|| blocks.sized(HEADER + message.payload.len()));
        blocks.append(memory, &header);
        blocks.append(memory, message.payload);
        self.messages += 1;
    }

    /// The oldest message.
    #[must_use]
    pub fn first(&self) -> Option<Waiting<'_>> {
        let bytes = self.memory.as_ref()?.bytes();
        let mut first = read(bytes)?;
        if self.passed > 0 {
            first.turn = None;
        }
        Some(first)
    }

    /// Removes the oldest message.
    pub fn pop(&mut self, blocks: &mut Blocks, now: Now) {
        let Some(memory) = &mut self.memory else { return };
        let Some(length) = read(memory.bytes()).map(|first| HEADER + first.payload.len()) else {
            return;
        };
        memory.consume(length);
        self.messages -= 1;
        self.passed = self.passed.saturating_sub(length);
        if self.messages == 0
            && let Some(memory) = self.memory.take()
        {
            blocks.give_back(memory, now.mono_ns);
        }
    }

    /// The first turn that has not passed.
    #[must_use]
    pub fn turn(&self) -> Option<u64> {
        let bytes = self.memory.as_ref()?.bytes();
        read(&bytes[self.passed..])?.turn
    }

    /// Passes that turn and returns the next one.
    pub fn next_turn(&mut self) -> Option<u64> {
        let bytes = self.memory.as_ref()?.bytes();
        self.passed += HEADER + read(&bytes[self.passed..])?.payload.len();
        self.turn()
    }
}

/// Parses the message at the front of these bytes.
fn read(bytes: &[u8]) -> Option<Waiting<'_>> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let number = |from: usize| -> Option<u64> {
        Some(u64::from_le_bytes(header[from..from + 8].try_into().ok()?))
    };
    let length = u32::from_le_bytes(header[16..20].try_into().ok()?) as usize;
    Some(Waiting {
        due_ns: number(0)?,
        turn: number(8)?.checked_sub(1),
        kind: if header[20] == 0 { Kind::Text } else { Kind::Binary },
        payload: &rest[..length],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn text(turn: u64, payload: &[u8]) -> Waiting<'_> {
        Waiting { due_ns: 7, turn: Some(turn), kind: Kind::Text, payload }
    }

    #[test]
    fn turns_pass_one_after_the_other() {
        let (mut queue, mut blocks) = (Queue::default(), Blocks::default());
        for turn in 0..3 {
            queue.push(text(turn, b"abc"), &mut blocks);
        }
        assert_eq!((queue.turn(), queue.first()), (Some(0), Some(text(0, b"abc"))));
        assert_eq!((queue.next_turn(), queue.next_turn()), (Some(1), Some(2)));
        for _ in 0..2 {
            assert_eq!(queue.first().unwrap().turn, None);
            queue.pop(&mut blocks, Now::default());
        }
        assert_eq!(queue.first().unwrap().turn, Some(2));
        assert_eq!(queue.next_turn(), None);
        queue.pop(&mut blocks, Now::default());
        assert_eq!((queue.first(), queue.turn(), queue.cost()), (None, None, 0));
    }

    /// What comes out is what went in, whatever the sizes, and little is owned beside it.
    #[test]
    fn any_sizes_keep_their_order() {
        let (mut queue, mut blocks, rng) = (Queue::default(), Blocks::default(), &mut Rng::new(1));
        let mut wanted = std::collections::VecDeque::new();
        for round in 0..20_000_u32 {
            if rng.below(2) == 0 || wanted.len() > 300 {
                let first = queue.first().map(|first| first.payload.to_vec());
                assert_eq!(first, wanted.pop_front());
                queue.pop(&mut blocks, Now::default());
            } else {
                let size = [0, 1, 20, 3000, 70_000][rng.below(5) as usize];
                let payload = vec![round.to_le_bytes()[0]; size];
                queue.push(text(0, &payload), &mut blocks);
                wanted.push_back(payload);
            }
            assert_eq!(queue.len(), wanted.len());
        }
    }

    #[test]
    fn a_thousand_small_messages_are_one_piece() {
        let (mut queue, mut blocks) = (Queue::default(), Blocks::default());
        for _ in 0..1024 {
            queue.push(text(0, b"x"), &mut blocks);
        }
        assert!(queue.cost() <= 24 * 1024, "{} bytes", queue.cost());
    }
}

//! What becomes of a whole message, by where it lies: in the read buffer, in a block of its own,
//! or compressed in one of them. An echo goes out from where it lies, if that is worth it.

use crate::behaviours::{Answer, Kind, is_compressed};
use crate::limits;
use crate::outbox::Block;
use crate::proto::deflate::Inflated;
use crate::proto::frame::{self, Fault};
use crate::server::shared::Cx;
use crate::server::websocket::{ReadSize, WebSocket, ctx};

/// An echo up to this size is copied to the other answers; a larger one goes out from where it
/// lies, since by then the copy costs more than another piece in the write.
const COPIED_ECHO_BYTES: usize = 8 * 1024;

impl WebSocket {
    /// A message that lies whole in the read buffer.
    pub(in crate::server) fn message_in_buffer(
        &mut self,
        kind: Kind,
        buffer: &mut [u8],
        (start, end): (usize, usize),
        cx: &mut Cx<'_>,
    ) {
        if self.read_size == ReadSize::Header {
            self.read_size = ReadSize::Usual;
        }
        if self.take_message(kind, &buffer[start..end], cx) != Answer::Same {
            return;
        }
        let length = end - start;
        self.count_sent(kind, length, cx);
        if self.compressed(kind, &buffer[start..end], cx) {
            return;
        }
        if length <= COPIED_ECHO_BYTES {
            frame::write_message(&mut cx.out.bytes, kind, &buffer[start..end]);
            return;
        }
        // Our header is four bytes shorter than the peer's, which had a mask: it fits in front.
        let (header, size) = frame::message_header(kind, length);
        buffer[start - size..start].copy_from_slice(&header[..size]);
        cx.out.share(start - size..end);
    }

    /// A message that lies in a block of its own.
    pub(in crate::server) fn message_in_block(
        &mut self,
        kind: Kind,
        mut block: Block,
        cx: &mut Cx<'_>,
    ) {
        let length = block.len();
        if self.take_message(kind, block.bytes(), cx) != Answer::Same {
            return cx.shared.blocks.give_back(block, cx.now.mono_ns);
        }
        self.count_sent(kind, length, cx);
        if self.compressed(kind, block.bytes(), cx) {
            return cx.shared.blocks.give_back(block, cx.now.mono_ns);
        }
        if length <= COPIED_ECHO_BYTES {
            frame::write_message(&mut cx.out.bytes, kind, block.bytes());
            return;
        }
        let (header, size) = frame::message_header(kind, length);
        block.prepend(&header[..size]);
        cx.out.give(block);
    }

    /// Whether an echo went out compressed.
    fn compressed(&mut self, kind: Kind, payload: &[u8], cx: &mut Cx<'_>) -> bool {
        let Some(agreed) = self.deflate else { return false };
        if !is_compressed(payload.len(), cx.shared.room()) {
            return false;
        }
        cx.shared.work += payload.len() as u64 * limits::COMPRESSING_WORK;
        cx.shared.codec.compress(agreed, kind, payload, &mut cx.out.bytes)
    }

    /// A message as it came over the wire, of which all has come.
    pub(in crate::server) fn compressed_message(
        &mut self,
        kind: Kind,
        wire: &[u8],
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let limit = cx.shared.config.limits.max_message;
        // An answer may be as long again.
        let memory = cx.shared.room().memory / 2;
        let inflated =
            cx.shared.codec.inflate(kind, wire, limit.min(memory), &mut cx.shared.blocks);
        let inflated = inflated.map_err(|fault| match fault {
            Fault::TooBig if memory < limit => Fault::MemoryShort,
            fault => fault,
        })?;
        match inflated {
            Inflated::Long(block) => self.message_in_block(kind, block, cx),
            Inflated::Short(scratch) => {
                if self.take_message(kind, scratch.bytes(), cx) == Answer::Same {
                    ctx(&mut self.tally, self.deflate, cx).send(kind, scratch.bytes());
                }
                cx.shared.codec.give_back(scratch);
            }
        }
        Ok(())
    }
}

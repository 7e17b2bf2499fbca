//! Handles a complete message in the read buffer, in its own block, or compressed in either. A
//! large echo is sent in place, without a copy.

use crate::behaviours::{Answer, Kind, is_compressed};
use crate::limits;
use crate::outbox::Block;
use crate::proto::deflate::Inflated;
use crate::proto::frame::{self, Fault};
use crate::server::websocket::{ReadSize, SocketCx, WebSocket};

/// Echoes up to this size are copied to the output buffer. For larger ones the copy costs more than
/// another segment in the write.
const COPIED_ECHO_BYTES: usize = 8 * 1024;

impl WebSocket {
    /// A message in the read buffer.
    pub(crate) fn message_in_buffer(
        &mut self,
        kind: Kind,
        buffer: &mut [u8],
        (start, end): (usize, usize),
        cx: &mut SocketCx<'_>,
    ) {
        if self.read_size == ReadSize::Header {
            self.read_size = ReadSize::Usual;
        }
        if self.receive_message(kind, &buffer[start..end], cx) != Answer::Same {
            return;
        }
        let length = end - start;
        self.count_sent(kind, length, cx);
        if self.send_compressed(kind, &buffer[start..end], cx) {
            return;
        }
        if length <= COPIED_ECHO_BYTES {
            frame::write_message(&mut cx.out.bytes, kind, &buffer[start..end]);
            return;
        }
        // Our header is four bytes shorter than the peer's, which has a mask: it fits in front.
        let (header, size) = frame::message_header(kind, length);
        buffer[start - size..start].copy_from_slice(&header[..size]);
        cx.out.share(start - size..end);
    }

    /// A message in its own block.
    pub(crate) fn message_in_block(&mut self, kind: Kind, mut block: Block, cx: &mut SocketCx<'_>) {
        let length = block.len();
        if self.receive_message(kind, block.bytes(), cx) != Answer::Same {
            return cx.blocks.give_back(block, cx.now.mono_ns);
        }
        self.count_sent(kind, length, cx);
        if self.send_compressed(kind, block.bytes(), cx) {
            return cx.blocks.give_back(block, cx.now.mono_ns);
        }
        if length <= COPIED_ECHO_BYTES {
            frame::write_message(&mut cx.out.bytes, kind, block.bytes());
            return;
        }
        let (header, size) = frame::message_header(kind, length);
        block.prepend(&header[..size]);
        cx.out.give(block);
    }

    /// Sends an echo compressed; returns whether it did.
    fn send_compressed(&mut self, kind: Kind, payload: &[u8], cx: &mut SocketCx<'_>) -> bool {
        let Some(agreed) = self.deflate else { return false };
        if !is_compressed(payload.len(), cx.room()) {
            return false;
        }
        *cx.work += payload.len() as u64 * limits::COMPRESSING_WORK;
        cx.codec.compress(agreed, kind, payload, &mut cx.out.bytes)
    }

    /// A complete compressed message.
    pub(crate) fn compressed_message(
        &mut self,
        kind: Kind,
        wire: &[u8],
        cx: &mut SocketCx<'_>,
    ) -> Result<(), Fault> {
        let limit = cx.config.limits.max_message.min(self.behaviour.sizes().message);
        // The answer may need as much again.
        let memory = cx.room().memory / 2;
        let inflated = cx.codec.inflate(kind, wire, limit.min(memory), cx.blocks);
        let inflated = inflated.map_err(|fault| match fault {
            Fault::TooBig if memory < limit => Fault::MemoryShort,
            fault => fault,
        })?;
        match inflated {
            Inflated::Long(block) => self.message_in_block(kind, block, cx),
            Inflated::Short(scratch) => {
                if self.receive_message(kind, scratch.bytes(), cx) == Answer::Same {
                    cx.for_behaviour(&mut self.tally, self.deflate).send(kind, scratch.bytes());
                }
                cx.codec.give_back(scratch);
            }
        }
        Ok(())
    }
}

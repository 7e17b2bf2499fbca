//! The fast path: short messages that are only echoed go from the read buffer to the output buffer
//! in one pass, without a call of the behaviour. Everything else is left to the general path, frame
//! by frame, with the same result at three times the instructions.

use crate::limits;
use crate::proto::frame::{self, CONTROL_MAX, Fault};
use crate::proto::mask;
use crate::server::websocket::{ReadSize, SocketCx, WebSocket};

/// Output space reserved at once.
const ROOM_BYTES: usize = 4 * 1024;

/// What the fast path has echoed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Echoed {
    /// Input bytes used.
    pub(crate) used: usize,
    /// Output bytes written.
    written: usize,
    /// Indexed by kind.
    messages: [u32; 2],
    payload_bytes: u64,
}

impl Echoed {
    pub(crate) fn frames(&self) -> usize {
        (self.messages[0] + self.messages[1]) as usize
    }

    /// Echoes the next message of `input`; `None` if the general path must handle what follows.
    #[inline]
    fn echo_next(&mut self, input: &[u8], room: &mut [u8]) -> Option<Result<(), Fault>> {
        let (kind, key, payload) = frame::short_message(&input[self.used..])?;
        let (header, room) = room[self.written..].split_first_chunk_mut()?;
        let plain = room.get_mut(..payload.len())?;
        let script = mask::unmask_into(plain, payload, key);
        if let Err(fault) = frame::check_text(kind, script, plain) {
            return Some(Err(fault));
        }
        *header = frame::short_header(kind, payload.len());
        self.used += frame::SHORT_HEADER + payload.len();
        self.written += header.len() + payload.len();
        self.messages[kind as usize] += 1;
        self.payload_bytes += payload.len() as u64;
        Some(Ok(()))
    }
}

impl WebSocket {
    /// Echoes the short messages at the front of `input`. Must not be called within a message.
    pub(crate) fn echo_short(
        &mut self,
        input: &[u8],
        cx: &mut SocketCx<'_>,
    ) -> Result<Echoed, Fault> {
        let mut echoed = Echoed::default();
        if !frame::begins_short(input) || !self.can_echo_short(cx) {
            return Ok(echoed);
        }
        let out = &mut cx.out.bytes;
        let start = out.len();
        // Its content is overwritten; copying takes fewer instructions than clearing.
        out.extend_from_slice(&input[..input.len().min(ROOM_BYTES)]);
        let room = &mut out[start..];
        let mut result = Ok(());
        while result.is_ok()
            && echoed.frames() < limits::FRAMES_PER_TURN
            && let Some(next) = echoed.echo_next(input, room)
        {
            result = next;
        }
        out.truncate(start + echoed.written);
        if self.read_size == ReadSize::Header {
            self.read_size = ReadSize::Usual;
        }
        self.tally.echoed(echoed.frames() as u32, echoed.payload_bytes);
        cx.metrics.traffic.echoed(echoed.messages, echoed.payload_bytes);
        result.map(|()| echoed)
    }

    /// Whether messages are only echoed and the output buffer has room.
    fn can_echo_short(&self, cx: &SocketCx<'_>) -> bool {
        self.extras.is_none()
            && self.deflate.is_none()
            && self.accepts_messages()
            && self.behaviour.only_echoes()
            && cx.out.len() + ROOM_BYTES <= limits::HIGH_WATER_BYTES
            && cx.config.limits.max_message >= CONTROL_MAX
            && !cx.config.log_payloads
            && !log::log_enabled!(target: "message", log::Level::Debug)
    }
}

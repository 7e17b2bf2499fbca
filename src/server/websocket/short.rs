//! The short way: short messages that are only sent back go from the read buffer to the out buffer
//! in one pass. Nobody is asked about each of them; whatever is out of the ordinary is left to the
//! usual way, frame by frame, which says the same at three times the instructions.

use crate::limits;
use crate::proto::frame::{self, CONTROL_MAX, Fault};
use crate::proto::mask;
use crate::server::websocket::{ReadSize, SocketCx, WebSocket};

/// What is made ready of the out buffer at once.
const ROOM_BYTES: usize = 4 * 1024;

/// What went the short way.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::server) struct Echoed {
    /// How far the input was used.
    pub(in crate::server) used: usize,
    /// How much room the echoes took.
    said: usize,
    /// Messages, by kind.
    messages: [u32; 2],
    payload_bytes: u64,
}

impl Echoed {
    pub(in crate::server) fn frames(&self) -> usize {
        (self.messages[0] + self.messages[1]) as usize
    }

    /// Echoes the message at the front of what is left of `input`. `None`: it must go the usual
    /// way, if it is one.
    #[inline]
    fn one(&mut self, input: &[u8], room: &mut [u8]) -> Option<Result<(), Fault>> {
        let (kind, key, payload) = frame::short_message(&input[self.used..])?;
        let (header, room) = room[self.said..].split_first_chunk_mut()?;
        let plain = room.get_mut(..payload.len())?;
        let script = mask::unmask_into(plain, payload, key);
        if let Err(fault) = frame::check_text(kind, script, plain) {
            return Some(Err(fault));
        }
        *header = frame::short_header(kind, payload.len());
        self.used += frame::SHORT_HEADER + payload.len();
        self.said += header.len() + payload.len();
        self.messages[kind as usize] += 1;
        self.payload_bytes += payload.len() as u64;
        Some(Ok(()))
    }
}

impl WebSocket {
    /// Echoes the short messages at the front of `input`, if that is all that there is to do.
    /// Nothing of an earlier message is unfinished.
    pub(in crate::server) fn echo_short(
        &mut self,
        input: &[u8],
        cx: &mut SocketCx<'_>,
    ) -> Result<Echoed, Fault> {
        let mut echoed = Echoed::default();
        if !frame::begins_short(input) || !self.takes_the_short_way(cx) {
            return Ok(echoed);
        }
        let out = &mut cx.out.bytes;
        let start = out.len();
        out.resize(start + input.len().min(ROOM_BYTES), 0);
        let room = &mut out[start..];
        let mut judged = Ok(());
        while judged.is_ok()
            && echoed.frames() < limits::FRAMES_PER_TURN
            && let Some(next) = echoed.one(input, room)
        {
            judged = next;
        }
        out.truncate(start + echoed.said);
        if self.read_size == ReadSize::Header {
            self.read_size = ReadSize::Usual;
        }
        self.tally.echoed(echoed.frames() as u32, echoed.payload_bytes);
        cx.metrics.traffic.echoed(echoed.messages, echoed.payload_bytes);
        judged.map(|()| echoed)
    }

    /// Nothing is between a message and its echo, and there is room for the echoes.
    fn takes_the_short_way(&self, cx: &SocketCx<'_>) -> bool {
        self.extras.is_none()
            && self.deflate.is_none()
            && self.phase_takes_messages()
            && self.behaviour.only_echoes()
            && cx.out.len() + ROOM_BYTES <= limits::HIGH_WATER_BYTES
            && cx.config.limits.max_message >= CONTROL_MAX
            && !cx.config.log_payloads
            && !log::log_enabled!(target: "message", log::Level::Debug)
    }
}

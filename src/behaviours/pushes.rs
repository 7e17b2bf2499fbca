//! Unsolicited messages, in addition to any behaviour: the parameters `randping` and `every`.

use super::{Ctx, Kind, Params};
use crate::time;

/// Beginnings of all messages that a server sends by itself: pushes, the messages of `reverse`, and
/// that of `hello=1`. Clients must not take them for answers.
const UNASKED: [&[u8]; 5] =
    [b"randping", b"tick ", b"Welcome!", b"Connection is alive", b"{\"pod\""];

/// Whether a message that begins like this is no answer; the first 20 bytes tell.
#[must_use]
pub fn is_unasked(message: &[u8]) -> bool {
    UNASKED.iter().any(|unasked| message.starts_with(unasked))
}

/// The push timers of one connection.
#[derive(Debug)]
pub struct Pushes {
    randping_ms: u64,
    every_ms: u64,
    size: usize,
    ticks: u64,
    randping_ns: Option<u64>,
    every_ns: Option<u64>,
}

impl Pushes {
    /// `None` if the parameters request no pushes.
    #[must_use]
    pub fn new(params: &Params, now_ns: u64) -> Option<Self> {
        if params.randping_ms == 0 && params.every_ms == 0 {
            return None;
        }
        Some(Self {
            randping_ms: params.randping_ms,
            every_ms: params.every_ms,
            size: params.size,
            ticks: 0,
            // The first is sent immediately, before any echo.
            randping_ns: (params.randping_ms > 0).then_some(now_ns),
            every_ns: (params.every_ms > 0).then(|| now_ns + time::ms(params.every_ms)),
        })
    }

    /// When to call [`Pushes::speak`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.randping_ns.into_iter().chain(self.every_ns).min()
    }

    /// Sends the messages that are due.
    pub fn speak(&mut self, ctx: &mut Ctx<'_>) {
        let now_ns = ctx.now.mono_ns;
        if self.randping_ns.is_some_and(|due| due <= now_ns) {
            ctx.send(Kind::Text, &padded("randping".to_owned(), self.size));
            let gap_ns = ctx.rng.below(time::ms(self.randping_ms));
            self.randping_ns = Some(now_ns + gap_ns);
        }
        if let Some(due) = self.every_ns
            && due <= now_ns
        {
            self.ticks += 1;
            ctx.send(Kind::Text, &padded(format!("tick {}", self.ticks), self.size));
            // Relative to the due time, so that delays do not accumulate; but ticks missed while
            // the process was stopped are skipped.
            let gap_ns = time::ms(self.every_ms);
            self.every_ns = Some((due + gap_ns).max(now_ns));
        }
    }
}

/// Pads the text with dots to `size` bytes.
fn padded(text: String, size: usize) -> Vec<u8> {
    let mut payload = text.into_bytes();
    if payload.len() < size {
        payload.resize(size, b'.');
    }
    payload
}

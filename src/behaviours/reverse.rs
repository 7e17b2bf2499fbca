//! What a chat that ends badly needs to be watched: a welcome, each text backwards, and a sign of
//! life every five seconds, so that a client sees until when its server lived.

use serde::Serialize;

use super::{Answer, Behaviour, Ctx, Kind};
use crate::time;

/// Between two signs of life.
const ALIVE_MS: u64 = 5_000;

/// Knows only when it speaks next.
#[derive(Debug, Default)]
pub(super) struct Reverse {
    alive_ns: u64,
}

/// The fields in the order in which they are sent.
#[derive(Serialize)]
struct Reversed<'a> {
    message: &'a str,
    time: &'a str,
}

impl Behaviour for Reverse {
    fn on_open(&mut self, ctx: &mut Ctx<'_>) {
        self.alive_ns = ctx.now.mono_ns + time::ms(ALIVE_MS);
        let welcome = format!("Welcome! {}", time::http_date(ctx.now.wall_ms));
        ctx.send(Kind::Text, welcome.as_bytes());
    }

    fn on_message(&mut self, kind: Kind, payload: &[u8], ctx: &mut Ctx<'_>) -> Answer {
        // A text was checked to be UTF-8 before it came here.
        let (Kind::Text, Ok(text)) = (kind, std::str::from_utf8(payload)) else {
            return Answer::Close(1003, "text only");
        };
        let message: String = text.chars().rev().collect();
        let answer = Reversed { message: &message, time: &time::rfc3339(ctx.now.wall_ms) };
        // Two strings always serialize.
        ctx.send(Kind::Text, &serde_json::to_vec(&answer).unwrap_or_default());
        Answer::Nothing
    }

    fn next_deadline(&self) -> Option<u64> {
        Some(self.alive_ns)
    }

    fn on_wake(&mut self, ctx: &mut Ctx<'_>) {
        if self.alive_ns <= ctx.now.mono_ns {
            let alive = format!("Connection is alive {}", time::http_date(ctx.now.wall_ms));
            ctx.send(Kind::Text, alive.as_bytes());
            // From the due time, so that lateness does not add up; but nothing is made up for.
            self.alive_ns = (self.alive_ns + time::ms(ALIVE_MS)).max(ctx.now.mono_ns);
        }
    }
}

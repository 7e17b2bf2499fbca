//! Pings, regardless of traffic: proxies may drop connections on which the client never sends.

use crate::engine::Now;
use crate::proto::frame;
use crate::rng::Rng;
use crate::server::config::Limits;
use crate::server::unfinished::Unfinished;
use crate::time::{self, Moment};

/// Avoids that pings of many connections coincide.
const JITTER_PERCENT: u64 = 20;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepalive {
    /// When the last byte was received.
    last_received: Moment,
    /// When to send the next ping; `None` if disabled.
    next_ping: Option<Moment>,
    /// When the last ping was sent, until any later byte is received.
    pinged: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    Alive,
    TimedOut,
}

impl Keepalive {
    /// `own_ms` is the mount's interval and overrides the server's; 0 disables pings.
    pub(crate) fn new(own_ms: Option<u64>, now: Now, limits: &Limits, rng: &mut Rng) -> Self {
        let last_received = Moment::at(now.mono_ns);
        Self { last_received, next_ping: schedule_ping(own_ms, now, limits, rng), pinged: None }
    }

    /// Bytes were received. Nothing else is done for each read.
    pub(crate) fn received(&mut self, now: Now) {
        self.last_received = Moment::at(now.mono_ns);
    }

    /// A pong was received: returns the round trip time. Our pings carry their send time;
    /// unsolicited pongs may carry anything.
    pub(crate) fn round_trip_ns(&self, payload: &[u8], now: Now) -> Option<u64> {
        self.pinged?;
        let sent_ns = u64::from_be_bytes(payload.try_into().ok()?);
        now.mono_ns.checked_sub(sent_ns)
    }

    /// Reading resumed: the answer to the ping may be among unread input, so the timeout starts
    /// anew.
    pub(crate) fn reading_resumed(&mut self, now: Now) {
        if let Some(pinged) = &mut self.pinged
            && self.last_received.ms_ago(now) > pinged.ms_ago(now)
        {
            *pinged = Moment::at(now.mono_ns);
        }
    }

    pub(crate) fn stop(&mut self) {
        (self.next_ping, self.pinged) = (None, None);
    }

    /// Sends a ping if due, and checks the timeout of the last one.
    pub(crate) fn wake(
        &mut self,
        own_ms: Option<u64>,
        unfinished: Option<&Unfinished>,
        now: Now,
        (limits, rng): (&Limits, &mut Rng),
        out: &mut Vec<u8>,
    ) -> Liveness {
        if let Some(pinged) = self.pinged {
            if self.last_received.ms_ago(now) <= pinged.ms_ago(now) {
                self.pinged = None;
            } else if pinged.ms_ago(now) >= limits.pong_timeout_ms {
                return Liveness::TimedOut;
            }
        }
        if self.next_ping.is_some_and(|when| when.has_come(now)) {
            self.next_ping = schedule_ping(own_ms, now, limits, rng);
            // A ping queued behind unsent output would measure nothing; the send timeout covers
            // that peer.
            if self.pinged.is_none()
                && unfinished.is_none_or(|unfinished| unfinished.outbox.is_empty())
            {
                frame::write_ping(out, &now.mono_ns.to_be_bytes());
                let pinged = Moment::at(now.mono_ns);
                self.pinged = Some(pinged);
                // An answer may arrive within this very millisecond: bytes received earlier must be
                // older.
                self.last_received = pinged.before();
            }
        }
        Liveness::Alive
    }

    pub(crate) fn next_deadline(&self, now: Now, limits: &Limits) -> Option<u64> {
        let timeout_ns = time::ms(limits.pong_timeout_ms);
        let timeout_at_ns = self.pinged.map(|pinged| pinged.ns(now) + timeout_ns);
        self.next_ping.map(|when| when.ns(now)).into_iter().chain(timeout_at_ns).min()
    }
}

fn schedule_ping(own_ms: Option<u64>, now: Now, limits: &Limits, rng: &mut Rng) -> Option<Moment> {
    let gap_ms = own_ms.unwrap_or(limits.ping_interval_ms);
    (gap_ms > 0).then(|| Moment::after(now, rng.around(gap_ms, JITTER_PERCENT)))
}

//! Pings, whatever the traffic: what lies between may forget a connection that only listens.

use crate::engine::Now;
use crate::proto::frame;
use crate::rng::Rng;
use crate::server::config::Limits;
use crate::server::slow::Slow;
use crate::time::{self, Moment};

/// So that ten thousand pings do not fall on one moment.
const JITTER_PERCENT: u64 = 20;

/// When the next ping goes, and whether the last one was answered.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Keepalive {
    /// When the last byte came.
    heard: Moment,
    /// When the next ping goes; none: never.
    next_ping: Option<Moment>,
    /// When the last one went, until any byte came that answers it.
    asked: Option<Moment>,
}

/// Whether the peer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Pulse {
    Fine,
    Lost,
}

impl Keepalive {
    /// Pings at the mount's own gap, or at the server's; a gap of 0 sends none.
    pub(in crate::server) fn new(
        own_ms: Option<u64>,
        now: Now,
        limits: &Limits,
        rng: &mut Rng,
    ) -> Self {
        let heard = Moment::at(now.mono_ns);
        Self { heard, next_ping: plan(own_ms, now, limits, rng), asked: None }
    }

    /// Something came: the only thing that is done for each read.
    pub(in crate::server) fn heard(&mut self, now: Now) {
        self.heard = Moment::at(now.mono_ns);
    }

    /// A pong came: the round trip since its ping, in nanoseconds. Our pings carry the moment at
    /// which they were sent; other pongs may carry anything.
    pub(in crate::server) fn answered(&self, payload: &[u8], now: Now) -> Option<u64> {
        self.asked?;
        let sent_ns = u64::from_be_bytes(payload.try_into().ok()?);
        now.mono_ns.checked_sub(sent_ns)
    }

    /// The peer was not read until now: an answer to the ping may wait among what it has sent, and
    /// has its whole time from here.
    pub(in crate::server) fn read_again(&mut self, now: Now) {
        if let Some(asked) = &mut self.asked
            && self.heard.ms_ago(now) > asked.ms_ago(now)
        {
            *asked = Moment::at(now.mono_ns);
        }
    }

    pub(in crate::server) fn stop(&mut self) {
        (self.next_ping, self.asked) = (None, None);
    }

    /// Sends the ping that is due, and looks whether the last one was answered in time.
    pub(in crate::server) fn wake(
        &mut self,
        own_ms: Option<u64>,
        slow: Option<&Slow>,
        now: Now,
        (limits, rng): (&Limits, &mut Rng),
        out: &mut Vec<u8>,
    ) -> Pulse {
        if let Some(asked) = self.asked {
            if self.heard.ms_ago(now) <= asked.ms_ago(now) {
                self.asked = None;
            } else if asked.ms_ago(now) >= limits.pong_timeout_ms {
                return Pulse::Lost;
            }
        }
        if self.next_ping.is_some_and(|when| when.has_come(now)) {
            self.next_ping = plan(own_ms, now, limits, rng);
            // A ping behind output that the peer does not take would measure nothing; the send
            // timeout watches over that peer.
            if self.asked.is_none() && slow.is_none_or(|slow| slow.outbox.is_empty()) {
                frame::write_ping(out, &now.mono_ns.to_be_bytes());
                let asked = Moment::at(now.mono_ns);
                self.asked = Some(asked);
                // An answer may come within this very tick: what was heard before is older.
                self.heard = asked.before();
            }
        }
        Pulse::Fine
    }

    pub(in crate::server) fn next_deadline(&self, now: Now, limits: &Limits) -> Option<u64> {
        let timeout_ns = time::ms(limits.pong_timeout_ms);
        let lost_ns = self.asked.map(|asked| asked.ns(now) + timeout_ns);
        self.next_ping.map(|when| when.ns(now)).into_iter().chain(lost_ns).min()
    }
}

fn plan(own_ms: Option<u64>, now: Now, limits: &Limits, rng: &mut Rng) -> Option<Moment> {
    let gap_ms = own_ms.unwrap_or(limits.ping_interval_ms);
    (gap_ms > 0).then(|| Moment::after(now, rng.around(gap_ms, JITTER_PERCENT)))
}

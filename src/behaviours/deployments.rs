//! What changes in a cluster, as sentences or as JSON: every Deployment there is, and then each
//! change. What is told lies in the informer's feed; here stands how it reaches one connection.

use super::{Answer, Behaviour, Ctx, Kind, NO_CLIENT, Params};
use crate::informer::{Format, SAID_BYTES, Then, Wish};
use crate::limits::LOW_WATER_BYTES;
use crate::proto::frame::REASON_BYTES_MAX;

/// Knows what it wants to see.
#[derive(Debug)]
pub(super) struct Deployments {
    wish: Wish,
}

impl Deployments {
    pub(super) fn new(params: &Params) -> Self {
        let format = if params.json { Format::Json } else { Format::Text };
        let (namespace, name) = (params.namespace.clone(), params.name.clone());
        Self { wish: Wish { format, namespace, name } }
    }
}

impl Behaviour for Deployments {
    fn on_open(&mut self, ctx: &mut Ctx<'_>) {
        let why = match &mut ctx.deployments {
            Ok(feed) => return feed.join(ctx.id, self.wish.clone()),
            Err(why) => *why,
        };
        let why = cut(why);
        ctx.send(Kind::Text, NO_CLIENT.as_bytes());
        *ctx.farewell = Some((1011, why));
    }

    /// Whoever watches has nothing to say that we would answer.
    fn on_message(&mut self, _kind: Kind, _payload: &[u8], _ctx: &mut Ctx<'_>) -> Answer {
        Answer::Nothing
    }

    fn on_wake(&mut self, ctx: &mut Ctx<'_>) {
        // It has not taken what it was told before; it is woken again when it has.
        if ctx.waiting >= LOW_WATER_BYTES {
            return;
        }
        let Ctx { now, id, deployments: Ok(feed), tally, traffic, deflate, codec, out, .. } = ctx
        else {
            return;
        };
        let before = out.bytes.len();
        let then = feed.speak(*now, *id, &mut |said| {
            for payload in said.payloads() {
                tally.sent(payload.len());
                traffic.sent(Kind::Text, payload.len());
            }
            match deflate {
                None => out.bytes.extend_from_slice(said.bytes()),
                Some(agreed) => {
                    for payload in said.payloads() {
                        super::write(*agreed, codec, Kind::Text, payload, &mut out.bytes);
                    }
                }
            }
            SAID_BYTES.saturating_sub(out.bytes.len() - before)
        });
        if then == Then::Lost {
            *ctx.farewell = Some((1013, "too far behind".to_owned()));
        }
    }
}

/// As much of a reason as a Close can carry.
fn cut(reason: &str) -> String {
    let ends = reason.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|end| *end <= REASON_BYTES_MAX).last().unwrap_or(0);
    reason[..end].to_owned()
}

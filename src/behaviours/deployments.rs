//! What changes in a cluster, as sentences or as JSON: every Deployment there is, and then each
//! change. What is told lies in the informer's feed; here stands how it reaches one connection.

use super::{Answer, Behaviour, Close, Ctx, Kind, NO_CLIENT, Params};
use crate::informer::{Format, SAID_BYTES, Then, Wish};
use crate::limits::{COMPRESSING_WORK, LOW_WATER_BYTES};
use crate::proto::frame::REASON_BYTES_MAX;

/// Knows what it wants to see until it has told the feed.
#[derive(Debug)]
pub(super) struct Deployments {
    wish: Option<Wish>,
}

impl Deployments {
    pub(super) fn new(params: &Params) -> Self {
        let format = if params.json { Format::Json } else { Format::Text };
        let (namespace, name) = (params.namespace.clone(), params.name.clone());
        Self { wish: Some(Wish { format, namespace, name }) }
    }
}

impl Behaviour for Deployments {
    fn on_open(&mut self, ctx: &mut Ctx<'_>) -> Option<Close> {
        let why = match &mut ctx.deployments {
            Ok(feed) => {
                if let Some(wish) = self.wish.take() {
                    feed.join(ctx.id, wish);
                }
                return None;
            }
            Err(why) => *why,
        };
        let reason = cut(why);
        ctx.send(Kind::Text, NO_CLIENT.as_bytes());
        Some(Close { code: 1011, reason })
    }

    /// Whoever watches has nothing to say that we would answer.
    fn on_message(&mut self, _kind: Kind, _payload: &[u8], _ctx: &mut Ctx<'_>) -> Answer {
        Answer::Nothing
    }

    fn on_wake(&mut self, ctx: &mut Ctx<'_>) -> Option<Close> {
        // It has not taken what it was told before; it is woken again when it has.
        if ctx.waiting >= LOW_WATER_BYTES {
            return None;
        }
        let Ctx {
            now, id, deployments: Ok(feed), tally, traffic, deflate, codec, out, work, ..
        } = ctx
        else {
            return None;
        };
        let before = out.bytes.len();
        let then = feed.speak(*now, *id, &mut |said| {
            **work += said.bytes().len() as u64;
            for payload in said.payloads() {
                tally.sent(payload.len());
                traffic.sent(Kind::Text, payload.len());
            }
            match deflate {
                None => out.bytes.extend_from_slice(said.bytes()),
                Some(agreed) => {
                    **work += said.bytes().len() as u64 * COMPRESSING_WORK;
                    for payload in said.payloads() {
                        super::write(*agreed, codec, Kind::Text, payload, &mut out.bytes);
                    }
                }
            }
            SAID_BYTES.saturating_sub(out.bytes.len() - before)
        });
        (then == Then::Lost).then(|| Close { code: 1013, reason: "too far behind".to_owned() })
    }
}

/// As much of a reason as a Close can carry.
fn cut(reason: &str) -> String {
    let ends = reason.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|end| *end <= REASON_BYTES_MAX).last().unwrap_or(0);
    reason[..end].to_owned()
}

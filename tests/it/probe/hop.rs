//! A hop between the probe and the server, on the real loop: it passes bytes on in both directions,
//! and does one thing that a hop should not do.

use std::collections::VecDeque;

use wspulse::engine::{Action, Engine, HangUp, Id, Now, Out, Peer, Side, Signal, Target};
use wspulse::outbox::{Blocks, Outbox};
use wspulse::rng::Rng;
use wspulse::slab::Slab;
use wspulse::time;

use super::Between;
use super::bytes::{Frame, Head, PONG};
use super::wrong::{Cut, Silence, Way, Wrong};

/// The sides of a pair, as indices.
pub(super) const CLIENT: usize = 0;
pub(super) const SERVER: usize = 1;
/// How long a hop that collects bytes does so.
const COLLECTED_MS: u64 = 1_000;
const SLOW_CLOSE_MS: u64 = 3_000;
const FULL: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 59\r\nConnection: close\r\n\r\n\
    too many WebSockets with probe=1 are open, try again later\n";
const HEAD_BYTES: usize = 4_096;
const MESSAGE_BYTES: usize = 64 * 1_024;

/// One of the two connections of a pair.
#[derive(Debug)]
struct End {
    pair: usize,
    side: usize,
    is_connected: bool,
    /// Bytes of an incomplete head or frame.
    input: Vec<u8>,
    speaks: Speaks,
    /// The first frames of a message that is being joined.
    message: Option<Frame>,
    /// Output that is delayed, with the times at which it is due.
    late: VecDeque<(u64, Vec<u8>)>,
    output: Vec<u8>,
    outbox: Outbox,
    /// What follows once all output is written.
    then: Then,
    /// Its peer's writing side is closed.
    has_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Nothing,
    /// The writing side is shut down.
    Finish,
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Head,
    Frames,
    /// Anything: it is passed on as it is.
    Bytes,
}

/// The connections of a client and to the server.
#[derive(Debug)]
struct Pair {
    ids: [Option<Id>; 2],
    opened_ns: u64,
    /// When each side was last heard.
    heard_ns: [u64; 2],
    is_open: bool,
    /// Nothing is passed on any more.
    is_hole: bool,
}

/// The hop.
#[derive(Debug)]
pub(super) struct Hop {
    wrong: Wrong,
    upstream: Target,
    pairs: Vec<Pair>,
    ends: Slab<End>,
    actions: VecDeque<Action>,
    /// Draws where writes are cut and how much they are delayed; `None`: not at all.
    jitter: Option<Rng>,
}

impl Hop {
    pub(super) fn new(wrong: Wrong, upstream: Target, jitter: Option<Rng>) -> Self {
        let (pairs, ends, actions) = (Vec::new(), Slab::default(), VecDeque::new());
        Self { wrong, upstream, pairs, ends, actions, jitter }
    }

    fn add(&mut self, pair: usize, side: usize) -> Option<Id> {
        self.ends.insert(End {
            pair,
            side,
            is_connected: side == CLIENT,
            input: Vec::new(),
            speaks: Speaks::Head,
            message: None,
            late: VecDeque::new(),
            output: Vec::new(),
            outbox: Outbox::default(),
            then: Then::Nothing,
            has_ended: false,
        })
    }

    /// Bytes from one side.
    fn heard(&mut self, now: Now, id: Id, bytes: &[u8]) {
        let Some(end) = self.ends.find_mut(id) else { return };
        let (pair, side) = (end.pair, end.side);
        if self.pairs[pair].is_hole {
            return;
        }
        self.pairs[pair].heard_ns[side] = now.mono_ns;
        end.input.extend_from_slice(bytes);
        while self.step(now, id, (pair, side)) {}
    }

    /// Handles what is complete at the front of the input; returns whether there may be more.
    fn step(&mut self, now: Now, id: Id, (pair, side): (usize, usize)) -> bool {
        let Some(end) = self.ends.find_mut(id) else { return false };
        match end.speaks {
            _ if end.input.is_empty() || end.then == Then::Close => false,
            Speaks::Bytes => {
                let bytes = std::mem::take(&mut end.input);
                self.pass(now, pair, 1 - side, bytes);
                false
            }
            Speaks::Head => {
                let Some(head) = Head::take(&mut end.input) else { return false };
                end.speaks = Speaks::Frames;
                if side == CLIENT {
                    self.request(now, id, pair, head);
                } else {
                    self.response(now, id, pair, head);
                }
                true
            }
            Speaks::Frames if !self.wrong.reads_frames() => {
                end.speaks = Speaks::Bytes;
                true
            }
            Speaks::Frames => {
                let Some(frame) = Frame::take(&mut end.input) else { return false };
                self.frame(now, id, (pair, side), frame);
                true
            }
        }
    }

    fn request(&mut self, now: Now, id: Id, pair: usize, mut head: Head) {
        let open = self.pairs.iter().filter(|pair| pair.is_open).count();
        let answer = match self.wrong {
            Wrong::Answers(response) => Some(response),
            Wrong::LimitsHeads if head.len() > HEAD_BYTES => {
                Some("HTTP/1.1 431 Too large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            }
            Wrong::LimitsSockets(most) if open >= most => {
                Some("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            }
            Wrong::RefusesAfter(most) if pair >= most => {
                Some("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            }
            Wrong::LacksRoom(most) if open >= most => Some(FULL),
            Wrong::RefusesPath if head.first_line().contains("probe/a%2F") => {
                Some("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            }
            Wrong::NeverAnswers => return,
            Wrong::ResetsRequests => return self.actions.push_back(Action::Reset(id)),
            _ => None,
        };
        if let Some(answer) = answer {
            self.write(now, id, answer.as_bytes().to_vec());
            return self.close(id);
        }
        self.pairs[pair].is_open = head.asks_for_upgrade();
        self.wrong.edit_request(&mut head);
        let Some(upstream) = self.add(pair, SERVER) else { return };
        self.pairs[pair].ids[SERVER] = Some(upstream);
        self.actions.push_back(Action::Connect(upstream, self.upstream.clone()));
        self.write(now, upstream, head.bytes());
    }

    fn response(&mut self, now: Now, id: Id, pair: usize, mut head: Head) {
        let opens = head.first_line().contains(" 101 ");
        if !opens && let Some(end) = self.ends.find_mut(id) {
            end.speaks = Speaks::Bytes;
        }
        self.pairs[pair].is_open = opens;
        self.pairs[pair].opened_ns = now.mono_ns;
        self.pairs[pair].heard_ns = [now.mono_ns; 2];
        self.wrong.edit_response(&mut head);
        self.pass(now, pair, CLIENT, head.bytes());
        if opens && self.wrong == Wrong::EndsAfter101 {
            self.close_pair(pair);
        }
    }

    fn frame(&mut self, now: Now, id: Id, (pair, side): (usize, usize), mut frame: Frame) {
        match self.wrong {
            Wrong::AnswersPings if frame.is_ping() => {
                let mask = if side == CLIENT { None } else { Some([7; 4]) };
                let pong = Frame { first: PONG, mask, payload: frame.payload };
                return self.pass(now, pair, side, pong.bytes());
            }
            Wrong::DropsPings if frame.is_ping() => return,
            Wrong::JoinsFragments if frame.is_data() => {
                let Some(end) = self.ends.find_mut(id) else { return };
                let is_last = frame.first & 0x80 != 0;
                let mut joined = match end.message.take() {
                    Some(mut begun) => {
                        begun.payload.extend(frame.payload);
                        begun
                    }
                    None => frame,
                };
                if !is_last {
                    end.message = Some(joined);
                    return;
                }
                joined.first |= 0x80;
                return self.pass(now, pair, 1 - side, joined.bytes());
            }
            Wrong::SplitsMessages if frame.is_data() => {
                let (one, other) = frame.split();
                self.pass(now, pair, 1 - side, one.bytes());
                if let Some(other) = other {
                    self.pass(now, pair, 1 - side, other.bytes());
                }
                return;
            }
            Wrong::LosesClose if frame.is_close() => return self.close_pair(pair),
            Wrong::ChangesCode if frame.is_close() && frame.payload.len() >= 2 => {
                frame.payload[..2].copy_from_slice(&1000_u16.to_be_bytes());
            }
            Wrong::LosesReason if frame.is_close() => frame.payload.truncate(2),
            Wrong::FlipsBits if frame.is_compressed() => frame.payload[0] ^= 0x55,
            Wrong::LimitsMessages if frame.payload.len() > MESSAGE_BYTES => {
                let payload = [&1009_u16.to_be_bytes()[..], b"too long"].concat();
                let close = Frame { first: 0x88, mask: None, payload };
                self.pass(now, pair, CLIENT, close.bytes());
                return self.close_pair(pair);
            }
            _ => {}
        }
        if self.wrong == Wrong::ClosesSlowly && frame.is_close() {
            let due_ns = now.mono_ns + time::ms(SLOW_CLOSE_MS);
            return self.pass_at(due_ns, pair, 1 - side, frame.bytes());
        }
        self.pass(now, pair, 1 - side, frame.bytes());
    }

    /// Passes bytes on to a side of a pair, with the delays of this hop.
    fn pass(&mut self, now: Now, pair: usize, to: usize, bytes: Vec<u8>) {
        let now_ns = now.mono_ns;
        if self.wrong == Wrong::Collects && self.pairs[pair].is_open {
            let due_ns = (now_ns / time::ms(COLLECTED_MS) + 1) * time::ms(COLLECTED_MS);
            return self.pass_at(due_ns, pair, to, bytes);
        }
        let delay_ns = match self.wrong {
            Wrong::Delays { ms } => time::ms(ms),
            Wrong::Narrow { bytes: most } => bytes.len() as u64 * 1_000_000_000 / most,
            _ => 0,
        };
        let Some(rng) = &mut self.jitter else {
            let busy_ns = match self.wrong {
                Wrong::Narrow { .. } => self.last_due_ns(pair, to),
                _ => 0,
            };
            return self.pass_at(now_ns.max(busy_ns) + delay_ns, pair, to, bytes);
        };
        let cut = rng.below(bytes.len() as u64 + 1) as usize;
        let due_ns = [0; 2].map(|_: u64| now_ns + time::ms(rng.below(50)));
        self.pass_at(due_ns[0], pair, to, bytes[..cut].to_vec());
        self.pass_at(due_ns[1], pair, to, bytes[cut..].to_vec());
    }

    /// When the last byte that waits is due.
    fn last_due_ns(&self, pair: usize, to: usize) -> u64 {
        let end = self.pairs[pair].ids[to].and_then(|id| self.ends.find(id));
        end.and_then(|end| end.late.back()).map_or(0, |(due_ns, _)| *due_ns)
    }

    fn pass_at(&mut self, due_ns: u64, pair: usize, to: usize, bytes: Vec<u8>) {
        let Some(id) = self.pairs[pair].ids[to] else { return };
        let Some(end) = self.ends.find_mut(id) else { return };
        let last_ns = end.late.back().map_or(0, |(at_ns, _)| *at_ns);
        end.late.push_back((due_ns.max(last_ns), bytes));
    }

    /// Writes without a delay.
    fn write(&mut self, now: Now, id: Id, bytes: Vec<u8>) {
        if let Some(end) = self.ends.find_mut(id) {
            end.late.push_back((now.mono_ns, bytes));
        }
    }

    /// Writes what is due.
    fn flush(&mut self, now: Now, id: Id) {
        let Some(end) = self.ends.find_mut(id) else { return };
        if !end.is_connected {
            return;
        }
        let mut wrote = false;
        while end.late.front().is_some_and(|(due_ns, _)| *due_ns <= now.mono_ns) {
            let bytes = end.late.pop_front().map_or_else(Vec::new, |(_, bytes)| bytes);
            end.output.extend(bytes);
            wrote = true;
        }
        if wrote {
            self.actions.push_back(Action::Write(id));
        }
        match end.then {
            Then::Finish if end.late.is_empty() => {
                end.then = Then::Nothing;
                self.actions.push_back(Action::Finish(id));
            }
            Then::Close if end.late.is_empty() => self.actions.push_back(Action::Close(id)),
            Then::Nothing | Then::Finish | Then::Close => {}
        }
    }

    fn flush_all(&mut self, now: Now) {
        let ids: Vec<Id> = self.ends.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.flush(now, id);
        }
    }

    /// Closes once everything is written.
    fn close(&mut self, id: Id) {
        if let Some(end) = self.ends.find_mut(id) {
            end.then = Then::Close;
        }
    }

    fn close_pair(&mut self, pair: usize) {
        for id in self.pairs[pair].ids.into_iter().flatten() {
            self.close(id);
        }
    }

    fn pass_fin(&mut self, id: Id, pair: usize, other: Option<Id>) {
        if let Some(end) = self.ends.find_mut(id) {
            end.has_ended = true;
        }
        match other.and_then(|other| self.ends.find_mut(other)) {
            Some(other) if !other.has_ended => other.then = Then::Finish,
            _ => self.close_pair(pair),
        }
    }

    /// When the pair is cut.
    fn cut_ns(&self, pair: &Pair) -> Option<u64> {
        let Wrong::Cuts(Cut { of, after_ms, .. }) = self.wrong else { return None };
        let [client_ns, server_ns] = pair.heard_ns;
        let since_ns = match of {
            Silence::Both => client_ns.max(server_ns),
            Silence::Client => client_ns,
            Silence::Server => server_ns,
            Silence::Age => pair.opened_ns,
        };
        (pair.is_open && !pair.is_hole).then(|| since_ns + time::ms(after_ms))
    }

    fn cut(&mut self, now: Now, at: usize) {
        let Wrong::Cuts(Cut { way, .. }) = self.wrong else { return };
        self.pairs[at].is_open = false;
        let ids = self.pairs[at].ids;
        match way {
            Way::Fin => self.close_pair(at),
            Way::Rst => {
                self.actions.extend(ids.into_iter().flatten().map(Action::Reset));
            }
            Way::Hole => self.pairs[at].is_hole = true,
            Way::Close | Way::TornClose => {
                let just_spoke = |heard_ns: &u64| now.mono_ns - heard_ns < time::ms(1_100);
                if way == Way::TornClose && self.pairs[at].heard_ns.iter().all(just_spoke) {
                    self.pass(now, at, CLIENT, vec![0x81, 2, b't']);
                }
                let payload = [&1001_u16.to_be_bytes()[..], b"idle"].concat();
                let close = Frame { first: 0x88, mask: None, payload };
                self.pass(now, at, CLIENT, close.bytes());
                self.close_pair(at);
            }
        }
    }
}

impl Between for Hop {
    fn connections(&self) -> usize {
        self.ends.len()
    }
}

impl Engine for Hop {
    fn accepted(&mut self, now: Now, _: Side, _: Peer) -> Option<Id> {
        let pair = self.pairs.len();
        let id = self.add(pair, CLIENT)?;
        let (opened_ns, heard_ns) = (now.mono_ns, [now.mono_ns; 2]);
        let ids = [Some(id), None];
        self.pairs.push(Pair { ids, opened_ns, heard_ns, is_open: false, is_hole: false });
        if self.wrong == Wrong::ResetsClients {
            self.actions.push_back(Action::Reset(id));
        }
        Some(id)
    }

    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Out) {
        let Some(end) = self.ends.find_mut(id) else { return };
        end.is_connected = true;
        let pair = end.pair;
        if how.is_err() {
            let answer = b"HTTP/1.1 502 Bad gateway\r\nContent-Length: 0\r\n\r\n".to_vec();
            self.pass(now, pair, CLIENT, answer);
            self.close_pair(pair);
        }
        self.flush_all(now);
        self.render(now, id, out);
    }

    fn room<'a>(&'a mut self, _: Id, shared: &'a mut [u8]) -> &'a mut [u8] {
        shared
    }

    fn received(&mut self, now: Now, id: Id, n: usize, shared: &mut [u8], _: &mut Out) {
        self.heard(now, id, &shared[..n]);
        self.flush_all(now);
    }

    fn ended(&mut self, now: Now, id: Id, how: HangUp, _: &mut Out) {
        let Some(end) = self.ends.find(id) else { return };
        let (pair, side) = (end.pair, end.side);
        let other = self.pairs[pair].ids[1 - side];
        match how {
            // The client learns nothing of it.
            _ if self.pairs[pair].is_hole && side == SERVER => self.close(id),
            HangUp::Eof if self.wrong == Wrong::PassesFin => self.pass_fin(id, pair, other),
            HangUp::Eof => self.close_pair(pair),
            _ => self.actions.extend(other.map(Action::Reset)),
        }
        self.flush_all(now);
    }

    fn keep(&mut self, _: Now, id: Id, shared: &[u8], out: &mut Out, taken: usize) {
        if let Some(end) = self.ends.find_mut(id) {
            end.outbox.keep(out, shared, taken, &mut Blocks::default(), 0);
        }
    }

    fn unsent(&self, id: Id) -> &[u8] {
        self.ends.find(id).map_or(&[], |end| end.outbox.unsent())
    }

    fn sent(&mut self, _: Now, id: Id, n: usize) {
        if let Some(end) = self.ends.find_mut(id) {
            end.outbox.sent(n, &mut Blocks::default(), 0);
        }
    }

    fn render(&mut self, _: Now, id: Id, out: &mut Out) {
        if let Some(end) = self.ends.find_mut(id) {
            out.bytes.append(&mut end.output);
        }
    }

    fn closed(&mut self, now: Now, id: Id) {
        let Some(end) = self.ends.remove(id) else { return };
        let pair = &mut self.pairs[end.pair];
        pair.ids[end.side] = None;
        pair.is_open = false;
        if pair.is_hole && end.side == SERVER {
            return;
        }
        if let Some(other) = pair.ids[1 - end.side] {
            self.close(other);
            self.flush(now, other);
        }
    }

    fn fire(&mut self, now: Now) {
        let due = |pair: &Pair| self.cut_ns(pair).is_some_and(|at_ns| at_ns <= now.mono_ns);
        let due: Vec<usize> = (0..self.pairs.len()).filter(|at| due(&self.pairs[*at])).collect();
        for at in due {
            self.cut(now, at);
        }
        self.flush_all(now);
    }

    fn signal(&mut self, _: Now, _: Signal) {}

    fn next_deadline(&self) -> Option<u64> {
        let late = self.ends.iter().filter(|(_, end)| end.is_connected);
        let late = late.filter_map(|(_, end)| end.late.front().map(|(due_ns, _)| *due_ns));
        let cuts = self.pairs.iter().filter_map(|pair| self.cut_ns(pair));
        late.chain(cuts).min()
    }

    fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}

//! What becomes of received bytes in each stage, and of those that cannot be used yet.
//! A stage is changed only through `conn`.

use crate::engine::Action;
use crate::outbox::Block;
use crate::server::conn::{Conn, Stage};
use crate::server::http;
use crate::server::shared::Cx;
use crate::server::slow::Hold;
use crate::server::websocket;

/// Held input goes back through the read buffer in stretches: moving what is left of it costs
/// less than what is done with it.
const HELD_STRETCH_BYTES: usize = 16 * 1024;

impl Conn {
    /// Requests that lie whole in the read buffer, and what is left of them.
    pub(in crate::server) fn receive_http(&mut self, n: usize, shared: &mut [u8], cx: &mut Cx<'_>) {
        let Stage::Http(http) = &mut self.stage else { return };
        let (used, then) = http.receive(self.slow.as_deref(), cx, &shared[..n]);
        self.part = cx.part;
        match then {
            http::Then::More => self.keep(&shared[used..n], Hold::Incomplete, cx),
            http::Then::Hold => self.keep(&shared[used..n], Hold::Held, cx),
            http::Then::Wait => self.keep(&shared[used..n], Hold::Waiting, cx),
            http::Then::Over => self.linger(cx),
            http::Then::Open(socket) => {
                self.open(socket, cx);
                self.receive_frames((used, n), shared, cx);
            }
        }
    }

    /// The same for requests that came in parts, which lie in memory of their own.
    pub(in crate::server) fn receive_kept_http(&mut self, shared: &mut [u8], cx: &mut Cx<'_>) {
        let (Stage::Http(http), Some(slow)) = (&mut self.stage, &mut self.slow) else { return };
        let Some(input) = slow.input.take() else { return };
        slow.hold = Hold::Incomplete;
        let (used, then) = http.receive(Some(slow), cx, input.bytes());
        self.part = cx.part;
        match then {
            http::Then::More => self.put_back(input, used, Hold::Incomplete, cx),
            http::Then::Hold => self.put_back(input, used, Hold::Held, cx),
            http::Then::Wait => self.put_back(input, used, Hold::Waiting, cx),
            http::Then::Over => self.linger(cx),
            http::Then::Open(socket) => {
                self.open(socket, cx);
                // Frames that came with the request: back to where frames are read.
                self.put_back(input, used, Hold::Incomplete, cx);
                self.receive_held(shared, cx);
            }
        }
    }

    /// Frames in `shared[from..to]`, and what is left of them.
    pub(in crate::server) fn receive_frames(
        &mut self,
        (from, to): (usize, usize),
        shared: &mut [u8],
        cx: &mut Cx<'_>,
    ) {
        let Stage::WebSocket(socket) = &mut self.stage else { return };
        match socket.receive(&mut self.slow, cx, shared, (from, to)) {
            (used, websocket::Then::More) if used == to => {}
            (used, websocket::Then::More) => self.keep(&shared[used..to], Hold::Incomplete, cx),
            (used, websocket::Then::Hold) => self.keep(&shared[used..to], Hold::Held, cx),
            (_, websocket::Then::Over(end)) => self.close_websocket(end, cx),
        }
    }

    /// A stretch of the frames that were held back.
    pub(in crate::server) fn receive_held(&mut self, shared: &mut [u8], cx: &mut Cx<'_>) {
        let (Stage::WebSocket(socket), Some(slow)) = (&mut self.stage, &mut self.slow) else {
            return;
        };
        let Some(input) = slow.input.take() else { return };
        slow.hold = Hold::Incomplete;
        let stretch = input.len().min(HELD_STRETCH_BYTES);
        shared[..stretch].copy_from_slice(&input.bytes()[..stretch]);
        match socket.receive(&mut self.slow, cx, shared, (0, stretch)) {
            // A stretch that is not the last can run short of its own end: the rest is next.
            (used, websocket::Then::More) if stretch < input.len() => {
                self.put_back(input, used, Hold::Held, cx);
            }
            (used, websocket::Then::More) => self.put_back(input, used, Hold::Incomplete, cx),
            (used, websocket::Then::Hold) => self.put_back(input, used, Hold::Held, cx),
            (_, websocket::Then::Over(end)) => self.close_websocket(end, cx),
        }
    }

    /// Keeps what was not used of the read buffer.
    fn keep(&mut self, rest: &[u8], hold: Hold, cx: &mut Cx<'_>) {
        let input = cx.shared.blocks.with(rest);
        self.put_back(input, 0, hold, cx);
    }

    /// Keeps what was not used; what is held asks for its turn. Nothing more is read before that,
    /// not even the end of input: or requests would be lost behind it.
    fn put_back(&mut self, mut input: Block, used: usize, hold: Hold, cx: &mut Cx<'_>) {
        if hold == Hold::Held {
            cx.act(Action::Resume(cx.id));
        }
        input.consume(used);
        // What was a whole read may be a few bytes of a frame by now, and those can wait long.
        if hold == Hold::Incomplete && input.cost() > 4 * input.len() + 256 {
            let rest = cx.shared.blocks.with(input.bytes());
            let whole = std::mem::replace(&mut input, rest);
            cx.shared.blocks.give_back(whole, cx.now.mono_ns);
        }
        if input.is_empty() {
            return cx.shared.blocks.give_back(input, cx.now.mono_ns);
        }
        let slow = self.slow.get_or_insert_default();
        slow.input = Some(input);
        slow.hold = hold;
    }
}

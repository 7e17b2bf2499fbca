//! Where a WebSocket's life is written down: two log lines, the metrics, how many are open.

use crate::server::conn::{Conn, Stage};
use crate::server::end::{BROKEN, End, MEMORY_SHORT};
use crate::server::ops::pressure::Account;
use crate::server::shared::Cx;
use crate::server::websocket::WebSocket;

impl Conn {
    /// One line for each WebSocket, when it begins.
    pub(in crate::server) fn log_open(&self, socket: &WebSocket, cx: &mut Cx<'_>) {
        let mount = &cx.shared.config.mounts[usize::from(socket.mount)].path;
        log::info!(
            target: "open", conn:% = cx.id, mount = mount.as_str(), peer:% = self.peer,
            forwarded = socket.forwarded().unwrap_or_default();
            "connection opened"
        );
        cx.shared.open.websockets += 1;
        cx.shared.metrics.opened(socket.mount);
    }

    /// One line for each WebSocket, when it ends.
    pub(in crate::server) fn log_end(&mut self, end: End, cx: &mut Cx<'_>) {
        let Stage::WebSocket(socket) = &self.stage else { return };
        let mount = &cx.shared.config.mounts[usize::from(socket.mount)].path;
        let tally = socket.tally;
        log::info!(
            target: "close", conn:% = cx.id, mount = mount.as_str(), peer:% = self.peer,
            forwarded = socket.forwarded().unwrap_or_default(),
            duration_ms = self.since.ms_ago(cx.now),
            code = end.code, initiator = end.initiator.name(),
            messages_in = tally.messages_in, messages_out = tally.messages_out,
            bytes_in = tally.bytes_in, bytes_out = tally.bytes_out;
            "connection closed"
        );
        let drops_messages = end == BROKEN || end == MEMORY_SHORT;
        if let Some(part) = cx.part {
            cx.shared.parts.call(part).left(cx.now, cx.id, end.code, drops_messages);
        }
        cx.shared.open.websockets -= 1;
        cx.shared.metrics.closed(socket.mount, end, self.since.ms_ago(cx.now));
        if let Stage::WebSocket(socket) = &mut self.stage {
            socket.drop_waiting(cx);
            if let Some(extras) = &mut socket.extras {
                cx.shared.account.update(&mut extras.counted, Account::default());
            }
        }
        if end == BROKEN {
            cx.shared.drain.forced += 1;
        } else {
            cx.shared.drain.clean += 1;
        }
    }
}

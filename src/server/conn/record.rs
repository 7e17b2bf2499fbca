//! Records when a WebSocket opens and ends: in the log, the metrics and the counts.

use crate::engine::{Id, Now};
use crate::server::conn::{Conn, Stage};
use crate::server::end::{BROKEN, End, MEMORY_SHORT};
use crate::server::ops::pressure::Account;
use crate::server::shared::Shared;
use crate::server::websocket::WebSocket;

impl Conn {
    pub(crate) fn log_open(&self, id: Id, socket: &WebSocket, shared: &mut Shared) {
        let mount = &shared.config.mounts[usize::from(socket.mount)].path;
        log::info!(
            target: "open", conn:% = id, mount = mount.as_str(), peer:% = self.peer,
            forwarded = socket.forwarded().unwrap_or_default();
            "connection opened"
        );
        shared.open.websockets += 1;
        shared.open.probes += usize::from(socket.is_probe());
        shared.metrics.opened(socket.mount);
    }

    pub(crate) fn log_end(&mut self, end: End, (now, id): (Now, Id), shared: &mut Shared) {
        let Stage::WebSocket(socket) = &self.stage else { return };
        let mount = &shared.config.mounts[usize::from(socket.mount)].path;
        let tally = socket.tally;
        log::info!(
            target: "close", conn:% = id, mount = mount.as_str(), peer:% = self.peer,
            forwarded = socket.forwarded().unwrap_or_default(),
            duration_ms = self.since.ms_ago(now),
            code = end.code, initiator = end.initiator.name(),
            messages_in = tally.messages_in, messages_out = tally.messages_out,
            bytes_in = tally.bytes_in, bytes_out = tally.bytes_out;
            "connection closed"
        );
        let drops_messages = end == BROKEN || end == MEMORY_SHORT;
        if let Some(part) = self.part {
            shared.parts.call(part).left(now, id, end.code, drops_messages);
        }
        shared.open.websockets -= 1;
        shared.open.probes -= usize::from(socket.is_probe());
        shared.metrics.closed(socket.mount, end, self.since.ms_ago(now));
        if let Stage::WebSocket(socket) = &mut self.stage {
            socket.drop_waiting(&mut shared.worker);
            if let Some(extras) = &mut socket.extras {
                shared.account.update(&mut extras.counted, Account::default());
            }
        }
        if end == BROKEN {
            shared.drain.forced += 1;
        } else {
            shared.drain.clean += 1;
        }
    }
}

//! [`Connect`] as an [`Engine`]. The stream with key 0 is the terminal; the others are connections
//! to the targets, one after the other, and only the last one counts.

use super::{Connect, HIGH_WATER_BYTES, Input, Stage, TERMINAL};
use crate::engine::{Action, Engine, HangUp, Id, Now, Out, Screen, Signal};
use crate::load::ConnectError;
use crate::outbox::Blocks;

impl Engine for Connect {
    fn measures(&self) -> bool {
        true
    }

    fn sized(&mut self, _: Id, size: Screen) {
        self.screen = size;
    }

    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Out) {
        if id == TERMINAL {
            // The driver tells the terminal's size first.
            self.actions.push_back(Action::Write(TERMINAL));
        }
        if id != self.server() || !matches!(self.stage, Stage::Connecting { .. }) {
            return;
        }
        if let Err(how) = how {
            self.actions.push_back(Action::Close(id));
            return self.try_next(how.into(), now);
        }
        let nonce =
            u128::from(self.rng.below(u64::MAX)) << 64 | u128::from(self.rng.below(u64::MAX));
        match self.plan.ask.write(nonce.to_ne_bytes(), &mut out.bytes) {
            Ok(pending) => {
                let pending = Box::new(pending);
                self.stage = Stage::Upgrading { since_ns: now.mono_ns, pending };
            }
            Err(_) => self.fail("the request cannot be sent as it is"),
        }
    }

    fn room<'a>(&'a mut self, id: Id, shared: &'a mut [u8]) -> &'a mut [u8] {
        let paused = match (id == TERMINAL, &self.stage) {
            (true, Stage::Open | Stage::Closing { .. }) => self.to_server.len() > HIGH_WATER_BYTES,
            (true, _) => true,
            (false, Stage::Ended { .. }) => false,
            (false, _) => self.to_terminal.len() > HIGH_WATER_BYTES,
        };
        if paused { &mut [] } else { shared }
    }

    fn received(&mut self, now: Now, id: Id, n: usize, shared: &mut [u8], out: &mut Out) {
        if id == TERMINAL {
            self.take_input(&shared[..n]);
        } else {
            self.read(&shared[..n], now, out);
        }
    }

    fn ended(&mut self, now: Now, id: Id, how: HangUp, _: &mut Out) {
        if id == TERMINAL {
            return self.input_ended(how, now);
        }
        match &self.stage {
            Stage::Connecting { .. } | Stage::Upgrading { .. } => {
                self.fail(&ConnectError::CutOff.to_string());
            }
            Stage::Open | Stage::Closing { .. } => self.closed_with(1006, ""),
            Stage::Ended { .. } => {}
        }
    }

    fn keep(&mut self, _: Now, id: Id, shared: &[u8], out: &mut Out, taken: usize) {
        let outbox = if id == TERMINAL { &mut self.to_terminal } else { &mut self.to_server };
        outbox.keep(out, shared, taken, &mut Blocks::default(), 0);
    }

    fn unsent(&self, id: Id) -> &[u8] {
        let outbox = if id == TERMINAL { &self.to_terminal } else { &self.to_server };
        outbox.unsent()
    }

    fn sent(&mut self, _: Now, id: Id, n: usize) {
        let server = self.server();
        let (outbox, other) = match id {
            TERMINAL => (&mut self.to_terminal, server),
            _ => (&mut self.to_server, TERMINAL),
        };
        outbox.sent(n, &mut Blocks::default(), 0);
        if outbox.len() <= HIGH_WATER_BYTES {
            self.actions.push_back(Action::Resume(other));
        }
    }

    fn render(&mut self, now: Now, id: Id, out: &mut Out) {
        if id == TERMINAL {
            out.bytes.append(&mut self.output);
        } else {
            self.send_due(now, out);
        }
    }

    fn closed(&mut self, now: Now, id: Id) {
        match (id, &self.stage) {
            (TERMINAL, Stage::Ended { code }) => self.actions.push_back(Action::Exit(*code)),
            (TERMINAL, _) => {
                self.input = Input::Gone;
                self.actions.push_back(Action::Write(self.server()));
                if !matches!(self.stage, Stage::Open | Stage::Closing { .. }) {
                    self.end(1);
                }
            }
            // The driver calls `ended` before `closed`.
            (_, Stage::Open | Stage::Closing { .. }) => {
                debug_assert!(id != self.server(), "`closed` without `ended` at {now:?}");
            }
            _ => {}
        }
    }

    fn fire(&mut self, now: Now) {
        if self.timeout_ns().is_some_and(|due_ns| due_ns <= now.mono_ns) {
            self.time_out(now);
        }
        self.actions.push_back(Action::Write(self.server()));
    }

    fn signal(&mut self, now: Now, signal: Signal) {
        match (signal, &self.stage) {
            (Signal::Stop, Stage::Open) => {
                self.input = Input::End { at_ns: now.mono_ns };
                self.plan.wait_ms = Some(0);
                self.actions.push_back(Action::Write(self.server()));
            }
            (Signal::Stop, Stage::Ended { code }) => self.actions.push_back(Action::Exit(*code)),
            (Signal::Stop, Stage::Closing { .. }) => self.closed_with(1006, "stopped"),
            (Signal::Stop, Stage::Connecting { .. } | Stage::Upgrading { .. }) => {
                self.fail("stopped");
            }
            (Signal::Report | Signal::Reload, _) => {}
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        let open = matches!(self.stage, Stage::Open);
        let open = [self.close_at_ns(), self.pings.next_ns].into_iter().flatten().filter(|_| open);
        open.chain(self.timeout_ns()).min()
    }

    fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }
}

//! Requests of a backend to the gateway, the table and the credential provider, and their results.

use super::pending::Task;
use super::sessions::KEEP_MS;
use super::token::{Remedy, Which};
use super::{Ask, Backend, Message, NoResponse, Step, Store};
use crate::aws::call::{Authorization, ServiceRequest};
use crate::aws::callbacks;
use crate::aws::credentials::{self, Need, ProviderRequest};
use crate::aws::dynamodb::{self, Fault, Operation};
use crate::aws::endpoint::Endpoint;
use crate::aws::sigv4::Scope;
use crate::calls::pool::{Call, Class};
use crate::engine::Now;
use crate::outbox::Block;
use crate::proto::http_client::{Asked, Limits};
use crate::time;

const CALLBACK_MS: u64 = 10_000;
/// Time after which a callback is not repeated; the requester waits 20 s.
const CALLBACKS_MS: u64 = 18_000;
const TABLE_MS: u64 = 5_000;
/// Size limits of all responses.
const LIMITS: Limits = Limits { head_bytes: 16 * 1024, body_bytes: 64 * 1024 };

impl Backend {
    /// Requests that do not belong to a message: for credentials, and about the table.
    pub(super) fn poll_needs(&mut self, now: Now) {
        while let Some(need) = self.keyring.as_mut().and_then(|keyring| keyring.poll(now)) {
            match need {
                Need::Read => self.steps.push_back(Step::Read),
                Need::Ask(request) => self.ask_for_credentials(now, &request),
            }
        }
        let locked = self.keyring.as_ref().is_some_and(|keys| keys.credentials(now).is_none());
        let Store::Table(table) = &mut self.store else { return };
        if locked {
            return;
        }
        let Some(operation) = table.poll() else { return };
        let name = &table.config.name;
        let body = match operation {
            Operation::CreateTable => dynamodb::create_table(name),
            Operation::UpdateTimeToLive => dynamodb::update_time_to_live(name),
            Operation::DescribeTable | Operation::UpdateItem | Operation::DeleteItem => {
                dynamodb::describe_table(name)
            }
        };
        let deadline_ns = now.mono_ns + time::ms(TABLE_MS);
        self.ask_table(now, Ask::Table(operation), operation, &body, deadline_ns);
    }

    fn ask_for_credentials(&mut self, now: Now, request: &ProviderRequest) {
        let ProviderRequest { endpoint, method, target, fields, body } = request;
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.reveal())).collect();
        let body = body.reveal().as_bytes();
        let request = ServiceRequest { endpoint, method, target, fields: &fields, body };
        let deadline_ns = now.mono_ns + time::ms(credentials::TIMEOUT_MS);
        let bytes = request.bytes(Authorization::None).ok();
        self.call(Ask::Credentials, endpoint, bytes, deadline_ns);
    }

    pub(super) fn answer_client(&mut self, now: Now, number: u64, message: &Message) {
        let Message { connection, text } = message;
        if let Some(token) = &self.token {
            self.pending.keep_text(number, text, token.version());
        }
        let deadline_ns = now.mono_ns + time::ms(CALLBACK_MS);
        if !self.send_answer(now, number, (connection, text), Which::Current, deadline_ns) {
            log::warn!(target: "callback", "no token or credentials for --gateway yet");
            self.callback_done(now, number, None);
        }
    }

    /// Sends an answer; false without token or credentials.
    fn send_answer(
        &mut self,
        now: Now,
        number: u64,
        (connection, text): (&str, &str),
        which: Which,
        deadline_ns: u64,
    ) -> bool {
        let Some(from) = self.authorization(now, which) else { return false };
        let bytes = self.gateway.answer(connection, text, from).ok();
        let endpoint = self.gateway.endpoint.clone();
        self.call(Ask::Callback(number), &endpoint, bytes, deadline_ns);
        true
    }

    pub(super) fn callback_result(
        &mut self,
        now: Now,
        number: u64,
        how: Result<(u16, &[u8]), NoResponse>,
    ) {
        match how {
            Ok((200..300, _)) => {}
            Ok((410, body)) if callbacks::is_gone(body) => {
                log::info!(target: "callback", status = 410; "the connection is gone");
                if let Some(message) = self.pending.find(number) {
                    message.gone = true;
                }
            }
            Ok((410, _)) => {
                log::warn!(target: "callback", status = 410; "the gateway has no such connection");
            }
            Ok((status, _)) => {
                if matches!(status, 401 | 403) && self.is_sent_again(now, number) {
                    self.count_callback(Some(status));
                    return;
                }
                log::warn!(target: "callback", status; "the gateway rejected the callback");
                if matches!(status, 401 | 403) {
                    self.rejected(now);
                }
            }
            Err(silence) => {
                log::warn!(target: "callback", why:% = silence; "cannot reach the gateway");
            }
        }
        self.callback_done(now, number, how.ok().map(|(status, _)| status));
    }

    /// The gateway rejected the token of a message; returns whether it is sent once more, perhaps
    /// after the token's file was read.
    fn is_sent_again(&mut self, now: Now, number: u64) -> bool {
        let again = self.pending.find(number).and_then(|message| message.again.as_ref());
        let (Some(again), Some(token)) = (again, &mut self.token) else { return false };
        match token.rejected(now, again.token) {
            Remedy::Send(which) => self.send_again(now, number, which),
            remedy @ (Remedy::Read | Remedy::Wait) => {
                if remedy == Remedy::Read {
                    self.steps.push_back(Step::Read);
                }
                self.rejected.push(number);
                true
            }
            Remedy::None => false,
        }
    }

    /// The token's file was read: sends the answers for which that was awaited.
    pub(super) fn send_rejected_again(&mut self, now: Now) {
        for number in std::mem::take(&mut self.rejected) {
            let again = self.pending.find(number).and_then(|message| message.again.as_ref());
            let remedy = match (again, &self.token) {
                (Some(again), Some(token)) => token.fallback(again.token),
                (_, _) => Remedy::None,
            };
            let sent = match remedy {
                Remedy::Send(which) => self.send_again(now, number, which),
                Remedy::Read | Remedy::Wait | Remedy::None => false,
            };
            if !sent {
                log::warn!(target: "callback", "the gateway rejected the token");
                self.finish(now, number, Task::Callback);
            }
        }
    }

    fn send_again(&mut self, now: Now, number: u64, which: Which) -> bool {
        let Some(text) = self.pending.take_text(number) else { return false };
        let Some(message) = self.pending.find(number) else { return false };
        let connection = message.connection.clone();
        let until_ns = self.pending.began_ns(number).unwrap_or(0) + time::ms(CALLBACKS_MS);
        let deadline_ns = until_ns.max(now.mono_ns + time::ms(1_000));
        self.send_answer(now, number, (&connection, &text), which, deadline_ns)
    }

    fn callback_done(&mut self, now: Now, number: u64, status: Option<u16>) {
        self.count_callback(status);
        self.finish(now, number, Task::Callback);
    }

    fn count_callback(&mut self, status: Option<u16>) {
        *self.counts.callbacks.entry(status).or_default() += 1;
    }

    pub(super) fn count(&mut self, now: Now, number: u64) {
        let Some(message) = self.pending.find(number) else { return };
        let name = &*message.connection;
        let table = match &mut self.store {
            Store::Memory(memory) => {
                let messages = memory.count(now, name);
                self.counts.created += u64::from(messages == 1);
                return self.finish(now, number, Task::Count);
            }
            Store::Table(table) => table,
        };
        if table.is_down() {
            return self.give_up_counting(now, number, "down");
        }
        let keep_ms = KEEP_MS.cast_signed();
        let body = dynamodb::update_item(&table.config.name, name, now.wall_ms, keep_ms);
        let deadline_ns = self.pending.deadline_ns(number).unwrap_or(now.mono_ns);
        let operation = Operation::UpdateItem;
        if !self.ask_table(now, Ask::Count(number), operation, &body, deadline_ns) {
            self.not_counted(now, number, "credentials", "no credentials");
        }
    }

    pub(super) fn count_result(
        &mut self,
        now: Now,
        number: u64,
        how: Result<(u16, &[u8]), NoResponse>,
    ) {
        match how.map(|(status, body)| dynamodb::updated(status, body)) {
            Ok(Ok(messages)) => {
                self.counts.created += u64::from(messages == 1);
                if let Store::Table(table) = &mut self.store {
                    let event = table.counted();
                    self.log_event(event);
                }
                self.finish(now, number, Task::Count);
            }
            Ok(Err(fault)) => {
                if matches!(fault, Fault::Credentials(_)) {
                    self.rejected(now);
                }
                // Retry only if the message was certainly not counted, or it could count twice.
                let again = matches!(fault, Fault::Throttled(_));
                if !again || !self.pending.schedule_retry(now, number) {
                    self.not_counted(now, number, fault.name(), &fault.to_string());
                }
            }
            Err(silence) => {
                if !silence.was_not_sent() || !self.pending.schedule_retry(now, number) {
                    self.not_counted(now, number, "unanswered", &silence.to_string());
                }
            }
        }
    }

    fn not_counted(&mut self, now: Now, number: u64, name: &'static str, why: &str) {
        log::warn!(target: "sessions", why; "a message was not counted");
        if let Store::Table(table) = &mut self.store {
            let event = table.not_counted(now, why, name);
            self.log_event(event);
        }
        self.give_up_counting(now, number, name);
    }

    fn give_up_counting(&mut self, now: Now, number: u64, name: &'static str) {
        *self.counts.errors.entry(name).or_default() += 1;
        self.finish(now, number, Task::Count);
    }

    /// Deletes the session of a connection that ended.
    pub(super) fn delete_session(&mut self, now: Now, connection: &str) {
        let table = match &mut self.store {
            Store::Memory(memory) => {
                memory.remove(connection);
                self.counts.deleted += 1;
                return;
            }
            Store::Table(table) => table,
        };
        let body = dynamodb::delete_item(&table.config.name, connection);
        let deadline_ns = now.mono_ns + time::ms(TABLE_MS);
        let down = table.is_down();
        if down || !self.ask_table(now, Ask::Forget, Operation::DeleteItem, &body, deadline_ns) {
            *self.counts.errors.entry("delete").or_default() += 1;
        }
    }

    pub(super) fn session_deleted(&mut self, how: Result<(u16, &[u8]), NoResponse>) {
        let why = match how.map(|(status, body)| dynamodb::done(status, body)) {
            Ok(Ok(())) => {
                self.counts.deleted += 1;
                return;
            }
            Ok(Err(fault)) => fault.to_string(),
            Err(silence) => silence.to_string(),
        };
        // No retry: the session expires anyway.
        log::warn!(target: "sessions", why; "a session was not deleted");
        *self.counts.errors.entry("delete").or_default() += 1;
    }

    fn rejected(&mut self, now: Now) {
        if let Some(keyring) = &mut self.keyring {
            keyring.rejected(now);
        }
    }

    /// Sends a signed request to the table; false if there are no credentials.
    fn ask_table(
        &mut self,
        now: Now,
        ask: Ask,
        operation: Operation,
        body: &[u8],
        deadline_ns: u64,
    ) -> bool {
        let Store::Table(table) = &self.store else { return false };
        let endpoint = table.config.endpoint.clone();
        let scope = Scope { region: &table.config.region, service: "dynamodb" };
        let Some(from) = self.signed(now, scope) else { return false };
        let fields =
            [("Content-Type", "application/x-amz-json-1.0"), ("X-Amz-Target", operation.target())];
        let target = format!("{}/", endpoint.path);
        let request = ServiceRequest {
            endpoint: &endpoint,
            method: "POST",
            target: &target,
            fields: &fields,
            body,
        };
        let bytes = request.bytes(from).ok();
        self.call(ask, &endpoint, bytes, deadline_ns);
        true
    }

    fn call(&mut self, ask: Ask, endpoint: &Endpoint, bytes: Option<Vec<u8>>, deadline_ns: u64) {
        // Names, tokens and credentials were validated, so serializing cannot fail. If it did, an
        // empty request would be sent, which times out.
        debug_assert!(bytes.is_some(), "{ask:?} cannot be sent");
        let target = endpoint.target.clone();
        let call = Call {
            bytes: Block::of(&bytes.unwrap_or_default()),
            asked: Asked::Ordinary,
            limits: LIMITS,
            class: Class::Bulk,
            deadline_ns,
            answer_ms: None,
            held_ns: 0,
        };
        self.steps.push_back(Step::Call(ask, target, Box::new(call)));
    }
}

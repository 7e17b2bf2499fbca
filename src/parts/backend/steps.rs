//! What a backend asks of others, and what it makes of their answers.

use super::hand::Half;
use super::sessions::KEEP_MS;
use super::{Ask, Backend, Message, Silence, Step, Store, TOKEN_MIN_MS};
use crate::aws::call::{Authorization, ServiceRequest};
use crate::aws::credentials::{self, Need, ProviderRequest};
use crate::aws::dynamodb::{self, Fault, Operation};
use crate::aws::endpoint::Endpoint;
use crate::aws::sigv4::Scope;
use crate::calls::pool::Call;
use crate::engine::Now;
use crate::outbox::Block;
use crate::proto::http_client::{Asked, Limits};
use crate::time;

/// What a gateway gets to take an answer.
const CALLBACK_MS: u64 = 10_000;
/// What a table gets to say something about itself.
const TABLE_MS: u64 = 5_000;
/// Nobody who is asked here says more than this.
const LIMITS: Limits = Limits { head_bytes: 16 * 1024, body_bytes: 64 * 1024 };

impl Backend {
    /// What is wanted beside messages: credentials, and to know about the table.
    pub(super) fn want(&mut self, now: Now) {
        while let Some(need) = self.keyring.as_mut().and_then(|keyring| keyring.poll(now)) {
            match need {
                Need::Read => self.steps.push_back(Step::Read),
                Need::Ask(question) => self.ask_for_credentials(now, &question),
            }
        }
        let locked = self.keyring.as_ref().is_some_and(|keys| keys.credentials(now).is_none());
        let Store::Table(table) = &mut self.store else { return };
        if locked {
            return;
        }
        let Some(operation) = table.poll() else { return };
        let name = &table.wanted.name;
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

    fn ask_for_credentials(&mut self, now: Now, question: &ProviderRequest) {
        let ProviderRequest { endpoint, method, target, fields, body } = question;
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.reveal())).collect();
        let body = body.reveal().as_bytes();
        let asking = ServiceRequest { endpoint, method, target, fields: &fields, body };
        let deadline_ns = now.mono_ns + time::ms(credentials::TIMEOUT_MS);
        let bytes = asking.bytes(Authorization::None).ok();
        self.call(Ask::Credentials, endpoint, bytes, deadline_ns);
    }

    /// Gives the client its answer.
    pub(super) fn answer_client(&mut self, now: Now, hand: u64, message: &Message) {
        let Some(from) = self.known_as(now) else {
            log::warn!(target: "callback", "no token or credentials for --gateway yet");
            return self.answered_client(now, hand, None);
        };
        let Message { connection, text } = message;
        let bytes = self.gateway.answer(connection, text, from).ok();
        let endpoint = self.gateway.endpoint.clone();
        let deadline_ns = now.mono_ns + time::ms(CALLBACK_MS);
        self.call(Ask::Callback(hand), &endpoint, bytes, deadline_ns);
    }

    pub(super) fn called_back(&mut self, now: Now, hand: u64, how: Result<u16, Silence>) {
        match how {
            Ok(200..300) => {}
            Ok(410) => {
                log::info!(target: "callback", status = 410; "the connection is gone");
                if let Some(hand) = self.hands.find(hand) {
                    hand.gone = true;
                }
            }
            Ok(status) => {
                log::warn!(target: "callback", status; "the gateway did not take the answer");
                if matches!(status, 401 | 403) {
                    self.refresh_token(now, TOKEN_MIN_MS);
                    self.rejected(now);
                }
            }
            Err(silence) => {
                log::warn!(target: "callback", why:% = silence; "cannot reach the gateway");
            }
        }
        self.answered_client(now, hand, how.ok());
    }

    fn answered_client(&mut self, now: Now, hand: u64, status: Option<u16>) {
        *self.figures.callbacks.entry(status).or_default() += 1;
        self.finish(now, hand, Half::Callback);
    }

    /// Counts a message in its session, or tries to.
    pub(super) fn count(&mut self, now: Now, number: u64) {
        let Some(hand) = self.hands.find(number) else { return };
        let name = &*hand.connection;
        let table = match &mut self.store {
            Store::Memory(memory) => {
                let messages = memory.count(now, name);
                self.figures.created += u64::from(messages == 1);
                return self.finish(now, number, Half::Count);
            }
            Store::Table(table) => table,
        };
        if table.is_down() {
            return self.uncounted(now, number, "down");
        }
        let keep_ms = KEEP_MS.cast_signed();
        let body = dynamodb::update_item(&table.wanted.name, name, now.wall_ms, keep_ms);
        let deadline_ns = self.hands.deadline_ns(number).unwrap_or(now.mono_ns);
        let operation = Operation::UpdateItem;
        if !self.ask_table(now, Ask::Count(number), operation, &body, deadline_ns) {
            self.not_counted(now, number, "credentials", "there are no credentials");
        }
    }

    pub(super) fn counted(&mut self, now: Now, hand: u64, how: Result<(u16, &[u8]), Silence>) {
        match how.map(|(status, body)| dynamodb::updated(status, body)) {
            Ok(Ok(messages)) => {
                self.figures.created += u64::from(messages == 1);
                if let Store::Table(table) = &mut self.store {
                    let event = table.counted();
                    self.tell(event);
                }
                self.finish(now, hand, Half::Count);
            }
            Ok(Err(fault)) => {
                if matches!(fault, Fault::Credentials(_)) {
                    self.rejected(now);
                }
                // Only what was certainly not done is asked again, or it would count twice.
                let again = matches!(fault, Fault::Throttled(_));
                if !again || !self.hands.try_again(now, hand) {
                    self.not_counted(now, hand, fault.name(), &fault.to_string());
                }
            }
            Err(silence) => {
                if !silence.is_unheard() || !self.hands.try_again(now, hand) {
                    self.not_counted(now, hand, "unanswered", &silence.to_string());
                }
            }
        }
    }

    fn not_counted(&mut self, now: Now, hand: u64, name: &'static str, why: &str) {
        log::warn!(target: "sessions", why; "a message was not counted");
        if let Store::Table(table) = &mut self.store {
            let event = table.not_counted(now, why, name);
            self.tell(event);
        }
        self.uncounted(now, hand, name);
    }

    fn uncounted(&mut self, now: Now, hand: u64, name: &'static str) {
        *self.figures.errors.entry(name).or_default() += 1;
        self.finish(now, hand, Half::Count);
    }

    /// The gateway does not know the connection any more.
    pub(super) fn forget(&mut self, now: Now, connection: &str) {
        let table = match &mut self.store {
            Store::Memory(memory) => {
                memory.remove(connection);
                self.figures.deleted += 1;
                return;
            }
            Store::Table(table) => table,
        };
        let body = dynamodb::delete_item(&table.wanted.name, connection);
        let deadline_ns = now.mono_ns + time::ms(TABLE_MS);
        let down = table.is_down();
        if down || !self.ask_table(now, Ask::Forget, Operation::DeleteItem, &body, deadline_ns) {
            *self.figures.errors.entry("delete").or_default() += 1;
        }
    }

    pub(super) fn forgotten(&mut self, how: Result<(u16, &[u8]), Silence>) {
        let why = match how.map(|(status, body)| dynamodb::done(status, body)) {
            Ok(Ok(())) => {
                self.figures.deleted += 1;
                return;
            }
            Ok(Err(fault)) => fault.to_string(),
            Err(silence) => silence.to_string(),
        };
        // It expires by itself.
        log::warn!(target: "sessions", why; "a session was not deleted");
        *self.figures.errors.entry("delete").or_default() += 1;
    }

    fn rejected(&mut self, now: Now) {
        if let Some(keyring) = &mut self.keyring {
            keyring.rejected(now);
        }
    }

    /// False: there are no credentials to ask with.
    fn ask_table(
        &mut self,
        now: Now,
        ask: Ask,
        operation: Operation,
        body: &[u8],
        deadline_ns: u64,
    ) -> bool {
        let Store::Table(table) = &self.store else { return false };
        let endpoint = table.wanted.endpoint.clone();
        let scope = Scope { region: &table.wanted.region, service: "dynamodb" };
        let Some(from) = self.signed(now, scope) else { return false };
        let fields =
            [("Content-Type", "application/x-amz-json-1.0"), ("X-Amz-Target", operation.target())];
        let target = format!("{}/", endpoint.path);
        let asking = ServiceRequest {
            endpoint: &endpoint,
            method: "POST",
            target: &target,
            fields: &fields,
            body,
        };
        let bytes = asking.bytes(from).ok();
        self.call(ask, &endpoint, bytes, deadline_ns);
        true
    }

    fn call(&mut self, ask: Ask, endpoint: &Endpoint, bytes: Option<Vec<u8>>, deadline_ns: u64) {
        // What is asked was checked: names, tokens, credentials. A request that could not be
        // written would be one of no bytes, which its deadline ends.
        debug_assert!(bytes.is_some(), "{ask:?} cannot be sent");
        let call = Call {
            target: endpoint.target.clone(),
            bytes: Block::of(&bytes.unwrap_or_default()),
            asked: Asked::Ordinary,
            limits: LIMITS,
            deadline_ns,
        };
        self.steps.push_back(Step::Call(ask, Box::new(call)));
    }
}

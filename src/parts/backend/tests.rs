//! A backend with its gateway, table and credential provider played by the test.

use super::sessions::TableConfig;
use super::*;
use crate::aws::endpoint::Endpoint;
use crate::aws::secret::{Credentials, Secret};
use crate::engine::HangUp;
use crate::time;

/// 2026-11-21T03:00:01Z
const WALL_MS: i64 = 1_795_230_001_000;
const THERE: &str = r#"{"Table":{"TableStatus":"ACTIVE","KeySchema":
    [{"AttributeName":"connectionId","KeyType":"HASH"}]}}"#;
const FIRST: &str = r#"{"Attributes":{"messages":{"N":"1"}}}"#;
const REFUSED: NoResponse = NoResponse::Failed(Failure::NotConnected(HangUp::Refused));
const LATE: NoResponse = NoResponse::Failed(Failure::TimedOut);

fn fault(code: &str) -> String {
    format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}"}}"#)
}

struct Test {
    backend: Backend,
    now: Now,
    /// Calls without a response, with their bytes.
    asked: Vec<(Ask, String)>,
    /// Keys of the connections that got a response.
    answered: Vec<u32>,
    reads: usize,
    failed: Option<String>,
}

impl Test {
    fn new(sessions: SessionStorage, auth: Auth, provider: Option<Provider>) -> Self {
        let endpoint = Endpoint::parse("http://127.0.0.1:8081").unwrap();
        let (gateway, ca_files) = (CallbackApi { endpoint, auth }, CaFiles::default());
        let plan = Plan { gateway, sessions, provider, ca_files };
        let mut test = Self {
            backend: Backend::new(plan, 1),
            now: Now { mono_ns: 0, wall_ms: WALL_MS },
            asked: Vec::new(),
            answered: Vec::new(),
            reads: 0,
            failed: None,
        };
        test.run_steps();
        test
    }

    fn memory() -> Self {
        Self::new(SessionStorage::Memory, Auth::None, None)
    }

    /// With a table that has not been checked.
    fn table(create: bool) -> Self {
        let config = TableConfig {
            name: "sessions".to_owned(),
            endpoint: Endpoint::parse("http://127.0.0.1:8000").unwrap(),
            region: "eu-west-1".to_owned(),
            create,
        };
        let credentials = Credentials {
            access_key: "AKID".to_owned(),
            secret_key: Secret::new("hush"),
            session_token: None,
        };
        Self::new(SessionStorage::Table(config), Auth::None, Some(Provider::Static(credentials)))
    }

    /// With a table that is ready.
    fn with_table() -> Self {
        let mut test = Self::table(false);
        test.say(Ask::Table(Operation::DescribeTable), Ok((200, THERE)));
        test
    }

    fn run_steps(&mut self) {
        while let Some(step) = self.backend.poll(self.now) {
            match step {
                Step::Call(ask, _, call) => {
                    assert!(call.deadline_ns > self.now.mono_ns, "{ask:?} has already timed out");
                    self.asked.push((ask, String::from_utf8(call.bytes.bytes().to_vec()).unwrap()));
                }
                Step::Read => self.reads += 1,
                Step::Answer(requester) => self.answered.push(requester.key),
                Step::Fail(why) => self.failed = Some(why),
            }
        }
    }

    fn post(&mut self, requester: u32, connection: &str) {
        let id = Id { key: requester, generation: 0 };
        let taken = self.backend.posted(self.now, id, Some(connection), b"hi");
        assert_eq!(taken, Ok(Taken::Pending));
        self.run_steps();
    }

    /// Responds to the first call of this kind; returns its bytes.
    fn say(&mut self, ask: Ask, how: Result<(u16, &str), NoResponse>) -> String {
        let found = self.asked.iter().position(|(known, _)| *known == ask);
        let (ask, bytes) = self.asked.remove(found.unwrap_or_else(|| panic!("no {ask:?}")));
        let how = how.map(|(status, body)| (status, body.as_bytes()));
        self.backend.received(self.now, ask, how);
        self.run_steps();
        bytes
    }

    fn asks(&self) -> Vec<Ask> {
        self.asked.iter().map(|(ask, _)| *ask).collect()
    }

    fn pass(&mut self, ms: u64) {
        let end_ns = self.now.mono_ns + time::ms(ms);
        while let Some(due_ns) = self.backend.next_deadline().filter(|due_ns| *due_ns <= end_ns) {
            self.at(due_ns);
            self.backend.fire(self.now);
            self.run_steps();
        }
        self.at(end_ns);
    }

    fn at(&mut self, mono_ns: u64) {
        let passed_ms = ((mono_ns - self.now.mono_ns) / 1_000_000).cast_signed();
        self.now = Now { mono_ns, wall_ms: self.now.wall_ms + passed_ms };
    }

    fn errors(&self) -> Vec<(&str, u64)> {
        self.backend.counts.errors.iter().map(|(name, count)| (*name, *count)).collect()
    }
}

#[test]
fn a_message_is_complete_when_its_client_is_answered() {
    let mut test = Test::memory();
    test.post(1, "a=");
    assert_eq!((test.asks(), &test.answered[..]), (vec![Ask::Callback(0)], &[][..]));
    let bytes = test.say(Ask::Callback(0), Ok((200, "")));
    assert!(bytes.starts_with("POST /@connections/a%3D HTTP/1.1\r\nHost: 127.0.0.1:8081\r\n"));
    assert!(bytes.ends_with("\r\n\r\nGot message:hi"), "{bytes}");
    assert_eq!((&test.answered[..], test.backend.in_hand()), (&[1][..], 0));
    assert_eq!((test.backend.sessions(), test.backend.counts.created), (Some(1), 1));
    test.post(2, "a=");
    test.say(Ask::Callback(1), Err(LATE));
    assert_eq!((&test.answered[..], test.backend.counts.created), (&[1, 2][..], 1));
    assert_eq!(test.backend.counts.callbacks[&None], 1);
}

#[test]
fn sessions_of_gone_connections_are_deleted() {
    let mut test = Test::memory();
    test.post(1, "a");
    test.say(Ask::Callback(0), Ok((410, "")));
    assert_eq!((&test.answered[..], test.backend.sessions()), (&[1][..], Some(0)));
    assert_eq!(test.backend.memory(), 0);
    let mut test = Test::with_table();
    test.post(1, "a");
    test.say(Ask::Callback(0), Ok((410, "")));
    // The pending update could recreate the session, so the deletion waits for it.
    assert_eq!(test.asks(), [Ask::Count(0)]);
    test.say(Ask::Count(0), Ok((200, FIRST)));
    let bytes = test.say(Ask::Forget, Ok((200, "{}")));
    assert!(bytes.contains("X-Amz-Target: DynamoDB_20120810.DeleteItem\r\n"), "{bytes}");
    assert_eq!((&test.answered[..], test.backend.counts.deleted), (&[1][..], 1));
}

/// A gateway without the key of the replicas, or one that cannot reach the owner, does not know
/// whether the connection has ended.
#[test]
fn sessions_of_unknown_connections_are_kept() {
    let mut test = Test::memory();
    test.post(1, "a");
    test.say(Ask::Callback(0), Ok((410, r#"{"message":"Unknown connection"}"#)));
    assert_eq!((&test.answered[..], test.backend.sessions()), (&[1][..], Some(1)));
    assert_eq!(test.backend.counts.callbacks[&Some(410)], 1);
    test.post(2, "a");
    test.say(Ask::Callback(1), Ok((410, r#"{"message":"Gone"}"#)));
    assert_eq!((test.backend.sessions(), test.backend.counts.deleted), (Some(0), 1));
}

#[test]
fn an_ended_connection_loses_its_session() {
    let event = br#"{"requestContext":{"connectionId":"b","eventType":"DISCONNECT"}}"#;
    let mut test = Test::memory();
    for (number, connection) in ["a", "b", "c"].iter().enumerate() {
        test.post(0, connection);
        test.say(Ask::Callback(number as u64), Ok((200, "")));
    }
    test.backend.notified(test.now, (Some("c"), Some("CONNECT")), b"");
    assert_eq!(test.backend.sessions(), Some(3));
    test.backend.notified(test.now, (Some("a"), Some("DISCONNECT")), b"");
    test.backend.notified(test.now, (None, None), event);
    assert_eq!((test.backend.sessions(), test.backend.counts.deleted), (Some(1), 2));
    // In a table, a message in progress would create the item again.
    let mut test = Test::with_table();
    test.post(1, "a");
    test.backend.notified(test.now, (Some("a"), Some("DISCONNECT")), b"");
    test.say(Ask::Callback(0), Ok((200, "")));
    assert_eq!(test.asks(), [Ask::Count(0)]);
    test.say(Ask::Count(0), Ok((200, FIRST)));
    test.say(Ask::Forget, Ok((200, "{}")));
    test.backend.notified(test.now, (Some("a"), Some("DISCONNECT")), b"");
    test.run_steps();
    test.say(Ask::Forget, Ok((200, "{}")));
    assert_eq!((&test.answered[..], test.backend.counts.deleted), (&[1][..], 2));
}

/// The content of the token's file is read.
fn read_token(test: &mut Test, token: &str) {
    test.backend.fetched(test.now, "/token", token.as_bytes());
    test.backend.read(test.now);
    test.run_steps();
}

/// The token of the first callback for this message; the gateway's status is the argument.
fn token_sent(test: &mut Test, number: u64, status: u16) -> String {
    let bytes = test.say(Ask::Callback(number), Ok((status, "")));
    let (_, rest) = bytes.split_once("\r\nAuthorization: Bearer ").unwrap();
    assert!(bytes.ends_with("Got message:hi"), "{bytes}");
    rest.lines().next().unwrap().to_owned()
}

#[test]
fn the_gateway_token_is_sent_and_re_read() {
    let mut test = Test::new(SessionStorage::Memory, Auth::Token("/token".to_owned()), None);
    assert_eq!(test.reads, 1);
    test.post(1, "a");
    assert_eq!((test.asked.len(), &test.answered[..]), (0, &[1][..]));
    test.backend.fetched(test.now, "/other", b"two\n");
    read_token(&mut test, "one\n");
    test.post(2, "a");
    assert_eq!(token_sent(&mut test, 1, 200), "one");
    read_token(&mut test, "");
    read_token(&mut test, "three");
    test.post(3, "a");
    assert_eq!(token_sent(&mut test, 2, 200), "three");
    test.pass(60_000);
    test.post(4, "a");
    assert_eq!(test.reads, 2);
    assert!(!format!("{:?}", test.backend).contains("three"));
    assert_eq!(token_sent(&mut test, 3, 200), "three");
    assert_eq!((&test.answered[..], test.backend.memory()), (&[1, 2, 3, 4][..], 162));
}

#[test]
fn a_rejected_answer_is_sent_once_more() {
    let mut test = Test::new(SessionStorage::Memory, Auth::Token("/token".to_owned()), None);
    read_token(&mut test, "one");
    test.pass(1_000);
    test.post(1, "a");
    test.post(2, "a");
    // The gateway has read a new token. Both messages wait for one reading of the file.
    assert_eq!([token_sent(&mut test, 0, 403), token_sent(&mut test, 1, 401)], ["one", "one"]);
    assert_eq!((test.reads, test.asked.len(), test.answered.len()), (2, 0, 0));
    read_token(&mut test, "two");
    assert_eq!([token_sent(&mut test, 0, 200), token_sent(&mut test, 1, 403)], ["two", "two"]);
    assert_eq!((&test.answered[..], test.reads), (&[1, 2][..], 2));
    // The other way round: the gateway still has the old one, and the file was just read.
    test.post(3, "a");
    assert_eq!([token_sent(&mut test, 2, 403), token_sent(&mut test, 2, 200)], ["two", "one"]);
    // Later the file is read first, in vain.
    test.pass(1_000);
    test.post(4, "a");
    assert_eq!(token_sent(&mut test, 3, 403), "two");
    read_token(&mut test, "two");
    assert_eq!(token_sent(&mut test, 3, 200), "one");
    // After five minutes there is no other token.
    test.pass(300_000);
    read_token(&mut test, "two");
    test.post(5, "a");
    assert_eq!((token_sent(&mut test, 4, 403), test.reads), ("two".to_owned(), 4));
    read_token(&mut test, "two");
    assert_eq!(&test.answered[..], [1, 2, 3, 4, 5]);
    assert_eq!(test.backend.counts.callbacks[&Some(403)], 5);
    assert_eq!((test.backend.in_hand(), test.asked.len()), (0, 0));
}

#[test]
fn one_request_to_the_table_for_each_message() {
    let mut test = Test::with_table();
    test.post(1, "a");
    test.say(Ask::Callback(0), Ok((200, "")));
    assert!(test.answered.is_empty());
    let bytes = test.say(Ask::Count(0), Ok((200, FIRST)));
    assert!(bytes.contains("X-Amz-Target: DynamoDB_20120810.UpdateItem\r\n"), "{bytes}");
    assert!(bytes.contains("Credential=AKID/20261121/eu-west-1/dynamodb/aws4_request"));
    assert_eq!((&test.answered[..], test.asked.len()), (&[1][..], 0));
    assert_eq!((test.backend.counts.created, test.backend.sessions()), (1, None));
}

#[test]
fn only_throttled_requests_are_retried() {
    let mut test = Test::with_table();
    let throttled = fault("ProvisionedThroughputExceededException");
    test.post(1, "a");
    test.say(Ask::Callback(0), Ok((200, "")));
    for _ in 0..4 {
        test.say(Ask::Count(0), Ok((400, &throttled)));
        assert_eq!(test.asked.len(), 0);
        test.pass(500);
    }
    test.say(Ask::Count(0), Ok((200, FIRST)));
    assert_eq!((&test.answered[..], test.errors().len()), (&[1][..], 0));
    assert!(!test.backend.is_degraded());
    // The message may or may not have been counted.
    for (requester, how) in [(2, Ok((500, ""))), (3, Err(LATE))] {
        test.post(requester, "a");
        let number = u64::from(requester) - 1;
        test.say(Ask::Callback(number), Ok((200, "")));
        test.say(Ask::Count(number), how);
        assert_eq!(test.answered.last(), Some(&requester));
    }
    assert_eq!(test.errors(), [("server", 1), ("unanswered", 1)]);
    assert!(test.backend.is_degraded());
    // Throttled for too long.
    test.post(4, "a");
    test.say(Ask::Callback(3), Ok((200, "")));
    while test.asks().contains(&Ask::Count(3)) {
        test.say(Ask::Count(3), Ok((400, &throttled)));
        test.pass(500);
    }
    assert_eq!(test.errors()[1], ("throttled", 1));
    assert_eq!(test.answered, [1, 2, 3, 4]);
}

#[test]
fn messages_are_answered_while_the_table_is_unavailable() {
    let look = Ask::Table(Operation::DescribeTable);
    let mut test = Test::with_table();
    let mut failed = 0;
    for requester in 0..20 {
        test.post(requester, "a");
        test.say(Ask::Callback(u64::from(requester)), Ok((200, "")));
        while test.answered.len() == requester as usize {
            // Checks of the table in between.
            if test.asks().contains(&look) {
                test.say(look, Err(REFUSED));
            }
            if test.asks().contains(&Ask::Count(u64::from(requester))) {
                test.say(Ask::Count(u64::from(requester)), Err(REFUSED));
                failed += 1;
            } else {
                test.pass(100);
            }
        }
        assert_eq!(test.answered.len(), requester as usize + 1);
    }
    // After five failed messages the table is not asked for each one.
    assert_eq!(failed, 5 * 5);
    assert_eq!(test.errors(), [("down", 15), ("unanswered", 5)]);
    assert!(test.backend.is_degraded());
    // The table is checked periodically, without further messages.
    let mut looks = 0;
    for _ in 0..100 {
        test.pass(1_000);
        if test.asks() == [look] {
            test.say(look, Err(REFUSED));
            looks += 1;
        }
    }
    assert!((3..=12).contains(&looks), "{looks} checks in 100 s");
    test.pass(30_000);
    test.say(look, Ok((200, THERE)));
    assert!(!test.backend.is_degraded());
    test.post(99, "a");
    test.say(Ask::Count(20), Ok((200, FIRST)));
    test.say(Ask::Callback(20), Ok((200, "")));
    assert_eq!(test.answered.last(), Some(&99));
    test.pass(100_000);
    assert_eq!(test.asked.len(), 0);
}

#[test]
fn a_missing_table_is_reported_or_created() {
    let missing = fault("ResourceNotFoundException");
    let describe = Ask::Table(Operation::DescribeTable);
    let mut test = Test::table(false);
    test.say(describe, Ok((400, &missing)));
    let why = test.failed.unwrap();
    assert_eq!(
        why,
        "--sessions: table sessions does not exist in eu-west-1 at 127.0.0.1:8000: create it or \
        use --create-table"
    );
    let mut test = Test::table(true);
    test.say(describe, Ok((400, &missing)));
    // Another backend is creating it.
    test.say(Ask::Table(Operation::CreateTable), Ok((400, &fault("ResourceInUseException"))));
    test.pass(500);
    test.say(describe, Ok((200, &THERE.replace("ACTIVE", "CREATING"))));
    test.pass(500);
    test.say(describe, Ok((200, THERE)));
    let bytes =
        test.say(Ask::Table(Operation::UpdateTimeToLive), Ok((400, &fault("ValidationException"))));
    assert!(bytes.contains("expiresAt"));
    assert_eq!((test.failed, test.backend.next_deadline(), test.asked.len()), (None, None, 0));
    let mut test = Test::table(false);
    test.say(describe, Ok((200, &THERE.replace("connectionId", "id"))));
    assert!(test.failed.unwrap().contains("has a different primary key"));
    let mut test = Test::table(true);
    test.say(describe, Ok((400, &missing)));
    test.say(Ask::Table(Operation::CreateTable), Ok((400, &fault("AccessDeniedException"))));
    assert!(test.failed.unwrap().contains("cannot create table sessions"));
    // Credentials that may only write are sufficient.
    let mut test = Test::table(false);
    test.say(describe, Ok((400, &fault("AccessDeniedException"))));
    assert_eq!((test.failed, test.backend.is_degraded()), (None, false));
    // An unreachable table does not stop the service.
    let mut test = Test::table(false);
    test.say(describe, Err(REFUSED));
    assert_eq!((test.failed, test.backend.is_degraded()), (None, true));
}

#[test]
fn without_credentials_the_table_is_not_asked() {
    let mut test = Test::table(false);
    test.backend.keyring = Some(Keyring::new(
        Provider::Container {
            endpoint: Endpoint::parse("http://127.0.0.1:1").unwrap(),
            target: "/".to_owned(),
            token: None,
            token_file: None,
        },
        1,
    ));
    test.run_steps();
    test.asked.clear();
    test.post(1, "a");
    test.say(Ask::Callback(0), Ok((200, "")));
    assert_eq!((&test.answered[..], test.errors()), (&[1][..], vec![("credentials", 1)]));
    assert!(test.backend.is_degraded());
    let expires = time::rfc3339(WALL_MS + 3_600_000);
    let given = format!(
        r#"{{"AccessKeyId":"ASIA","SecretAccessKey":"s","Token":"t","Expiration":"{expires}"}}"#
    );
    test.backend.received(test.now, Ask::Credentials, Ok((200, given.as_bytes())));
    test.post(2, "a");
    let bytes = test.say(Ask::Count(1), Ok((200, FIRST)));
    assert!(bytes.contains("\r\nX-Amz-Security-Token: t\r\n"), "{bytes}");
    assert!(!test.backend.is_degraded());
}

#[test]
fn messages_in_progress_are_bounded() {
    let mut test = Test::memory();
    for requester in 0..MESSAGES_MAX as u32 {
        test.post(requester, "a");
    }
    let id = Id { key: 1, generation: 1 };
    assert_eq!(test.backend.posted(test.now, id, Some("a"), b"hi"), Ok(Taken::Full));
    assert!(test.backend.memory() < MESSAGES_MAX * 200);
    test.say(Ask::Callback(7), Ok((200, "")));
    assert_eq!(test.backend.posted(test.now, id, Some("a"), b"hi"), Ok(Taken::Pending));
    assert_eq!(test.backend.posted(test.now, id, None, b""), Ok(Taken::Nothing));
}

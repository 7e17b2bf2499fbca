//! Answers of AWS' services, and credentials from files and variables: cuts do not change the
//! outcome, a JSON parser agrees, memory does not grow, no line is injected into the next request,
//! and no secret is shown.

/// A build without the gateway has none of this.
#[cfg(not(feature = "gateway"))]
pub fn aws(_: &[u8]) {}

/// See the module's head.
#[cfg(feature = "gateway")]
pub fn aws(data: &[u8]) {
    use super::input;

    let (cuts, rest) = input::cuts(&data[..data.len().min(4 * 1024)]);
    let Some((kind, rest)) = rest.split_first() else { return };
    let rest = input::expanded(rest, 96 * 1024);
    match kind {
        b'p' => check::credentials(check::POD, &rest, &cuts),
        b'w' => check::credentials(check::WEB, &rest, &cuts),
        b'd' => check::table(&rest, &cuts),
        b'k' => check::keys(&rest),
        _ => check::environment(&rest),
    }
}

#[cfg(feature = "gateway")]
mod check {
    use serde_json::Value;

    use wspulse::aws::call::{Authorization, ServiceRequest};
    use wspulse::aws::credentials::{
        Config, CredentialsError, Keyring, Need, Provider, ProviderRequest,
    };
    use wspulse::aws::keys::Keys;
    use wspulse::aws::sigv4::Scope;
    use wspulse::aws::{Credentials, Secret, dynamodb};
    use wspulse::calls::pool::{Call, Class, Order, Pool, Reply, Rules};
    use wspulse::engine::{HangUp, Now, Target};
    use wspulse::outbox::Block;
    use wspulse::proto::http_client::{self, Limits};

    use super::super::input::Cuts;

    /// Separates the token file's content from the answer.
    const NEXT: &[u8] = b"\x02\x02";
    /// The limits of `wspulse backend`.
    const LIMITS: Limits = Limits { head_bytes: 16 * 1024, body_bytes: 64 * 1024 };
    const RULES: Rules = Rules {
        per_address: [1, 1],
        connections: 1,
        waiting: 1,
        connect_ms: 1,
        idle_ms: 1,
        hold_ms: 0,
    };
    /// 2026-11-21T03:19:04Z
    const NOW: Now = Now { mono_ns: 1_000_000_000, wall_ms: 1_795_231_144_000 };
    const TOKEN_FILE: &str = "/token";
    const PARTS: [&str; 4] = ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"];
    /// A shorter secret can occur in a name by chance.
    const SECRET_MIN: usize = 8;

    type Variables<'v> = &'v [(&'v str, &'v str)];

    pub(super) const POD: Variables<'_> = &[
        ("AWS_REGION", "eu-west-1"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", TOKEN_FILE),
    ];
    pub(super) const WEB: Variables<'_> = &[
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", TOKEN_FILE),
        ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1"),
    ];

    fn plan(variables: Variables<'_>) -> Option<Config> {
        let found = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Config::read(&|name| found(name).map(|(_, value)| (*value).to_owned())).ok()
    }

    /// A file with a token, and the answer to it.
    pub(super) fn credentials(variables: Variables<'_>, rest: &[u8], cuts: &Cuts) {
        let end = rest.windows(2).position(|two| two == NEXT);
        let (token, answer) = end.map_or((&b""[..], rest), |end| (&rest[..end], &rest[end + 2..]));
        let Some(Config { provider, .. }) = plan(variables) else { panic!("no plan") };
        let is_json = matches!(provider, Provider::Container { .. });
        let whole = came_of(&provider, token, parse(answer, &Cuts::none()).as_ref());
        for cuts in [cuts, &Cuts::everywhere()] {
            let cut = came_of(&provider, token, parse(answer, cuts).as_ref());
            assert!(cut == whole, "cut at {cuts:?}");
        }
        let reply = parse(answer, &Cuts::none());
        if let Some((200, body)) = reply.as_ref().map(|reply| (reply.status, &*reply.body))
            && is_json
            && let Ok(value) = serde_json::from_slice::<Value>(body)
        {
            let wanted = plain_json(&provider, &value, whole.1.as_ref());
            let body = String::from_utf8_lossy(body);
            let once = |name: &&str| body.matches(&format!("\"{name}\"")).count() == 1;
            // JSON parsers differ on duplicate names.
            let alone = PARTS.iter().all(once) && !body.contains("\\u");
            assert!(!wanted || !alone || whole.1.is_some(), "valid credentials are rejected");
        }
    }

    /// The request, and the outcome of the answer.
    type Outcome = (Result<(), CredentialsError>, Option<Credentials>, Option<u64>);

    fn came_of(provider: &Provider, token: &[u8], reply: Option<&Reply>) -> Outcome {
        let mut keys = Keyring::new(provider.clone(), 1);
        let mut now = NOW;
        assert!(matches!(keys.poll(now), Some(Need::Read)));
        keys.fetched(TOKEN_FILE, token);
        let mut shown = String::new();
        if let Err(trouble) = keys.read(now) {
            assert_eq!(trouble, CredentialsError::NoToken);
            now.mono_ns = keys.next_deadline().expect("it retries");
            assert!(matches!(keys.poll(now), Some(Need::Read)));
            keys.fetched(TOKEN_FILE, b"a-token");
            assert_eq!(keys.read(now), Ok(()));
        } else {
            let token = String::from_utf8_lossy(token).trim().to_owned();
            assert!(token.len() <= 16 * 1024, "a token of {} bytes", token.len());
            shown = token;
        }
        let Some(Need::Ask(question)) = keys.poll(now) else { panic!("no request") };
        ours_alone(&question, true);
        hidden(&format!("{keys:?} {question:?}"), &shown, &format!("{provider:?}"));
        let result = reply.map_or(Ok(()), |reply| keys.answered(now, reply.status, &reply.body));
        if reply.is_none() {
            keys.failed(now);
        }
        let due_ns = keys.next_deadline();
        assert!(due_ns.is_some_and(|due_ns| due_ns > now.mono_ns), "it never retries");
        let text = format!("{result:?}");
        assert!(text.len() < 200 && text.is_ascii(), "{text}");
        let given = keys.credentials(now).cloned();
        assert!(given.is_none() || result.is_ok());
        if let Some(given) = &given {
            usable(given, &keys, &question);
        }
        (result, given, due_ns)
    }

    /// Credentials sign, inject nothing into a request, and are not shown.
    fn usable(given: &Credentials, keys: &Keyring, question: &ProviderRequest) {
        let Credentials { access_key, secret_key, session_token } = given;
        let token = session_token.as_ref().map_or("", |token| token.reveal());
        for text in [access_key, secret_key.reveal(), token] {
            assert!(!text.is_empty() && text.len() <= 16 * 1024);
            assert!(text.bytes().all(|b| b.is_ascii_graphic() && b != b'&'));
        }
        let known = format!("{access_key} {question:?} {:?}", Keyring::new(provider_of(), 1));
        for secret in [secret_key.reveal(), token] {
            hidden(&format!("{keys:?} {given:?}"), secret, &known);
        }
        let ProviderRequest { endpoint, .. } = question;
        let request =
            ServiceRequest { endpoint, method: "POST", target: "/", fields: &[], body: b"{}" };
        let scope = Scope { region: "eu-west-1", service: "dynamodb" };
        let signed = request.bytes(Authorization::SigV4(given, scope, NOW.wall_ms));
        assert!(signed.is_ok_and(|bytes| lines(&bytes) <= 9), "they cannot sign");
    }

    fn provider_of() -> Provider {
        plan(POD).map(|plan| plan.provider).expect("a provider")
    }

    /// A JSON parser reads the same, and its output is accepted. Returns whether the value has
    /// valid credentials.
    fn plain_json(provider: &Provider, value: &Value, given: Option<&Credentials>) -> bool {
        let part = |name: &str| value[name].as_str();
        if let Some(Credentials { access_key, secret_key, session_token }) = given {
            assert_eq!(part("AccessKeyId"), Some(&**access_key));
            assert_eq!(part("SecretAccessKey"), Some(secret_key.reveal()));
            assert_eq!(part("Token"), session_token.as_ref().map(Secret::reveal));
        }
        let text = |name: &str| {
            part(name).is_some_and(|text| {
                let sound = text.bytes().all(|b| b.is_ascii_graphic() && b != b'&');
                !text.is_empty() && sound && text.len() <= 16 * 1024
            })
        };
        let all = PARTS[..3].iter().all(|name| text(name));
        let expires_ms = part("Expiration").and_then(wspulse::time::from_rfc3339);
        let wanted = all && expires_ms.is_some_and(|expires_ms| expires_ms > NOW.wall_ms + 60_000);
        let reply = Reply::new(200, value.to_string().as_bytes());
        let (_, again, _) = came_of(provider, b"token", Some(&reply));
        assert!(!wanted || again.is_some(), "valid credentials are rejected");
        wanted
    }

    /// An answer of a table of sessions.
    pub(super) fn table(rest: &[u8], cuts: &Cuts) {
        let whole = parse(rest, &Cuts::none());
        for cuts in [cuts, &Cuts::everywhere()] {
            assert_eq!(parse(rest, cuts), whole, "cut at {cuts:?}");
        }
        let Some(Reply { status, body, .. }) = whole else { return };
        let (updated, done) = (dynamodb::updated(status, &body), dynamodb::done(status, &body));
        let described = dynamodb::described(status, &body);
        for fault in [updated.as_ref().err(), done.as_ref().err(), described.as_ref().err()] {
            let Some(fault) = fault else { continue };
            let text = format!("{fault} {fault:?} {}", fault.name());
            assert!(text.len() < 400 && text.is_ascii(), "{text}");
        }
        assert_eq!(done.is_ok(), status == 200);
        let value = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        if let Ok(messages) = updated {
            let text = value["Attributes"]["messages"]["N"].as_str();
            assert_eq!(text.and_then(|text| text.parse().ok()), Some(messages));
        }
        if described.is_ok() {
            assert!(value["Table"]["TableStatus"].is_string());
        }
    }

    /// A file of the AWS tools: comments and line ends of either kind change nothing.
    pub(super) fn keys(bytes: &[u8]) {
        let Ok(keys) = Keys::parse(bytes) else { return };
        assert!((1..=1024).contains(&keys.len()) && !keys.is_empty());
        let text = std::str::from_utf8(bytes).expect("it was read as text");
        let lines: Vec<&str> = text.lines().flat_map(|line| [line, "# key = [x"]).collect();
        let dressed = lines.join("\r\n");
        if dressed.len() <= 256 * 1024 {
            assert_eq!(Keys::parse(dressed.as_bytes()), Ok(keys.clone()));
        }
        let shown = format!("{keys:?}");
        let pairs = || text.lines().filter_map(|line| line.trim().split_once('='));
        let of = |wanted: &'static str| pairs().filter(move |(name, _)| name.trim() == wanted);
        let ids: String = of("aws_access_key_id").map(|(_, id)| id).collect();
        for (_, secret) in of("aws_secret_access_key") {
            hidden(&shown, secret.trim(), &format!("{ids} Keys (secret)"));
        }
    }

    /// Variables, one per line.
    pub(super) fn environment(bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let variables: Vec<_> = text.split('\n').filter_map(|line| line.split_once('=')).collect();
        let Some(plan) = plan(&variables) else { return };
        let shown = format!("{plan:?} {:?}", Keyring::new(plan.provider.clone(), 1));
        let is_secret =
            |name: &str| name.ends_with("_SECRET_ACCESS_KEY") || name.ends_with("_TOKEN");
        let known: String =
            variables.iter().filter(|(n, _)| !is_secret(n)).map(|(_, v)| *v).collect();
        let known = known + &format!("{:?}", provider_of());
        for (_, secret) in variables.iter().filter(|(name, _)| is_secret(name)) {
            hidden(&shown, secret, &known);
        }
        let mut keys = Keyring::new(plan.provider.clone(), 1);
        let mut need = keys.poll(NOW);
        if matches!(need, Some(Need::Read)) {
            keys.fetched(plan.provider.token_file().unwrap_or_default(), b"token");
            assert_eq!(keys.read(NOW), Ok(()));
            need = keys.poll(NOW);
        }
        if let Some(Need::Ask(question)) = need {
            ours_alone(&question, false);
            let near = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];
            let ProviderRequest { endpoint, .. } = &question;
            let is_near = near.contains(&&*endpoint.name) || endpoint.is_local();
            let is_web = matches!(plan.provider, Provider::Web { .. });
            assert!(
                endpoint.is_secure() || is_near || is_web,
                "a token sent without TLS: {endpoint:?}"
            );
        }
    }

    /// A request has only our own lines, or it cannot be sent.
    fn ours_alone(question: &ProviderRequest, must: bool) {
        let ProviderRequest { endpoint, method, target, fields, body } = question;
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.reveal())).collect();
        let body = body.reveal().as_bytes();
        match (ServiceRequest { endpoint, method, target, fields: &fields, body })
            .bytes(Authorization::None)
        {
            Ok(bytes) => assert!(lines(&bytes) <= 7 && bytes.ends_with(body)),
            Err(fault) => assert!(!must, "{fault:?}"),
        }
    }

    /// The lines of a request's head; panics on bytes that would end a line early.
    fn lines(request: &[u8]) -> usize {
        let head = request.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = std::str::from_utf8(&request[..head]).expect("text");
        // RFC 9110 §5.5: bytes beyond ASCII are allowed in a value.
        let sound = |b: u8| b == b'\t' || b >= b' ' && b != 0x7f;
        assert!(head.split("\r\n").all(|line| line.bytes().all(sound)));
        head.split("\r\n").count()
    }

    /// `shown` does not contain the secret, unless the public text `known` does.
    fn hidden(shown: &str, secret: &str, known: &str) {
        if secret.len() >= SECRET_MIN && !known.contains(secret) {
            assert!(!shown.contains(secret), "a secret is shown: {shown}");
        }
    }

    /// Parses the answer as the server's own connections do; `None` if it is invalid.
    fn parse(answer: &[u8], cuts: &Cuts) -> Option<Reply> {
        let call = Call {
            bytes: Block::of(b"x"),
            asked: http_client::Asked::Ordinary,
            limits: LIMITS,
            class: Class::Bulk,
            deadline_ns: u64::MAX,
            answer_ms: None,
            held_ns: 0,
        };
        let mut pool = Pool::new(RULES);
        let target = pool.target(&Target::host("127.0.0.1", 80));
        assert!(pool.ask(NOW, target, call, ()).is_ok());
        let Some(Order::Connect(lane, _)) = pool.poll(NOW) else { panic!("no connection") };
        pool.connected(NOW, lane, Ok(()));
        let mut out = Vec::new();
        pool.render(lane, &mut out);
        for part in cuts.parts(answer) {
            pool.received(NOW, lane, part);
        }
        pool.ended(NOW, lane, HangUp::Eof);
        let ((), end) = pool.outcome().expect("an end");
        assert!(pool.outcome().is_none(), "one end");
        let reply = end.ok()?;
        assert!(reply.body.len() as u64 <= LIMITS.body_bytes);
        Some(reply)
    }
}

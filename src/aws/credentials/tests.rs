//! All three providers: renewal, failures and retries.

use super::*;

/// 2026-11-21T03:19:04Z
const WALL_MS: i64 = 1_795_231_144_000;
const HOUR_MS: i64 = 3_600_000;

fn at(ms: i64) -> Now {
    Now { mono_ns: time::ms(ms.unsigned_abs()), wall_ms: WALL_MS + ms }
}

fn config(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::read(&|name| {
        let mut found = variables.iter().filter(|(known, _)| *known == name);
        found.next().map(|(_, value)| (*value).to_owned())
    })
}

fn json(key: &str, expires_ms: i64) -> String {
    let expires = time::rfc3339(expires_ms);
    format!(
        r#"{{"AccessKeyId":"{key}","SecretAccessKey":"s/+=","Token":"t+/=","AccountId":"1",
        "Expiration":"{expires}"}}"#
    )
}

fn xml(key: &str, expires_ms: i64) -> String {
    let expires = time::rfc3339(expires_ms);
    format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult>\
        <AssumedRoleUser><Arn>a</Arn></AssumedRoleUser><Credentials>\
        <AccessKeyId>{key}</AccessKeyId>\n<SecretAccessKey>s/+=</SecretAccessKey>\
        <SessionToken>t+/=</SessionToken><Expiration>{expires}</Expiration></Credentials>\
        </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
}

const POD: &[(&str, &str)] = &[
    ("AWS_REGION", "eu-west-1"),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/var/run/token"),
];
const WEB: &[(&str, &str)] = &[
    ("AWS_REGION", "eu-west-1"),
    ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token"),
    ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1"),
];

fn keyring(variables: &[(&str, &str)]) -> Keyring {
    Keyring::new(config(variables).unwrap().provider, 1)
}

/// Reads the token file; returns the request.
fn ask(keys: &mut Keyring, now: Now, token: &str) -> ProviderRequest {
    assert_eq!(keys.poll(now), Some(Need::Read));
    assert_eq!(keys.poll(now), None);
    keys.fetched("/var/run/other", b"wrong");
    keys.fetched("/var/run/token", token.as_bytes());
    keys.read(now).unwrap();
    let Some(Need::Ask(request)) = keys.poll(now) else { panic!("no request") };
    assert_eq!((keys.poll(now), keys.next_deadline()), (None, None));
    request
}

#[test]
fn access_keys_in_the_environment() {
    let mut given = vec![
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("AWS_REGION", ""),
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ];
    let read = config(&given).unwrap();
    assert_eq!(read.region, "eu-west-1");
    let mut keys = Keyring::new(read.provider, 1);
    assert_eq!((keys.poll(at(0)), keys.next_deadline()), (None, None));
    let credentials = keys.credentials(at(HOUR_MS * 24 * 365)).unwrap();
    assert_eq!((&*credentials.access_key, &credentials.session_token), ("AKID", &None));
    keys.rejected(at(0));
    assert_eq!(keys.next_deadline(), None);
    given.push(("AWS_SESSION_TOKEN", "t"));
    let keys = keyring(&given);
    assert_eq!(keys.credentials(at(0)).unwrap().session_token, Some(Secret::new("t")));
}

#[test]
fn endpoints_in_the_environment() {
    let all = ("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    let own = ("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:2");
    let other = ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:3");
    let ignored = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true");
    for (variables, host) in [
        (&[][..], None),
        (&[other], None),
        (&[("AWS_ENDPOINT_URL", "")], None),
        (&[all, other], Some("127.0.0.1:1")),
        (&[all, own], Some("127.0.0.1:2")),
        (&[all, own, ignored], None),
    ] {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let found = endpoint("DYNAMODB", &variable).unwrap();
        assert_eq!(found.as_ref().map(|endpoint| &*endpoint.host), host, "{variables:?}");
    }
    let wrong = endpoint("DYNAMODB", &|_| Some("nonsense".to_owned()));
    assert_eq!(wrong, Err(ConfigError::BadEndpoint));
    let mut keys = keyring(&[&WEB[..3], &[all]].concat());
    assert_eq!(ask(&mut keys, at(0), "token").endpoint.host, "127.0.0.1:1");
}

#[test]
fn missing_and_invalid_variables() {
    let region = ("AWS_REGION", "eu-west-1");
    let container = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    for (variables, why) in [
        (&[][..], ConfigError::Region),
        (&[region], ConfigError::Credentials),
        (&[region, ("AWS_ACCESS_KEY_ID", "A")], ConfigError::Secret),
        (&[region, ("AWS_ROLE_ARN", "arn")], ConfigError::Credentials),
        (&[region, (container, "http://evil.example/")], ConfigError::BadContainer),
        (&[region, (container, "nonsense")], ConfigError::BadContainer),
    ] {
        assert_eq!(config(variables), Err(why));
    }
    #[cfg(feature = "tls")]
    assert_eq!(config(&[("AWS_REGION", "evil.example/")]), Err(ConfigError::BadRegion));
    let ecs = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/uuid?x=y");
    let Provider::Container { endpoint, target, .. } = config(&[region, ecs]).unwrap().provider
    else {
        panic!("not a container provider")
    };
    assert_eq!((&*endpoint.host, &*target), ("169.254.170.2", "/v2/credentials/uuid?x=y"));
}

#[test]
fn container_credentials_are_renewed_before_they_expire() {
    let mut keys = keyring(POD);
    let request = ask(&mut keys, at(0), "tok.en\n");
    assert_eq!((request.method, &*request.target), ("GET", "/v1/credentials"));
    assert_eq!(request.fields, [("Authorization", Secret::new("tok.en"))]);
    assert!(!format!("{request:?}").contains("tok.en"));
    assert_eq!(keys.credentials(at(0)), None);
    keys.answered(at(10), 200, json("A1", WALL_MS + HOUR_MS).as_bytes()).unwrap();
    assert_eq!(keys.credentials(at(10)).unwrap().access_key, "A1");
    assert!(!format!("{keys:?}").contains("t+/="));
    let due_ms = HOUR_MS - MARGIN_MS;
    assert_eq!(keys.next_deadline(), Some(time::ms(due_ms.unsigned_abs())));
    assert_eq!(keys.poll(at(due_ms - 1)), None);
    // The token file has been rotated.
    let request = ask(&mut keys, at(due_ms), "newer");
    assert_eq!(request.fields, [("Authorization", Secret::new("newer"))]);
    // No response: the old credentials stay until they expire.
    keys.failed(at(due_ms));
    assert_eq!(keys.credentials(at(HOUR_MS - 1)).unwrap().access_key, "A1");
    assert_eq!(keys.credentials(at(HOUR_MS)), None);
    ask(&mut keys, at(due_ms + 2_000), "newer");
    keys.answered(at(due_ms + 2_000), 200, json("A2", WALL_MS + 2 * HOUR_MS).as_bytes()).unwrap();
    assert_eq!(keys.credentials(at(HOUR_MS)).unwrap().access_key, "A2");
}

#[test]
fn web_identity_role() {
    let mut keys = keyring(WEB);
    let request = ask(&mut keys, at(0), "a.b-c_d~e=");
    assert_eq!((request.method, &*request.target), ("POST", "/"));
    assert_eq!(
        request.body.reveal(),
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15\
        &RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr&RoleSessionName=wspulse\
        &WebIdentityToken=a.b-c_d~e%3D"
    );
    keys.answered(at(0), 200, xml("A1", WALL_MS + 1000).as_bytes()).unwrap();
    let credentials = keys.credentials(at(0)).unwrap();
    assert_eq!(credentials.secret_key.reveal(), "s/+=");
    assert_eq!(credentials.session_token, Some(Secret::new("t+/=")));
    // Short-lived credentials are renewed at half their lifetime.
    assert_eq!(keys.next_deadline(), Some(time::ms(500)));
}

#[test]
fn failures_are_retried_with_backoff() {
    let mut keys = keyring(WEB);
    assert_eq!(keys.poll(at(0)), Some(Need::Read));
    keys.fetched("/var/run/token", b"half a token\n");
    assert_eq!(keys.read(at(0)), Err(CredentialsError::NoToken));
    let refused = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error>";
    let (mut now_ms, mut pauses) = (0, Vec::new());
    for (status, body, error) in [
        (403, refused.to_owned(), CredentialsError::Refused(403, "AccessDenied".to_owned())),
        (500, "oh".to_owned(), CredentialsError::Refused(500, String::new())),
        (200, "oh".to_owned(), CredentialsError::Malformed),
        (200, xml("A 1", WALL_MS + HOUR_MS), CredentialsError::Malformed),
        (200, xml("A1", WALL_MS - 1), CredentialsError::Expired),
        (200, xml("A1", WALL_MS).replace("2026", "soon"), CredentialsError::Malformed),
        (503, String::new(), CredentialsError::Refused(503, String::new())),
        (503, String::new(), CredentialsError::Refused(503, String::new())),
    ] {
        let due_ms = (keys.next_deadline().unwrap() / 1_000_000).cast_signed() + 1;
        pauses.push(due_ms - now_ms);
        now_ms = due_ms;
        ask(&mut keys, at(now_ms), "token");
        assert_eq!(keys.answered(at(now_ms), status, body.as_bytes()), Err(error));
    }
    assert!(pauses[0] <= 1_001 && pauses[7] >= 30_000 && pauses[7] <= 60_001, "{pauses:?}");
    assert_eq!(keys.credentials(at(now_ms)), None);
}

#[test]
fn rejected_credentials_are_renewed_early() {
    let mut keys = keyring(POD);
    ask(&mut keys, at(0), "token");
    keys.answered(at(0), 200, json("A1", WALL_MS + HOUR_MS).as_bytes()).unwrap();
    keys.rejected(at(1_000));
    assert!(keys.next_deadline().unwrap() <= time::ms(2_000));
    for body in ["", "[]", "{}", &json("A1", WALL_MS)[1..]] {
        let mut keys = keyring(POD);
        ask(&mut keys, at(0), "token");
        assert_eq!(keys.answered(at(0), 200, body.as_bytes()), Err(CredentialsError::Malformed));
    }
}

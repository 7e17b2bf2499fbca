//! The signatures of AWS' test suite, and requests that were changed after signing.

use super::*;

/// AWS' test suite without the cases for folded lines and S3 paths. Each case: name, signature,
/// optional token, then the request. `body`: the body's hash is sent as a field too.
const VECTORS: &str = include_str!("vectors.txt");
/// 2015-08-30T12:36:00Z
const THEN_MS: i64 = 1_440_938_160_000;
const SCOPE: Scope<'static> = Scope { region: "us-east-1", service: "service" };

fn credentials(token: Option<&str>) -> Credentials {
    Credentials {
        access_key: "AKIDEXAMPLE".to_owned(),
        secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        session_token: token.map(Secret::new),
    }
}

fn keys(token: Option<&str>) -> Keys {
    let mut text = "[a]\naws_access_key_id=AKIDEXAMPLE\n\
        aws_secret_access_key=wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY\n"
        .to_owned();
    text.extend(token.map(|token| format!("aws_session_token={token}\n")));
    Keys::parse(text.as_bytes()).unwrap()
}

#[test]
fn signatures_of_the_aws_test_suite() {
    let mut count = 0;
    for vector in VECTORS.split("# ").skip(1) {
        count += 1;
        let (head, request) = vector.split_once('\n').unwrap();
        let (with_hash, head) = match head.strip_prefix("body ") {
            Some(head) => (true, head),
            None => (false, head),
        };
        let words: Vec<&str> = head.split(' ').collect();
        let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
        let body = body.trim_end();
        let (line, fields) = head.split_once('\n').unwrap();
        let (method, rest) = line.split_once(' ').unwrap();
        let target = rest.strip_suffix(" HTTP/1.1").unwrap();
        let fields = fields.lines().map(|line| line.split_once(':').unwrap());
        let mut fields: Vec<_> = fields.map(|(name, value)| (name, value.as_bytes())).collect();
        let hash = hex(&sha256(body.as_bytes()));
        if with_hash {
            fields.push(("x-amz-content-sha256", hash.as_bytes()));
        }
        let parts = Parts { method, target, fields: &fields, body: body.as_bytes() };
        let signed = sign(&parts, SCOPE, &credentials(words.get(2).copied()), THEN_MS);
        let signature = signed.authorization.rsplit_once('=').unwrap().1;
        assert_eq!(signature, words[1], "{}", words[0]);
        let keys = keys(words.get(2).copied());
        assert_eq!(check_with(&keys, &parts, &signed, THEN_MS), Ok(()), "{}", words[0]);
    }
    assert_eq!(count, 30);
}

fn check(parts: &Parts<'_>, signed: &Signed, wall_ms: i64) -> Result<(), Denied> {
    check_with(&keys(None), parts, signed, wall_ms)
}

/// Verifies the request with the fields of the signature added.
fn check_with(keys: &Keys, parts: &Parts<'_>, signed: &Signed, wall_ms: i64) -> Result<(), Denied> {
    let mut fields = parts.fields.to_vec();
    fields.push(("X-Amz-Date", signed.date.as_bytes()));
    fields.push(("Authorization", signed.authorization.as_bytes()));
    // Added by a proxy, not signed.
    fields.push(("X-Forwarded-For", b"10.0.0.1"));
    if let Some(token) = &signed.token {
        fields.push(("X-Amz-Security-Token", token.reveal().as_bytes()));
    }
    verify(&Parts { fields: &fields, ..*parts }, SCOPE.service, keys, wall_ms)
}

const FIELDS: &[(&str, &[u8])] = &[("Host", b"h:8081"), ("Content-Type", b"text/plain")];
const PARTS: Parts<'static> =
    Parts { method: "POST", target: "/prod/%40connections/a%3D?b=c", fields: FIELDS, body: b"hi" };

#[test]
fn changed_requests_are_rejected() {
    let signed = sign(&PARTS, SCOPE, &credentials(None), THEN_MS);
    assert_eq!(check(&PARTS, &signed, THEN_MS), Ok(()));
    let other: &[(&str, &[u8])] = &[("Host", b"h:8082"), ("Content-Type", b"text/plain")];
    for parts in [
        Parts { method: "DELETE", ..PARTS },
        Parts { target: "/prod/%40connections/b%3D?b=c", ..PARTS },
        Parts { target: "/prod/%40connections/a%3D?b=d", ..PARTS },
        Parts { target: "/prod/%40connections/a%3D", ..PARTS },
        Parts { body: b"ho", ..PARTS },
        Parts { fields: other, ..PARTS },
        Parts { fields: &FIELDS[..1], ..PARTS },
    ] {
        assert_eq!(check(&parts, &signed, THEN_MS), Err(Denied::Mismatch), "{parts:?}");
    }
}

#[test]
fn session_tokens_are_checked() {
    for (known, given, how) in [
        (Some("one"), Some("one"), Ok(())),
        (Some("one"), Some("two"), Err(Denied::UnknownKey)),
        (Some("one"), None, Err(Denied::UnknownKey)),
        (None, Some("one"), Err(Denied::UnknownKey)),
    ] {
        let signed = sign(&PARTS, SCOPE, &credentials(given), THEN_MS);
        assert_eq!(check_with(&keys(known), &PARTS, &signed, THEN_MS), how, "{known:?} {given:?}");
    }
}

#[test]
fn clocks_may_differ_by_15_minutes() {
    let signed = sign(&PARTS, SCOPE, &credentials(None), THEN_MS);
    for (off_ms, how) in [
        (SKEW_MS, Ok(())),
        (-SKEW_MS, Ok(())),
        (SKEW_MS + 1, Err(Denied::Skewed)),
        (-SKEW_MS - 1, Err(Denied::Skewed)),
    ] {
        assert_eq!(check(&PARTS, &signed, THEN_MS + off_ms), how);
    }
}

#[test]
fn invalid_signatures_are_rejected() {
    let signed = sign(&PARTS, SCOPE, &credentials(None), THEN_MS);
    let text = &signed.authorization;
    let with =
        |from: &str, to: &str| Signed { authorization: text.replace(from, to), ..signed.clone() };
    for (signed, why) in [
        (with("AWS4-HMAC-SHA256", "Bearer"), Denied::Unsigned),
        (with(" Credential", " "), Denied::Malformed),
        (with(" Credential", " X=1, Credential"), Denied::Malformed),
        (with(" Credential", " Signature=1, Credential"), Denied::Malformed),
        (with("aws4_request", "aws5_request"), Denied::Malformed),
        (with("Signature=", "Signature=0"), Denied::Malformed),
        (with("host;", ""), Denied::Malformed),
        (with(";x-amz-date", ""), Denied::Malformed),
        (with("content-type;host", "host;content-type"), Denied::Malformed),
        (with("/service/", "/sts/"), Denied::Scope),
        (with("/20150830/", "/20150831/"), Denied::Scope),
        (with("AKIDEXAMPLE", "AKIDEXAMPLF"), Denied::UnknownKey),
        (with("us-east-1", "us-east-2"), Denied::Mismatch),
        (Signed { date: "20150830T123601Z".to_owned(), ..signed.clone() }, Denied::Mismatch),
        (Signed { date: "yesterday at six".to_owned(), ..signed.clone() }, Denied::Malformed),
        (Signed { token: Some(Secret::new("t")), ..signed.clone() }, Denied::Malformed),
    ] {
        assert_eq!(check(&PARTS, &signed, THEN_MS), Err(why), "{}", signed.authorization);
    }
    assert_eq!(verify(&PARTS, "service", &keys(None), THEN_MS), Err(Denied::Unsigned));
}

/// Signed requests with random changes: none is accepted, none causes a panic.
#[test]
fn randomly_changed_requests_are_rejected() {
    let mut rng = crate::rng::Rng::new(7);
    let signed = sign(&PARTS, SCOPE, &credentials(Some("token")), THEN_MS);
    let token = signed.token.as_ref().unwrap().reveal();
    let valid = [
        PARTS.target.as_bytes(),
        b"h:8081",
        b"text/plain",
        signed.date.as_bytes(),
        token.as_bytes(),
        signed.authorization.as_bytes(),
        PARTS.body,
    ]
    .map(<[u8]>::to_vec);
    let bytes = b"\0\t\n %+,./;=?&\x7f\x80\xc3\xff0Aa";
    for _ in 0..20_000 {
        let mut parts = valid.clone();
        for _ in 0..=rng.below(3) {
            let part = &mut parts[rng.below(7) as usize];
            let at = rng.below(part.len() as u64) as usize;
            match rng.below(3) {
                0 => part[at] = bytes[rng.below(bytes.len() as u64) as usize],
                1 => part.truncate(at.max(1)),
                _ => part.insert(at, bytes[rng.below(bytes.len() as u64) as usize]),
            }
        }
        let Ok(target) = std::str::from_utf8(&parts[0]) else { continue };
        let names = ["Host", "Content-Type", "X-Amz-Date", "X-Amz-Security-Token", "Authorization"];
        let fields: Vec<_> = names.into_iter().zip(parts[1..6].iter().map(Vec::as_slice)).collect();
        let damaged = Parts { method: "POST", target, fields: &fields, body: &parts[6] };
        // Whitespace around values and redundant path segments do not change the canonical form.
        let same = canonical(&damaged, &["content-type", "host", "x-amz-date"])
            == canonical(
                &Parts {
                    fields: &[FIELDS, &[("X-Amz-Date", signed.date.as_bytes())]].concat(),
                    ..PARTS
                },
                &["content-type", "host", "x-amz-date"],
            );
        let how = verify(&damaged, "service", &keys(None), THEN_MS);
        assert!(how.is_err() || same, "{damaged:?}");
    }
}

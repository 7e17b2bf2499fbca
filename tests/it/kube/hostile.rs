//! An API server that is broken, or not one at all: what cannot be read is left out or the list
//! is taken again; nothing is believed that was not said, and nobody panics.

use wspulse::engine::HangUp;
use wspulse::parts::informer::Format;

use super::scripted::{Scripted, WATCH, chunk, list};

const ONE: &[u8] =
    b"{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[{\"metadata\":{\"name\":\"a\",\
    \"namespace\":\"n\",\"uid\":\"u\",\"resourceVersion\":\"5\"}}]}";

/// What it does after an answer to its list: the reason that a viewer reads, if there is one.
fn after_list(answer: &[u8]) -> String {
    let mut told = Scripted::new(Format::Json);
    told.hear(answer, 4096);
    told.end(HangUp::Eof);
    let stale = told.heard.iter().find(|said| said.starts_with("{\"type\":\"stale\""));
    let reason = stale.map(|said| said.split("\"reason\":\"").nth(1).unwrap().to_owned());
    if reason.is_some() {
        assert!(!told.heard.iter().any(|said| said.contains("synced")), "{:?}", told.heard);
        told.wait();
        assert!(told.asked.last().unwrap().contains("limit=50 "), "it lists again");
    }
    reason.unwrap_or_default()
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

#[test]
fn lists_that_are_none() {
    let bomb = [&b"{\"metadata\":"[..], &b"[".repeat(200_000)].concat();
    let no_version = b"{\"metadata\":{},\"items\":[]}";
    let number = b"{\"metadata\":{\"resourceVersion\":7},\"items\":[]}";
    let empty = b"{\"metadata\":{\"resourceVersion\":\"\"},\"items\":[]}";
    let split = b"{\"metadata\":{\"resourceVersion\":\"7 8\\r\\n\"},\"items\":[]}";
    let moved = "301 Moved\r\nLocation: http://evil.test/";
    for (bytes, reason) in [
        (list(b"<html><body>Sign in</body></html>"), "no list of Deployments"),
        (list(b""), "no list of Deployments"),
        (list(b"null"), "no list of Deployments"),
        (list(b"[]"), "no list of Deployments"),
        (list(b"{}"), "no list of Deployments"),
        (list(&bomb), "no list of Deployments"),
        (list(no_version), "no list of Deployments"),
        (list(number), "no list of Deployments"),
        (list(empty), "no list of Deployments"),
        (list(split), "no list of Deployments"),
        (list(&ONE[..ONE.len() - 1]), "no list of Deployments"),
        (list(&ONE[..30]), "no list of Deployments"),
        (answer(moved, b""), "sends us elsewhere"),
        (answer("200 OK\r\nContent-Encoding: gzip", b"\x1f\x8b\x08"), "is compressed"),
        (answer("401 No", b""), "does not accept the token"),
        (answer("403 No", b""), "forbidden"),
        (answer("404 No", b""), "answers 404"),
        (answer("500 No", b"{\"metadata\":{\"resourceVersion\":\"1\"}}"), "answers 500"),
        (answer("204 No", b""), "answers 204"),
        (b"HTTP/1.1 101 Switching\r\n\r\n".to_vec(), "the API server's answer: "),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), "the API server's answer: "),
        (b"\x15\x03\x03\x00\x02\x02\x0a".to_vec(), "the API server's answer: "),
        ([WATCH, b"5\r\nhello!\r\n"].concat(), "no list of Deployments"),
        ([WATCH, b"5x\r\n"].concat(), "the API server's answer: "),
        ([WATCH, b"-1\r\n"].concat(), "the API server's answer: "),
        ([WATCH, b"ffffffffffffffff\r\n"].concat(), "the API server's answer: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{".to_vec(), "is lost"),
        (b"HTTP/1.1 200".to_vec(), "is lost"),
        (Vec::new(), "is lost"),
    ] {
        let said = after_list(&bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        assert!(said.contains(reason), "{said:?} instead of {reason:?}: {shown}");
    }
}

/// The list is whole, and some of its objects are no Deployments.
#[test]
fn objects_that_are_none_are_left_out() {
    let sound = r#"{"metadata":{"name":"a","namespace":"n","uid":"u","resourceVersion":"5"}}"#;
    let deep = format!("{}{}", "{\"a\":".repeat(50_000) + "1", "}".repeat(50_000));
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(9_000_000));
    let wrong_type = sound.replace("}}", "},\"spec\":{\"replicas\":\"x\"}}");
    for bad in [
        "null",
        "7",
        "\"x\"",
        "[]",
        "{}",
        "{\"metadata\":null}",
        "{\"metadata\":{\"name\":7}}",
        &wrong_type,
        &deep,
        &long,
    ] {
        let body = format!(
            "{{\"metadata\":{{\"resourceVersion\":\"7\"}},\"items\":[{bad},{sound},{bad}]}}"
        );
        let mut told = Scripted::new(Format::Text);
        told.hear(&list(body.as_bytes()), 65_536);
        assert_eq!(told.heard, ["Successfully processed deployment: a"]);
        assert_eq!(told.informer.figures.watch_errors, 2);
        assert!(told.informer.cost() < 4096, "{} bytes are kept", told.informer.cost());
    }
    for body in [
        "{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":null}",
        "{\"metadata\":{\"resourceVersion\":\"7\"}}",
    ] {
        let mut told = Scripted::new(Format::Json);
        told.hear(&list(body.as_bytes()), 3);
        assert_eq!(told.heard, ["{\"type\":\"synced\",\"resourceVersion\":\"7\"}"]);
    }
}

/// Lines of a watch that mean nothing: left out, and what is known is listed again afterwards.
#[test]
fn lines_that_mean_nothing() {
    let deep =
        format!("{{\"type\":\"ADDED\",\"object\":{}1{}}}", "[".repeat(9999), "]".repeat(9999));
    let long = format!("{{\"type\":\"ADDED\",\"object\":\"{}\"}}", "x".repeat(9_000_000));
    for line in [
        "<html>",
        "{}",
        "[]",
        "null",
        "\"\"",
        "{\"type\":\"ADDED\"}",
        r#"{"type":7,"object":{}}"#,
        r#"{"type":"RENAMED","object":{}}"#,
        r#"{"type":"ADDED","object":null}"#,
        r#"{"type":"ADDED","object":{"metadata":{"name":"x","namespace":"n"}}}"#,
        r#"{"type":"BOOKMARK","object":{"metadata":{}}}"#,
        r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":""}}}"#,
        r#"{"type":"DELETED","object":{"metadata":{"name":["a"]}}}"#,
        "{\"type\":\"DELETED\",\"object\":{\"metadata\":{\"name\":\"\u{0}\"}}}",
        &deep,
        &long,
    ] {
        let mut told = Scripted::new(Format::Text);
        told.hear(&list(ONE), usize::MAX);
        let before = told.informer.cost();
        let line = [line.as_bytes(), b"\n"].concat();
        told.hear(&[WATCH, &chunk(&line)].concat(), 60_000);
        assert_eq!(told.heard.len(), 1, "only the list");
        told.heard.clear();
        assert_eq!(told.informer.figures.watch_errors, 1);
        assert!(told.informer.cost() <= before + 4096, "{} bytes", told.informer.cost());
        let next =
            br#"{"type":"MODIFIED","object":{"metadata":{"name":"a","namespace":"n","uid":"u",
            "resourceVersion":"8"}}}"#;
        let next: Vec<u8> = next.iter().copied().filter(|b| *b != b'\n').chain([b'\n']).collect();
        told.hear(&[chunk(&next), b"0\r\n\r\n".to_vec()].concat(), usize::MAX);
        assert_eq!(told.heard, ["Successfully processed deployment: a"], "and on it goes");
        assert!(told.asked.last().unwrap().contains("limit=50 "), "it lists again");
    }
}

/// Errors in the stream: 410 lists again, anything else watches again after a pause.
#[test]
fn errors_in_the_stream() {
    for (object, lists) in [
        (r#"{"code":410}"#, true),
        (r#"{"reason":"Expired"}"#, true),
        (r#"{"code":500,"reason":"InternalError"}"#, false),
        ("{}", false),
        ("null", false),
        (r#"{"code":"410"}"#, false),
    ] {
        let mut told = Scripted::new(Format::Text);
        told.hear(&list(ONE), usize::MAX);
        let line = format!("{{\"type\":\"ERROR\",\"object\":{object}}}\n");
        told.hear(&[WATCH, &chunk(line.as_bytes())].concat(), usize::MAX);
        told.wait();
        let asked = told.asked.last().unwrap();
        assert_eq!(asked.contains("limit=50 "), lists, "{object}: {asked}");
        assert!(lists || asked.contains("resourceVersion=7&"), "{object}: {asked}");
    }
}

/// 429 and `Retry-After` are obeyed, and nothing is listed again for it.
#[test]
fn a_busy_server_is_left_alone() {
    let mut told = Scripted::new(Format::Text);
    told.hear(&list(ONE), usize::MAX);
    let before_ns = told.now_ns;
    told.hear(b"HTTP/1.1 429 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", usize::MAX);
    told.wait();
    assert!(told.now_ns - before_ns >= 7_000_000_000);
    assert!(told.asked.last().unwrap().contains("resourceVersion=7&"), "{:?}", told.asked);
    assert_eq!(told.informer.figures.relists, 0);
}

/// Versions are opaque: they may repeat, go backward, or be no numbers.
#[test]
fn versions_are_opaque() {
    let mut told = Scripted::new(Format::Text);
    told.hear(&list(ONE), usize::MAX);
    told.hear(WATCH, usize::MAX);
    for (version, news) in [("x-1", true), ("x-1", false), ("3", true), ("%00&a=b", true)] {
        told.heard.clear();
        let line = format!(
            "{{\"type\":\"MODIFIED\",\"object\":{{\"metadata\":{{\"name\":\"a\",\
             \"namespace\":\"n\",\"uid\":\"u\",\"resourceVersion\":\"{version}\"}}}}}}\n"
        );
        told.hear(&chunk(line.as_bytes()), usize::MAX);
        assert_eq!(told.heard.len(), usize::from(news), "{version}");
    }
    told.hear(b"0\r\n\r\n", usize::MAX);
    let asked = told.asked.last().unwrap();
    assert!(asked.contains("resourceVersion=%2500%26a%3Db&"), "{asked}");
}

/// Pages that never end are no list, and nothing spins.
#[test]
fn pages_without_an_end() {
    let mut told = Scripted::new(Format::Json);
    let page = b"{\"metadata\":{\"resourceVersion\":\"7\",\"continue\":\"x\"},\"items\":[]}";
    for _ in 0..3000 {
        if told.hung_up > 0 {
            break;
        }
        told.hear(&list(page), usize::MAX);
    }
    assert!(told.heard[0].contains("no list of Deployments"), "{:?}", told.heard);
}

/// A server that is away hears from us seldom, and at once when it is back.
#[test]
fn a_server_that_is_away_is_asked_seldom() {
    let mut told = Scripted::new(Format::Json);
    let began_ns = told.now_ns;
    while told.now_ns - began_ns < 600_000_000_000 {
        told.end(HangUp::Reset);
        told.wait();
    }
    let asked = told.asked.len();
    assert!(asked <= 132, "{asked} in 10 minutes are more than 0.22 a second");
    assert!(asked >= 20, "{asked} in 10 minutes: nobody would notice that it is back");
}

/// A half-open connection: nothing comes, and it is given up.
#[test]
fn silence_has_an_end() {
    let mut told = Scripted::new(Format::Json);
    told.wait();
    assert!(told.heard[0].contains("is silent"), "no answer to a list: {:?}", told.heard);
    told.wait();
    told.hear(&list(ONE), usize::MAX);
    told.hear(WATCH, usize::MAX);
    let before_ns = told.now_ns;
    told.wait();
    let waited_s = (told.now_ns - before_ns) / 1_000_000_000;
    assert!((305..=605).contains(&waited_s), "{waited_s} s");
    assert!(told.heard.last().unwrap().contains("is silent"), "{:?}", told.heard);
}

//! An API server that is broken, or a server of another kind: invalid objects are skipped, invalid
//! lists are requested again, and nothing panics.

use wspulse::engine::HangUp;
use wspulse::parts::informer::Format;

use super::scripted::{Scripted, WATCH, chunk, list};

const ONE: &[u8] =
    b"{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[{\"metadata\":{\"name\":\"a\",\
    \"namespace\":\"n\",\"uid\":\"u\",\"resourceVersion\":\"5\"}}]}";

/// The reason that a viewer reads after this response to the list.
fn after_list(answer: &[u8]) -> String {
    let mut scripted = Scripted::new(Format::Json);
    scripted.receive(answer, 4096);
    scripted.end(HangUp::Eof);
    let stale = scripted.output.iter().find(|line| line.starts_with("{\"type\":\"stale\""));
    let reason = stale.map(|line| line.split("\"reason\":\"").nth(1).unwrap().to_owned());
    if reason.is_some() {
        assert!(
            !scripted.output.iter().any(|line| line.contains("synced")),
            "{:?}",
            scripted.output
        );
        scripted.wait();
        assert!(scripted.asked.last().unwrap().contains("limit=50 "), "a new list");
    }
    reason.unwrap_or_default()
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

#[test]
fn invalid_lists() {
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
        let got = after_list(&bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        assert!(got.contains(reason), "{got:?} instead of {reason:?}: {shown}");
    }
}

/// The list is complete, and some of its objects are invalid.
#[test]
fn invalid_objects_are_skipped() {
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
        let mut scripted = Scripted::new(Format::Text);
        scripted.receive(&list(body.as_bytes()), 65_536);
        assert_eq!(scripted.output, ["Successfully processed deployment: a"]);
        assert_eq!(scripted.informer.figures.watch_errors, 2);
        assert!(scripted.informer.cost() < 4096, "{} bytes are kept", scripted.informer.cost());
    }
    for body in [
        "{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":null}",
        "{\"metadata\":{\"resourceVersion\":\"7\"}}",
    ] {
        let mut scripted = Scripted::new(Format::Json);
        scripted.receive(&list(body.as_bytes()), 3);
        scripted.receive(WATCH, 3);
        scripted.wait();
        assert_eq!(
            scripted.output,
            ["{\"type\":\"synced\",\"kind\":\"deployments\",\"resourceVersion\":\"7\"}"]
        );
    }
}

/// Invalid lines of a watch are skipped, and a new list follows.
#[test]
fn invalid_watch_lines() {
    let deep =
        format!("{{\"type\":\"ADDED\",\"object\":{}1{}}}", "[".repeat(9999), "]".repeat(9999));
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
    ] {
        let mut scripted = Scripted::new(Format::Text);
        scripted.receive(&list(ONE), usize::MAX);
        let before = scripted.informer.cost();
        let line = [line.as_bytes(), b"\n"].concat();
        scripted.receive(&[WATCH, &chunk(&line)].concat(), 60_000);
        assert_eq!(scripted.output.len(), 1, "only the list");
        scripted.output.clear();
        assert_eq!(scripted.informer.figures.watch_errors, 1);
        assert!(scripted.informer.cost() <= before + 4096, "{} bytes", scripted.informer.cost());
        let next =
            br#"{"type":"MODIFIED","object":{"metadata":{"name":"a","namespace":"n","uid":"u",
            "resourceVersion":"8"}}}"#;
        let next: Vec<u8> = next.iter().copied().filter(|b| *b != b'\n').chain([b'\n']).collect();
        scripted.receive(&[chunk(&next), b"0\r\n\r\n".to_vec()].concat(), usize::MAX);
        assert_eq!(
            scripted.output,
            ["Successfully processed deployment: a"],
            "the informer goes on"
        );
        assert!(scripted.asked.last().unwrap().contains("limit=50 "), "a new list");
    }
}

/// ERROR events: after 410 a new list, after others a new watch with a pause.
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
        let mut scripted = Scripted::new(Format::Text);
        scripted.receive(&list(ONE), usize::MAX);
        let line = format!("{{\"type\":\"ERROR\",\"object\":{object}}}\n");
        scripted.receive(&[WATCH, &chunk(line.as_bytes())].concat(), usize::MAX);
        scripted.wait();
        let asked = scripted.asked.last().unwrap();
        assert_eq!(asked.contains("limit=50 "), lists, "{object}: {asked}");
        assert!(lists || asked.contains("resourceVersion=7&"), "{object}: {asked}");
    }
}

/// `Retry-After` of a 429 is obeyed, and no new list follows.
#[test]
fn retry_after_is_obeyed() {
    let mut scripted = Scripted::new(Format::Text);
    scripted.receive(&list(ONE), usize::MAX);
    let before_ns = scripted.now_ns;
    scripted
        .receive(b"HTTP/1.1 429 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", usize::MAX);
    scripted.wait();
    assert!(scripted.now_ns - before_ns >= 7_000_000_000);
    assert!(scripted.asked.last().unwrap().contains("resourceVersion=7&"), "{:?}", scripted.asked);
    assert_eq!(scripted.informer.figures.relists, 0);
}

/// Versions are opaque: they may repeat, decrease, or not be numbers.
#[test]
fn versions_are_opaque() {
    let mut scripted = Scripted::new(Format::Text);
    scripted.receive(&list(ONE), usize::MAX);
    scripted.receive(WATCH, usize::MAX);
    for (version, news) in [("x-1", true), ("x-1", false), ("3", true), ("%00&a=b", true)] {
        scripted.output.clear();
        let line = format!(
            "{{\"type\":\"MODIFIED\",\"object\":{{\"metadata\":{{\"name\":\"a\",\
             \"namespace\":\"n\",\"uid\":\"u\",\"resourceVersion\":\"{version}\"}}}}}}\n"
        );
        scripted.receive(&chunk(line.as_bytes()), usize::MAX);
        assert_eq!(scripted.output.len(), usize::from(news), "{version}");
    }
    scripted.receive(b"0\r\n\r\n", usize::MAX);
    let asked = scripted.asked.last().unwrap();
    assert!(asked.contains("resourceVersion=%2500%26a%3Db&"), "{asked}");
}

/// An endless sequence of pages is an error, not an endless loop.
#[test]
fn pages_without_an_end() {
    let mut scripted = Scripted::new(Format::Json);
    let page = b"{\"metadata\":{\"resourceVersion\":\"7\",\"continue\":\"x\"},\"items\":[]}";
    for _ in 0..3000 {
        if scripted.hung_up > 0 {
            break;
        }
        scripted.receive(&list(page), usize::MAX);
    }
    assert!(scripted.output[0].contains("no list of Deployments"), "{:?}", scripted.output);
}

/// While the API server is down, requests are rare, but frequent enough to notice its return.
#[test]
fn a_server_that_is_down_gets_few_requests() {
    let mut scripted = Scripted::new(Format::Json);
    let began_ns = scripted.now_ns;
    while scripted.now_ns - began_ns < 600_000_000_000 {
        scripted.end(HangUp::Reset);
        scripted.wait();
    }
    let asked = scripted.asked.len();
    assert!(asked <= 132, "{asked} in 10 minutes are more than 0.22 a second");
    assert!(asked >= 20, "{asked} in 10 minutes: too few to notice that it is back");
}

/// A server, or a proxy before it, that ends each watch after one event is not asked all the time.
/// One such watch is continued at once.
#[test]
fn watches_of_one_event_wait_for_each_other() {
    let object = r#"{"metadata":{"name":"a","namespace":"n","uid":"u","resourceVersion":"5"}}"#;
    for line in [
        r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}"#.to_owned(),
        format!(r#"{{"type":"ADDED","object":{object}}}"#),
        format!(
            "{{\"type\":\"ADDED\",\"object\":{{}}}}\n{{\"type\":\"ADDED\",\"object\":{object}}}"
        ),
    ] {
        let watch = [WATCH, &chunk(format!("{line}\n").as_bytes()), b"0\r\n\r\n"].concat();
        let mut scripted = Scripted::new(Format::Json);
        scripted.receive(&list(ONE), usize::MAX);
        let (began_ns, before) = (scripted.now_ns, scripted.asked.len());
        scripted.receive(&watch, usize::MAX);
        assert_eq!(scripted.asked.len(), before + 1, "{line}: the first is no reason to wait");
        while scripted.now_ns - began_ns < 600_000_000_000 && scripted.asked.len() < 1_000 {
            let (asked, is_list) = (scripted.asked.len(), scripted.last_asked().contains("limit="));
            let answer = if is_list { list(ONE) } else { watch.clone() };
            scripted.receive(&answer, usize::MAX);
            if scripted.asked.len() == asked {
                scripted.wait();
            }
        }
        let asked = scripted.asked.len();
        assert!(asked <= 264, "{line}: {asked} requests in 10 minutes");
    }
}

/// A half-open connection times out.
#[test]
fn a_silent_connection_times_out() {
    let mut scripted = Scripted::new(Format::Json);
    scripted.wait();
    assert!(scripted.output[0].contains("is silent"), "no answer to a list: {:?}", scripted.output);
    scripted.wait();
    scripted.receive(&list(ONE), usize::MAX);
    scripted.receive(WATCH, usize::MAX);
    let before_ns = scripted.now_ns;
    scripted.wait();
    assert!(scripted.informer.feed.is_synced(), "after a second without an event");
    scripted.wait();
    let waited_s = (scripted.now_ns - before_ns) / 1_000_000_000;
    assert!((305..=605).contains(&waited_s), "{waited_s} s");
    assert!(scripted.output.last().unwrap().contains("is silent"), "{:?}", scripted.output);
}

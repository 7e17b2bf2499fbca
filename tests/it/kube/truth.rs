//! The informer says only what it knows: when it calls itself synced or stale, and when it gives up
//! a resource version and takes a new list.

use wspulse::engine::{HangUp, Id};
use wspulse::parts::informer::{Filter, Format, Then};

use super::recorded::fixture;
use super::scripted::{NO_STREAM, Scripted, VIEWER, WATCH, chunk, list, status};

const LIST: &[u8] =
    b"{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[{\"metadata\":{\"name\":\"a\",\
    \"namespace\":\"n\",\"uid\":\"u\",\"resourceVersion\":\"5\"}}]}";
const TRUNCATED: &str = ",\"truncated\":true}";
const SYNCED: &str = "{\"type\":\"synced\"";

fn object(name: &str, version: &str) -> String {
    format!(
        "{{\"metadata\":{{\"name\":\"{name}\",\"namespace\":\"n\",\"uid\":\"{name}\",\
         \"resourceVersion\":\"{version}\"}}}}"
    )
}

fn event(kind: &str, object: &str) -> Vec<u8> {
    chunk(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").as_bytes())
}

fn bookmark(version: &str, ends: bool) -> Vec<u8> {
    let end = if ends { ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}" } else { "" };
    event("BOOKMARK", &format!("{{\"metadata\":{{\"resourceVersion\":\"{version}\"{end}}}}}"))
}

/// A list was read, and a watch of version 7 is asked for.
fn listed() -> Scripted {
    let mut scripted = Scripted::new(Format::Json);
    scripted.receive(&list(LIST), usize::MAX);
    assert!(scripted.last_asked().contains("resourceVersion=7&"), "{:?}", scripted.asked);
    scripted
}

fn has(scripted: &Scripted, start: &str) -> bool {
    scripted.output.iter().any(|line| line.starts_with(start))
}

fn is_paged(asked: &str) -> bool {
    asked.contains("limit=50 ")
}

/// Once, the same watch again; twice in a row, a new list.
#[test]
fn a_watch_that_fails_twice_leads_to_a_list() {
    let error = |code: u16| [WATCH, &event("ERROR", &format!("{{\"code\":{code}}}"))].concat();
    let empty = [WATCH, b"0\r\n\r\n"].concat();
    for failure in [status(500), status(503), status(504), error(500), error(504), empty] {
        let mut scripted = listed();
        scripted.receive(&failure, usize::MAX);
        scripted.wait();
        assert!(scripted.last_asked().contains("resourceVersion=7&"), "{:?}", scripted.asked);
        // A connection that fails says nothing about the version.
        scripted.end(HangUp::Reset);
        scripted.wait();
        assert!(scripted.last_asked().contains("resourceVersion=7&"), "{:?}", scripted.asked);
        scripted.receive(&failure, usize::MAX);
        scripted.wait();
        assert!(!scripted.last_asked().contains("resourceVersion=7&"), "{:?}", scripted.asked);
        assert_eq!(scripted.informer.figures.relists, 1);
    }
}

#[test]
fn an_event_between_two_failures_keeps_the_version() {
    let mut scripted = listed();
    scripted.receive(&status(500), usize::MAX);
    scripted.wait();
    scripted.receive(&[WATCH, &event("MODIFIED", &object("a", "8"))].concat(), usize::MAX);
    scripted.receive(&event("ERROR", "{\"code\":500}"), usize::MAX);
    scripted.wait();
    assert!(scripted.last_asked().contains("resourceVersion=8&"), "{:?}", scripted.asked);
    assert_eq!(scripted.informer.figures.relists, 0);
}

/// A list alone, or a watch that fails at once, is no proof.
#[test]
fn synced_needs_a_watch_that_works() {
    let mut scripted = listed();
    scripted.pass(5000);
    assert!(!has(&scripted, SYNCED), "only listed: {:?}", scripted.output);
    scripted.receive(&[WATCH, &event("ERROR", "{\"code\":500}")].concat(), usize::MAX);
    assert!(!has(&scripted, SYNCED), "{:?}", scripted.output);
    assert!(has(&scripted, "{\"type\":\"stale\""), "{:?}", scripted.output);
    for (bytes, wait_ms) in [
        (event("ADDED", &object("b", "8")), 0),
        (bookmark("8", false), 0),
        // An event that cannot be read proves nothing.
        (chunk(b"nonsense\n"), 1000),
        (Vec::new(), 1000),
    ] {
        let mut scripted = listed();
        scripted.receive(WATCH, usize::MAX);
        scripted.receive(&bytes, usize::MAX);
        if wait_ms > 0 {
            scripted.pass(wait_ms - 1);
            assert!(!has(&scripted, SYNCED), "{:?}", scripted.output);
            scripted.pass(1);
        }
        assert!(has(&scripted, SYNCED), "{:?}", scripted.output);
        assert!(scripted.informer.feed.is_synced());
    }
}

#[test]
fn a_head_that_never_comes_is_stale_after_a_minute() {
    let mut scripted = listed();
    scripted.receive(b"HTTP/1.1 200 OK\r\n", usize::MAX);
    scripted.pass(59_999);
    assert!(!has(&scripted, "{\"type\":\"stale\""), "{:?}", scripted.output);
    scripted.pass(1);
    assert!(has(&scripted, "{\"type\":\"stale\""), "{:?}", scripted.output);
    assert!(scripted.output.last().unwrap().contains("is silent"), "{:?}", scripted.output);
}

/// Before, a connection that was cut within such a line led to the same watch for ever.
#[test]
fn a_line_over_the_limit_leads_to_a_list() {
    let long = format!("{{\"type\":\"ADDED\",\"object\":\"{}\"}}\n", "x".repeat(3_000_000));
    for bytes in [long.as_bytes(), &long.as_bytes()[..2_500_000]] {
        let mut scripted = listed();
        scripted.receive(&[WATCH, &chunk(bytes)].concat(), 60_000);
        scripted.end(HangUp::Reset);
        scripted.pass(1000);
        assert!(!scripted.last_asked().contains("resourceVersion=7&"), "{:?}", scripted.asked);
        assert!(scripted.informer.cost() < 8192, "{} bytes", scripted.informer.cost());
    }
}

/// Pages that are slower than the server's history would expire for ever.
#[test]
fn pages_that_expire_are_followed_by_a_whole_list() {
    let page = b"{\"metadata\":{\"resourceVersion\":\"7\",\"continue\":\"x\"},\"items\":[]}";
    let mut scripted = Scripted::new(Format::Json);
    scripted.receive(&list(page), usize::MAX);
    assert!(scripted.last_asked().contains("continue=x "), "{:?}", scripted.asked);
    scripted.receive(&status(410), usize::MAX);
    scripted.wait();
    assert!(scripted.last_asked().contains("?resourceVersion= "), "{:?}", scripted.asked);
    scripted.receive(&list(LIST), 100);
    assert!(scripted.last_asked().contains("resourceVersion=7&"), "{:?}", scripted.asked);
    scripted.receive(&status(410), usize::MAX);
    scripted.wait();
    assert!(is_paged(scripted.last_asked()), "pages again: {:?}", scripted.asked);
}

/// A version that expires once is no reason to worry; one that expires again and again is.
#[test]
fn versions_that_keep_expiring_are_stale() {
    let mut scripted = listed();
    scripted.receive(&[WATCH, &bookmark("7", false)].concat(), usize::MAX);
    scripted.output.clear();
    scripted.receive(&event("ERROR", "{\"code\":410}"), usize::MAX);
    assert!(scripted.output.is_empty(), "{:?}", scripted.output);
    scripted.receive(&list(LIST), usize::MAX);
    scripted.receive(&status(410), usize::MAX);
    assert!(scripted.output[0].contains("ends the watch with 410"), "{:?}", scripted.output);
}

/// A server that was down for long has often forgotten the version when it is back. It answers, so
/// that the pause of up to half a minute would only delay the changes.
#[test]
fn after_an_outage_an_expired_version_leads_to_a_list_at_once() {
    let mut scripted = listed();
    scripted.receive(&[WATCH, &bookmark("7", false)].concat(), usize::MAX);
    for _ in 0..8 {
        scripted.end(HangUp::Reset);
        scripted.wait();
    }
    assert!(scripted.last_asked().contains("resourceVersion=7&"), "{:?}", scripted.asked);
    let back_ns = scripted.now_ns;
    scripted.receive(&status(410), usize::MAX);
    assert!(is_paged(scripted.last_asked()), "{:?}", scripted.asked);
    assert_eq!(scripted.now_ns, back_ns);
}

/// As after a database was restored: the version lies in the future, and the server sends nothing.
#[test]
fn a_watch_that_says_nothing_to_its_end_leads_to_a_list() {
    for (last_words, lists) in [(Vec::new(), true), (bookmark("7", false), false)] {
        let mut scripted = listed();
        scripted.receive(WATCH, usize::MAX);
        let asked = scripted.last_asked();
        let seconds = asked.split("timeoutSeconds=").nth(1).unwrap().split(' ').next().unwrap();
        scripted.pass(seconds.parse::<u64>().unwrap() * 1000);
        scripted.receive(&[&last_words[..], b"0\r\n\r\n"].concat(), usize::MAX);
        assert_eq!(scripted.informer.figures.relists, u64::from(lists));
    }
}

/// Objects beyond the limit were dropped without a word.
#[test]
fn more_objects_than_are_stored_are_reported() {
    const LIMIT: usize = 50_000;
    let body = |objects: usize| {
        let items: Vec<String> = (0..objects).map(|at| object(&format!("d{at}"), "5")).collect();
        let items = items.join(",");
        list(
            format!("{{\"metadata\":{{\"resourceVersion\":\"7\"}},\"items\":[{items}]}}")
                .as_bytes(),
        )
    };
    let mut scripted = Scripted::new(Format::Json);
    scripted.receive(&body(LIMIT + 1), 1 << 20);
    scripted.receive(&[WATCH, &bookmark("7", false)].concat(), usize::MAX);
    let last = scripted.output.last().unwrap();
    assert!(last.starts_with(SYNCED) && last.ends_with(TRUNCATED), "{last}");
    assert!(scripted.informer.feed.is_truncated());
    // With room again, a list shows the others.
    scripted.receive(&event("DELETED", &object("d0", "9")), usize::MAX);
    scripted.receive(b"0\r\n\r\n", usize::MAX);
    assert!(is_paged(scripted.last_asked()), "{:?}", scripted.asked);
    scripted.output.clear();
    scripted.receive(&body(LIMIT), 1 << 20);
    scripted.receive(&[WATCH, &bookmark("7", false)].concat(), usize::MAX);
    let synced = scripted.output.last().unwrap();
    assert!(synced.starts_with(SYNCED) && !synced.contains("truncated"), "{synced}");
    // One more while watching.
    scripted.receive(&event("ADDED", &object("more", "10")), usize::MAX);
    let last = scripted.output.last().unwrap();
    assert!(last.starts_with(SYNCED) && last.ends_with(TRUNCATED), "{last}");
    assert_eq!(scripted.informer.feed.objects(), LIMIT);
}

/// So are objects that cannot be read.
#[test]
fn objects_that_are_skipped_are_reported() {
    let body = b"{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[{\"metadata\":{}}]}";
    let mut scripted = Scripted::new(Format::Json);
    scripted.receive(&list(body), usize::MAX);
    scripted.receive(&[WATCH, &bookmark("7", false)].concat(), usize::MAX);
    assert!(scripted.output[0].contains("\"truncated\":true"), "{:?}", scripted.output);
}

/// Images that are too many or too long are cut; the cut is marked, and changes beyond it count.
#[test]
fn images_that_are_cut_are_marked() {
    let with = |last: &str, version: &str| {
        let long = "i".repeat(100);
        let mut images: Vec<String> =
            (0..12).map(|_| format!("{{\"image\":\"{long}\"}}")).collect();
        images.push(format!("{{\"image\":\"{last}\"}}"));
        let spec = format!(
            ",\"spec\":{{\"template\":{{\"spec\":{{\"containers\":[{}]}}}}}}}}",
            images.join(",")
        );
        format!("{}{spec}", object("a", version).strip_suffix('}').unwrap())
    };
    let mut scripted = listed();
    scripted.receive(&[WATCH, &event("ADDED", &with("x:1", "8"))].concat(), usize::MAX);
    scripted.receive(&event("MODIFIED", &with("x:2", "9")), usize::MAX);
    let last = scripted.output.last().unwrap();
    assert!(last.contains("\"imagesTruncated\":true,\"changed\":[\"image\"]"), "{last}");
}

/// A deletion that happened while nobody was there is kept for one that comes back, also if it then
/// falls out of the ring.
#[test]
fn a_viewer_that_comes_back_and_falls_behind_gets_the_deletion() {
    let mut scripted = listed();
    scripted.receive(&[WATCH, &event("ADDED", &object("b", "8"))].concat(), usize::MAX);
    scripted.receive(&event("MODIFIED", &object("a", "9")), usize::MAX);
    scripted.informer.feed.leave(VIEWER);
    scripted.receive(&event("DELETED", &object("b", "10")), usize::MAX);
    let late = Id { key: 2, generation: 0 };
    let filter = Filter { format: Format::Json, ..Filter::default() };
    scripted.informer.feed.join_since(late, filter, "9");
    for version in 11..1200 {
        scripted.receive(&event("MODIFIED", &object("a", &version.to_string())), usize::MAX);
    }
    let mut seen = Vec::new();
    let now = scripted.now();
    let then = scripted.informer.feed.speak(now, late, &mut |encoded| {
        let texts = encoded.payloads().map(|text| String::from_utf8_lossy(text).into_owned());
        seen.extend(texts);
        1
    });
    assert_eq!((then, seen.len()), (Then::Wait, 3), "{seen:?}");
    assert!(seen[0].contains("\"deleted\"") && seen[0].contains("\"b\""), "{seen:?}");
    assert!(seen[1].contains("\"modified\"") && seen[1].contains("\"1199\""), "{seen:?}");
}

// ---- lists as streams ----

#[test]
fn a_recorded_stream_is_a_list_and_a_watch() {
    let lines = fixture("watchlist-1.36.2.ndjson");
    let lines = lines.split_inclusive(|b| *b == b'\n');
    let bytes = [WATCH.to_vec(), lines.flat_map(chunk).collect()].concat();
    for size in [1, 7, 64, 1000, usize::MAX] {
        let mut scripted = Scripted::streaming(Format::Json);
        assert!(
            scripted.last_asked().contains(
                "?watch=true&allowWatchBookmarks=true&sendInitialEvents=true\
                 &resourceVersionMatch=NotOlderThan&timeoutSeconds="
            ),
            "{:?}",
            scripted.asked
        );
        scripted.receive(&bytes, size);
        let output = &scripted.output;
        assert_eq!(output.len(), 2, "{output:?}");
        assert!(output[0].contains("\"added\"") && output[0].contains("\"hello\""), "{output:?}");
        assert!(output[1].starts_with(SYNCED) && output[1].contains("\"263\""), "{output:?}");
        scripted.receive(&event("ADDED", &object("b", "300")), size);
        assert!(has(&scripted, "{\"type\":\"added\""), "it goes on as a watch");
        scripted.receive(b"0\r\n\r\n", usize::MAX);
        assert!(scripted.last_asked().contains("resourceVersion=300&"), "{:?}", scripted.asked);
    }
}

/// What is not among the initial events was deleted; before their end nothing is.
#[test]
fn a_stream_deletes_what_is_gone_at_its_end() {
    let mut scripted = Scripted::streaming(Format::Json);
    let initial = [event("ADDED", &object("a", "1")), event("ADDED", &object("b", "2"))].concat();
    scripted.receive(&[WATCH, &initial, &bookmark("3", true)].concat(), usize::MAX);
    scripted.receive(&event("ERROR", "{\"code\":410}"), usize::MAX);
    scripted.output.clear();
    assert!(scripted.last_asked().contains("sendInitialEvents"), "{:?}", scripted.asked);
    scripted.receive(&[WATCH, &event("ADDED", &object("b", "2"))].concat(), usize::MAX);
    scripted.receive(&bookmark("8", false), usize::MAX);
    assert!(scripted.output.is_empty(), "{:?}", scripted.output);
    scripted.receive(&event("DELETED", &object("b", "9")), usize::MAX);
    scripted.receive(&event("ADDED", &object("c", "4")), usize::MAX);
    scripted.receive(&event("MODIFIED", &object("c", "10")), usize::MAX);
    scripted.receive(&bookmark("11", true), usize::MAX);
    let contents = scripted.informer.feed.contents();
    assert_eq!(contents, [("n/c".to_owned(), "c".to_owned(), "10".to_owned())]);
    let kinds: Vec<&str> =
        scripted.output.iter().map(|line| line.split('"').nth(3).unwrap()).collect();
    assert_eq!(kinds, ["deleted", "added", "modified", "deleted"]);
}

/// Servers from 1.19 on refuse the parameters, older ones ignore them.
#[test]
fn servers_without_streams_are_asked_for_pages() {
    for answer in [NO_STREAM.to_vec(), status(400), status(404)] {
        let mut scripted = Scripted::streaming(Format::Json);
        scripted.receive(&answer, usize::MAX);
        assert!(is_paged(scripted.last_asked()), "at once: {:?}", scripted.asked);
        assert!(scripted.output.is_empty(), "nothing is wrong: {:?}", scripted.output);
        scripted.receive(&list(LIST), usize::MAX);
        scripted.receive(&status(410), usize::MAX);
        scripted.wait();
        assert!(is_paged(scripted.last_asked()), "it is remembered: {:?}", scripted.asked);
    }
    let mut scripted = Scripted::streaming(Format::Json);
    scripted.receive(&[WATCH, &event("ADDED", &object("a", "1"))].concat(), usize::MAX);
    for version in ["2", "3", "4"] {
        scripted.pass(3000);
        scripted.receive(&event("MODIFIED", &object("a", version)), usize::MAX);
    }
    scripted.pass(999);
    assert_eq!(scripted.asked.len(), 1);
    scripted.pass(1);
    assert!(is_paged(scripted.last_asked()), "{:?}", scripted.asked);
    assert!(scripted.output.is_empty(), "{:?}", scripted.output);
}

/// A stream that fails is stale for the usual reasons, and pages follow; the next list may be a
/// stream again.
#[test]
fn a_stream_that_fails_is_followed_by_pages() {
    let begun = [WATCH, &event("ADDED", &object("a", "1"))].concat();
    let error = [&begun[..], &event("ERROR", "{\"code\":500}")].concat();
    let ended = [&begun[..], b"0\r\n\r\n"].concat();
    for (bytes, reason) in [
        (status(500), "answers 500"),
        (status(403), "forbidden"),
        (begun, "is lost"),
        (error, "with 500"),
        (ended, "no list"),
    ] {
        let mut scripted = Scripted::streaming(Format::Json);
        scripted.receive(&bytes, usize::MAX);
        scripted.end(HangUp::Reset);
        assert!(scripted.output[0].contains(reason), "{:?}", scripted.output);
        assert_eq!(scripted.output.len(), 1, "an incomplete list has no effect");
        scripted.wait();
        assert!(is_paged(scripted.last_asked()), "{:?}", scripted.asked);
        scripted.receive(&list(LIST), usize::MAX);
        scripted.receive(&status(410), usize::MAX);
        scripted.pass(30_000);
        assert!(scripted.last_asked().contains("sendInitialEvents"), "{:?}", scripted.asked);
    }
}

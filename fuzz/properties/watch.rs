//! Arbitrary answers of an API server: the output to viewers and the next request do not depend on
//! cuts, memory stays in bounds, and no object is deleted before it is added.

#[cfg(feature = "informer")]
use std::collections::BTreeSet;

#[cfg(feature = "informer")]
use wspulse::engine::{HangUp, Id, Now};
#[cfg(feature = "informer")]
use wspulse::options::proxies::Proxies;
#[cfg(feature = "informer")]
use wspulse::parts::informer::access::Access;
#[cfg(feature = "informer")]
use wspulse::parts::informer::{Filter, Format, Informer, Plan, Resource, Step};

#[cfg(feature = "informer")]
use super::input::{self, Cuts};

/// Separates two answers: the second one is delivered after the next request.
#[cfg(feature = "informer")]
const NEXT: &[u8] = b"\x02\x02";

/// Before the first answer: that is for the streamed list. Else the server does not offer it.
#[cfg(feature = "informer")]
const STREAM: &[u8] = b"\x03";

#[cfg(feature = "informer")]
const NO_STREAM: &[u8] = b"HTTP/1.1 422 X\r\nContent-Length: 0\r\n\r\n";

/// A build without the informer has none of this.
#[cfg(not(feature = "informer"))]
pub fn watch(_: &[u8]) {}

/// See the module's head.
#[cfg(feature = "informer")]
pub fn watch(data: &[u8]) {
    let (cuts, answers) = input::cuts(data);
    let (whole, _) = read(answers, &Cuts::none());
    for cuts in [&cuts, &Cuts::everywhere()] {
        match read(answers, cuts) {
            (events, Extent::All) => assert_eq!(events, whole, "cut at {cuts:?}"),
            (events, Extent::UpToUnsolicited) => {
                assert!(whole.starts_with(&events), "cut at {cuts:?}");
            }
        }
    }
    let mut shown = BTreeSet::new();
    for event in &whole {
        let Some(rest) = event.strip_prefix("{\"type\":\"") else { continue };
        let (kind, rest) = rest.split_once('"').unwrap_or((rest, ""));
        let name = rest.split("\"resourceVersion\"").next().unwrap_or_default().to_owned();
        match kind {
            "added" => assert!(shown.insert(name), "added twice: {event}"),
            "modified" => assert!(shown.contains(&name), "modified before it was added: {event}"),
            "deleted" => assert!(shown.remove(&name), "deleted twice: {event}"),
            _ => {}
        }
    }
}

/// How much of the answers was read.
#[cfg(feature = "informer")]
enum Extent {
    All,
    /// Up to bytes after a complete answer: in the same read they end the connection, in a later
    /// read they would be taken for the answer to the next request.
    UpToUnsolicited,
}

/// The output to a viewer and the requests, in order.
#[cfg(feature = "informer")]
fn read(answers: &[u8], cuts: &Cuts) -> (Vec<String>, Extent) {
    let access = Access::from_url("http://127.0.0.1:8001").expect("a URL");
    let resource = Resource::ALL[answers.len() % 4];
    let (namespace, origin, proxies) = (String::new(), None, Proxies::default());
    let plan = Plan { access, resource, namespace, always: false, origin, proxies };
    let mut informer = Informer::new(plan, 7);
    let mut now = Now { mono_ns: 1_000_000_000, wall_ms: 1_795_230_000_000 };
    let viewer = Id { key: 0, generation: 0 };
    informer.feed.join(viewer, Filter { format: Format::Json, ..Filter::default() });
    let mut events = Vec::new();
    let mut rest = answers.strip_prefix(STREAM).unwrap_or(answers);
    if rest.len() == answers.len() {
        settle(&mut informer, now, &mut events);
        informer.received(now, NO_STREAM, &mut Vec::new());
    }
    while !rest.is_empty() {
        let end = rest.windows(2).position(|two| two == NEXT);
        let (answer, behind) = match end {
            Some(end) => (&rest[..end], &rest[end + 2..]),
            None => (rest, &[][..]),
        };
        rest = behind;
        let mut open = settle(&mut informer, now, &mut events);
        for _ in 0..3 {
            // Waits for the end of a pause, so that there is a connection.
            if open {
                break;
            }
            now.mono_ns = informer.next_deadline().unwrap_or(now.mono_ns).max(now.mono_ns);
            informer.fire(now);
            open = settle(&mut informer, now, &mut events);
        }
        let mut answered = false;
        let mut parts = cuts.parts(answer).filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            let mut out = Vec::new();
            informer.received(now, part, &mut out);
            if !out.is_empty() {
                if parts.peek().is_some() {
                    return (events, Extent::UpToUnsolicited);
                }
                events.push(String::from_utf8_lossy(&out).into_owned());
                answered = true;
            }
        }
        let before = events.len();
        settle(&mut informer, now, &mut events);
        if !answered && events.len() == before {
            informer.ended(now, HangUp::Eof);
        }
        tell(&mut informer, now, viewer, &mut events);
        assert!(informer.cost() <= 64 * 1024 + 64 * answers.len(), "memory grows");
    }
    (events, Extent::All)
}

/// Carries out its actions; returns whether a request is pending.
#[cfg(feature = "informer")]
fn settle(informer: &mut Informer, now: Now, events: &mut Vec<String>) -> bool {
    let mut open = true;
    informer.update_demand(now);
    while let Some(step) = informer.poll() {
        match step {
            Step::Connect(_) => {
                let mut out = Vec::new();
                informer.connected(now, Ok(()), &mut out);
                events.push(String::from_utf8_lossy(&out).into_owned());
                open = true;
            }
            Step::HangUp => open = false,
            Step::Read(_) => {}
        }
    }
    open
}

#[cfg(feature = "informer")]
fn tell(informer: &mut Informer, now: Now, viewer: Id, events: &mut Vec<String>) {
    informer.feed.speak(now, viewer, &mut |encoded| {
        let payloads = encoded.payloads().map(|one| String::from_utf8_lossy(one).into_owned());
        events.extend(payloads);
        1
    });
}

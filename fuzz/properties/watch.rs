//! An API server may say anything: what viewers hear and what is asked next is the same wherever
//! its answers are cut, memory stays in bounds, and what is shown has no end before its beginning.

#[cfg(feature = "informer")]
use std::collections::BTreeSet;

#[cfg(feature = "informer")]
use wspulse::engine::{HangUp, Id, Now};
#[cfg(feature = "informer")]
use wspulse::parts::informer::access::Access;
#[cfg(feature = "informer")]
use wspulse::parts::informer::{Filter, Format, Informer, Plan, Step};

#[cfg(feature = "informer")]
use super::input::{self, Cuts};

/// Between two answers: the second is heard when something was asked again.
#[cfg(feature = "informer")]
const NEXT: &[u8] = b"\x02\x02";

/// A build without the informer hears nothing.
#[cfg(not(feature = "informer"))]
pub fn watch(_: &[u8]) {}

/// See the module's head.
#[cfg(feature = "informer")]
pub fn watch(data: &[u8]) {
    let (cuts, answers) = input::cuts(data);
    let (whole, _) = hear(answers, &Cuts::none());
    for cuts in [&cuts, &Cuts::everywhere()] {
        match hear(answers, cuts) {
            (said, Heard::All) => assert_eq!(said, whole, "cut at {cuts:?}"),
            (said, Heard::UpToTheUnasked) => assert!(whole.starts_with(&said), "cut at {cuts:?}"),
        }
    }
    let mut shown = BTreeSet::new();
    for said in &whole {
        let Some(rest) = said.strip_prefix("{\"type\":\"") else { continue };
        let (kind, rest) = rest.split_once('"').unwrap_or((rest, ""));
        let name = rest.split("\"resourceVersion\"").next().unwrap_or_default().to_owned();
        match kind {
            "added" => assert!(shown.insert(name), "added twice: {said}"),
            "modified" => assert!(shown.contains(&name), "modified before it was added: {said}"),
            "deleted" => assert!(shown.remove(&name), "deleted twice: {said}"),
            _ => {}
        }
    }
}

/// How much of the answers was heard.
#[cfg(feature = "informer")]
enum Heard {
    All,
    /// Up to bytes behind an answer that come after the next question: in one read with that
    /// answer they break the connection, after the question they are taken for what was asked.
    UpToTheUnasked,
}

/// What is said to a viewer and asked of the server, in order.
#[cfg(feature = "informer")]
fn hear(answers: &[u8], cuts: &Cuts) -> (Vec<String>, Heard) {
    let access = Access::from_url("http://127.0.0.1:8001").expect("a URL");
    let plan = Plan { access, namespace: String::new(), always: false, origin: None };
    let mut informer = Informer::new(plan, 7);
    let mut now = Now { mono_ns: 1_000_000_000, wall_ms: 1_795_230_000_000 };
    let viewer = Id { key: 0, generation: 0 };
    informer.feed.join(viewer, Filter { format: Format::Json, ..Filter::default() });
    let mut said = Vec::new();
    let mut rest = answers;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|two| two == NEXT);
        let (answer, behind) = match end {
            Some(end) => (&rest[..end], &rest[end + 2..]),
            None => (rest, &[][..]),
        };
        rest = behind;
        let mut open = settle(&mut informer, now, &mut said);
        for _ in 0..3 {
            // A pause is waited for, so that there is somebody to be answered.
            if open {
                break;
            }
            now.mono_ns = informer.next_deadline().unwrap_or(now.mono_ns).max(now.mono_ns);
            informer.fire(now);
            open = settle(&mut informer, now, &mut said);
        }
        let mut answered = false;
        let mut parts = cuts.parts(answer).filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            let mut out = Vec::new();
            informer.received(now, part, &mut out);
            if !out.is_empty() {
                if parts.peek().is_some() {
                    return (said, Heard::UpToTheUnasked);
                }
                said.push(String::from_utf8_lossy(&out).into_owned());
                answered = true;
            }
        }
        let before = said.len();
        settle(&mut informer, now, &mut said);
        if !answered && said.len() == before {
            informer.ended(now, HangUp::Eof);
        }
        tell(&mut informer, now, viewer, &mut said);
        assert!(informer.cost() <= 64 * 1024 + 64 * answers.len(), "memory grows");
    }
    (said, Heard::All)
}

/// Carries out what it wants; whether a question stands.
#[cfg(feature = "informer")]
fn settle(informer: &mut Informer, now: Now, said: &mut Vec<String>) -> bool {
    let mut open = true;
    informer.update_demand(now);
    while let Some(step) = informer.poll() {
        match step {
            Step::Connect(_) => {
                let mut out = Vec::new();
                informer.connected(now, Ok(()), &mut out);
                said.push(String::from_utf8_lossy(&out).into_owned());
                open = true;
            }
            Step::HangUp => open = false,
            Step::Read(_) => {}
        }
    }
    open
}

#[cfg(feature = "informer")]
fn tell(informer: &mut Informer, now: Now, viewer: Id, said: &mut Vec<String>) {
    informer.feed.speak(now, viewer, &mut |encoded| {
        let payloads = encoded.payloads().map(|one| String::from_utf8_lossy(one).into_owned());
        said.extend(payloads);
        1
    });
}

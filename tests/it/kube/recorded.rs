//! What API servers 1.20.2 and 1.36.2 really said (`tests/fixtures/kube`), cut anywhere.

use wspulse::engine::HangUp;
use wspulse::parts::informer::Format;

use super::scripted::{Scripted, WATCH, chunk, list};

fn fixture(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kube");
    std::fs::read(folder.join(name)).unwrap()
}

const EMPTY: &[u8] = b"{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[]}";

/// A watch, in chunks as a server sends them: a line each.
fn watch(name: &str, size: usize, format: Format) -> Scripted {
    let mut told = Scripted::new(format);
    told.hear(&list(EMPTY), usize::MAX);
    let lines = fixture(name);
    let lines = lines.split_inclusive(|b| *b == b'\n');
    let bytes = [WATCH.to_vec(), lines.flat_map(chunk).collect()].concat();
    told.hear(&bytes, size);
    told
}

#[test]
fn recorded_watches_read_the_same_wherever_they_are_cut() {
    for name in ["deployments-watch-1.20.2.ndjson", "deployments-watch-1.36.2.ndjson"] {
        for format in [Format::Text, Format::Json] {
            let whole = watch(name, usize::MAX, format).heard;
            for size in [1, 2, 3, 7, 64, 1000, 4096, 65_536] {
                assert_eq!(watch(name, size, format).heard, whole, "{name} in pieces of {size}");
            }
        }
        let said = watch(name, usize::MAX, Format::Text).heard.join("\n");
        for sentence in [
            "Successfully processed deployment: hello",
            "updated - Replicas changed: ",
            "Deployment hello deleted\nDeployment default/hello has been deleted",
        ] {
            assert!(said.contains(sentence), "{name}: no {sentence:?} in {said}");
        }
        let told = watch(name, 4096, Format::Json);
        assert!(told.informer.feed.contents().is_empty(), "it was deleted at the end");
        assert_eq!(told.informer.figures.watch_errors, 0, "every line of {name} means something");
    }
}

/// After the recording, cut anywhere within its last lines, only whole lines count.
#[test]
fn a_recording_that_breaks_off_is_its_whole_lines() {
    let lines = fixture("deployments-watch-1.36.2.ndjson");
    let all: Vec<&[u8]> = lines.split_inclusive(|b| *b == b'\n').collect();
    let mut told = Scripted::new(Format::Json);
    told.hear(&list(EMPTY), usize::MAX);
    let half = &all[1][..all[1].len() / 2];
    told.hear(&[WATCH, &chunk(all[0]), &chunk(half)].concat(), usize::MAX);
    let heard = told.heard.len();
    told.end(HangUp::Reset);
    assert!(told.heard[heard].starts_with("{\"type\":\"stale\""), "{:?}", told.heard);
    told.wait();
    let again = told.asked.last().unwrap();
    assert!(again.contains("watch=true") && again.contains("resourceVersion=215&"), "{again}");
}

#[test]
fn recorded_lists() {
    let mut told = Scripted::new(Format::Text);
    told.hear(&list(&fixture("list-page1-1.20.2.json")), 13);
    let more = told.asked.last().unwrap();
    let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MzczLCJzdGFydCI6ImRiXHUwMDAwIn0";
    assert!(more.contains(&format!("?limit=50&continue={token} ")), "{more}");
    assert!(told.heard.is_empty(), "half a list is none");
    told.hear(&list(&fixture("list-1.36.2.json")), 1000);
    let names: Vec<String> =
        told.informer.feed.contents().into_iter().map(|(name, ..)| name).collect();
    assert!(names.contains(&"default/da".to_owned()), "{names:?}");
    assert!(names.len() > 1, "{names:?}");
    assert!(told.asked.last().unwrap().contains("resourceVersion=373&"), "{:?}", told.asked);
}

#[test]
fn recorded_refusals() {
    let mut told = Scripted::new(Format::Json);
    let body = fixture("list-403-1.20.2.json");
    let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n", body.len());
    told.hear(&[head.as_bytes(), &body].concat(), usize::MAX);
    assert!(told.heard[0].contains("the role may not list and watch deployments"));
    told.wait();
    told.hear(&list(EMPTY), usize::MAX);
    told.hear(&[WATCH, &chunk(&fixture("watch-410-1.20.2.ndjson"))].concat(), 5);
    told.wait();
    assert!(told.asked.last().unwrap().contains("?limit=50 "), "{:?}", told.asked);
    assert_eq!(told.informer.figures.relists, 1);
}

//! Recordings of Kubernetes 1.20.2 and 1.36.2 (`tests/fixtures/kube`), cut at any byte.

use wspulse::engine::HangUp;
use wspulse::parts::informer::Format;

use super::scripted::{Scripted, WATCH, chunk, list};

pub(super) fn fixture(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kube");
    std::fs::read(folder.join(name)).unwrap()
}

const EMPTY: &[u8] = b"{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[]}";

/// A watch in chunks of one line, as the server sends it.
fn watch(name: &str, size: usize, format: Format) -> Scripted {
    let mut scripted = Scripted::new(format);
    scripted.receive(&list(EMPTY), usize::MAX);
    let lines = fixture(name);
    let lines = lines.split_inclusive(|b| *b == b'\n');
    let bytes = [WATCH.to_vec(), lines.flat_map(chunk).collect()].concat();
    scripted.receive(&bytes, size);
    scripted
}

#[test]
fn recorded_watches_read_the_same_wherever_they_are_cut() {
    for name in ["deployments-watch-1.20.2.ndjson", "deployments-watch-1.36.2.ndjson"] {
        for format in [Format::Text, Format::Json] {
            // Where `synced` stands depends on when a viewer is served.
            let output = |size| {
                let mut output = watch(name, size, format).output;
                output.retain(|line| !line.starts_with("{\"type\":\"synced\""));
                output
            };
            let whole = output(usize::MAX);
            for size in [1, 2, 3, 7, 64, 1000, 4096, 65_536] {
                assert_eq!(output(size), whole, "{name} in pieces of {size}");
            }
        }
        let output = watch(name, usize::MAX, Format::Text).output.join("\n");
        for sentence in [
            "Successfully processed deployment: hello",
            "updated - Replicas changed: ",
            "Deployment hello deleted\nDeployment default/hello has been deleted",
        ] {
            assert!(output.contains(sentence), "{name}: no {sentence:?} in {output}");
        }
        let scripted = watch(name, 4096, Format::Json);
        assert!(scripted.informer.feed.contents().is_empty(), "it was deleted at the end");
        assert_eq!(scripted.informer.figures.watch_errors, 0, "each line of {name} is understood");
    }
}

/// A recording that is cut within its last lines counts as its complete lines.
#[test]
fn only_complete_lines_of_a_cut_recording_count() {
    let lines = fixture("deployments-watch-1.36.2.ndjson");
    let all: Vec<&[u8]> = lines.split_inclusive(|b| *b == b'\n').collect();
    let mut scripted = Scripted::new(Format::Json);
    scripted.receive(&list(EMPTY), usize::MAX);
    let half = &all[1][..all[1].len() / 2];
    scripted.receive(&[WATCH, &chunk(all[0]), &chunk(half)].concat(), usize::MAX);
    let output = scripted.output.len();
    scripted.end(HangUp::Reset);
    assert!(scripted.output[output].starts_with("{\"type\":\"stale\""), "{:?}", scripted.output);
    scripted.wait();
    let again = scripted.asked.last().unwrap();
    assert!(again.contains("watch=true") && again.contains("resourceVersion=215&"), "{again}");
}

#[test]
fn recorded_lists() {
    let mut scripted = Scripted::new(Format::Text);
    scripted.receive(&list(&fixture("list-page1-1.20.2.json")), 13);
    let more = scripted.asked.last().unwrap();
    let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MzczLCJzdGFydCI6ImRiXHUwMDAwIn0";
    assert!(more.contains(&format!("?limit=50&continue={token} ")), "{more}");
    assert!(scripted.output.is_empty(), "an incomplete list has no effect");
    scripted.receive(&list(&fixture("list-1.36.2.json")), 1000);
    let names: Vec<String> =
        scripted.informer.feed.contents().into_iter().map(|(name, ..)| name).collect();
    assert!(names.contains(&"default/da".to_owned()), "{names:?}");
    assert!(names.len() > 1, "{names:?}");
    assert!(
        scripted.asked.last().unwrap().contains("resourceVersion=373&"),
        "{:?}",
        scripted.asked
    );
}

#[test]
fn recorded_refusals() {
    let mut scripted = Scripted::new(Format::Json);
    let body = fixture("list-403-1.20.2.json");
    let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n", body.len());
    scripted.receive(&[head.as_bytes(), &body].concat(), usize::MAX);
    assert!(scripted.output[0].contains("the role may not list and watch deployments"));
    scripted.wait();
    scripted.receive(&list(EMPTY), usize::MAX);
    scripted.receive(&[WATCH, &chunk(&fixture("watch-410-1.20.2.ndjson"))].concat(), 5);
    scripted.wait();
    assert!(scripted.asked.last().unwrap().contains("?limit=50 "), "{:?}", scripted.asked);
    assert_eq!(scripted.informer.figures.relists, 1);
}

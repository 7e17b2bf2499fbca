//! Replays `fuzz/corpus` and `fuzz/regressions` through the properties of the fuzzer. Inputs that
//! begin with their cuts are cut in other ways as well. How to fuzz: `fuzz/README.md`.

#[expect(unreachable_pub, reason = "the fuzz targets reach it from another crate")]
#[path = "../../fuzz/properties/mod.rs"]
mod properties;
#[path = "../../fuzz/seeds.rs"]
mod seeds;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use properties::{PROPERTIES, input};

/// Cuts: after each byte, small, and around the size of a head and of a read.
const CUTS: [&[u8]; 5] = [&[0], &[1], &[6], &[2, 40, 0], &[160, 255]];
/// Properties whose inputs begin with their cuts.
const CUT: [&str; 6] = ["answers", "aws", "head", "frames", "utf8", "watch"];

fn folder(kind: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(name)
}

/// Sorted files of a corpus, if it exists.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Replays the files of one property.
fn replay(name: &str) {
    let (_, property) = PROPERTIES.iter().find(|(known, _)| *known == name).unwrap();
    let mut played = 0;
    for path in ["corpus", "regressions"].iter().flat_map(|kind| files(&folder(kind, name))) {
        let input = fs::read(&path).unwrap();
        let shown = path.display();
        let play = |input: &[u8]| {
            let played = std::panic::catch_unwind(|| property(input));
            assert!(played.is_ok(), "property {name} fails for {shown}: {}", input.escape_ascii());
        };
        play(&input);
        if CUT.contains(&name) {
            for sizes in CUTS {
                play(&input::recut(&input, sizes));
            }
        }
        played += 1;
    }
    assert!(played >= 5, "the corpus of {name} is missing");
}

#[test]
fn corpora_of_head_hold() {
    replay("head");
}

#[test]
fn corpora_of_answers_hold() {
    replay("answers");
}

#[test]
fn corpora_of_aws_hold() {
    replay("aws");
}

#[test]
fn corpora_of_handshake_hold() {
    replay("handshake");
}

#[test]
fn corpora_of_frames_hold() {
    replay("frames");
}

#[test]
fn corpora_of_deflate_hold() {
    replay("deflate");
}

#[test]
fn corpora_of_proxy_hold() {
    replay("proxy");
}

#[test]
fn corpora_of_reports_hold() {
    replay("reports");
}

#[test]
fn corpora_of_utf8_hold() {
    replay("utf8");
}

#[test]
fn corpora_of_watch_hold() {
    replay("watch");
}

#[test]
fn corpora_of_gateway_hold() {
    replay("gateway");
}

/// Random sequences of operations.
#[test]
fn gateways_hold_at_random() {
    let mut rng = wspulse::rng::Rng::new(7);
    for _ in 0..2_000 {
        let play: Vec<u8> = (0..rng.below(400)).map(|_| rng.below(256) as u8).collect();
        properties::gateway(&play);
    }
}

#[test]
fn corpora_of_peers_hold() {
    replay("peers");
}

#[test]
fn peers_hold_at_random() {
    let mut rng = wspulse::rng::Rng::new(8);
    for _ in 0..3_000 {
        let play: Vec<u8> = (0..rng.below(300)).map(|_| rng.below(256) as u8).collect();
        properties::peers(&play);
    }
}

#[test]
fn corpora_of_server_hold() {
    replay("server");
}

/// `fuzz/corpus` is written by `UPDATE=1 cargo test corpora` from `fuzz/seeds.rs`.
#[test]
fn corpora_match_their_seeds() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut known = BTreeSet::new();
    for (corpus, name, bytes) in seeds::all() {
        let path = folder("corpus", corpus).join(name);
        assert!(known.insert(path.clone()), "duplicate {corpus}/{name}");
        assert!(bytes.len() < 4096, "{corpus}/{name} has {} bytes", bytes.len());
        if update {
            fs::create_dir_all(folder("corpus", corpus)).unwrap();
            fs::write(&path, bytes).unwrap();
        } else {
            let hint = "UPDATE=1 cargo test corpora writes it";
            assert!(fs::read(&path).is_ok_and(|found| found == bytes), "{corpus}/{name}: {hint}");
        }
    }
    for (name, _) in PROPERTIES {
        for path in files(&folder("corpus", name)) {
            assert!(known.contains(&path), "{} is not in seeds.rs", path.display());
        }
        assert!(folder("targets", &format!("{name}.rs")).exists(), "{name} has no target");
    }
}

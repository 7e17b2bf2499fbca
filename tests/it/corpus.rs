//! The fuzzer's properties, replayed: every file of `fuzz/corpus` and `fuzz/regressions`, and each
//! of those that says where it is cut also cut elsewhere. Fuzzing itself is `fuzz/README.md`'s.

#[expect(unreachable_pub, reason = "the fuzz targets reach it from another crate")]
#[path = "../../fuzz/properties/mod.rs"]
mod properties;
#[path = "../../fuzz/seeds.rs"]
mod seeds;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use properties::{PROPERTIES, input};

/// Cuts that every input gets: everywhere, small, and around the size of a head and of a read.
const CUTS: [&[u8]; 5] = [&[0], &[1], &[6], &[2, 40, 0], &[160, 255]];
/// Properties whose inputs begin with their cuts.
const CUT: [&str; 6] = ["answers", "aws", "head", "frames", "utf8", "watch"];

fn folder(kind: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(name)
}

/// Files of a corpus, in order; there need be none.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Plays one property's files; says which one it is when it fails.
fn replay(name: &str) {
    let (_, property) = PROPERTIES.iter().find(|(known, _)| *known == name).unwrap();
    let mut played = 0;
    for path in ["corpus", "regressions"].iter().flat_map(|kind| files(&folder(kind, name))) {
        let input = fs::read(&path).unwrap();
        let shown = path.display();
        let play = |input: &[u8]| {
            let played = std::panic::catch_unwind(|| property(input));
            assert!(played.is_ok(), "{name} does not hold for {shown}: {}", input.escape_ascii());
        };
        play(&input);
        if CUT.contains(&name) {
            for sizes in CUTS {
                play(&input::recut(&input, sizes));
            }
        }
        played += 1;
    }
    assert!(played >= 5, "the corpus of {name} is gone");
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

/// No seed is as good as dice: whole plays of operations.
#[test]
fn gateways_hold_at_random() {
    let mut rng = wspulse::rng::Rng::new(7);
    for _ in 0..2_000 {
        let play: Vec<u8> = (0..rng.below(400)).map(|_| rng.below(256) as u8).collect();
        properties::gateway(&play);
    }
}

#[test]
fn corpora_of_server_hold() {
    replay("server");
}

/// `fuzz/corpus` is what `fuzz/seeds.rs` says. `UPDATE=1 cargo test corpora` writes it.
#[test]
fn corpora_are_as_written() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut known = BTreeSet::new();
    for (corpus, name, bytes) in seeds::all() {
        let path = folder("corpus", corpus).join(name);
        assert!(known.insert(path.clone()), "{corpus}/{name} is there twice");
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
            assert!(known.contains(&path), "{} is in no list of seeds", path.display());
        }
        assert!(folder("targets", &format!("{name}.rs")).exists(), "{name} has no target");
    }
}

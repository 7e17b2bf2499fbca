//! Hops from seeds. Whatever they do to timing and to the borders of reads, nothing may be found
//! but the fault, if there is one.

use wspulse::rng::Rng;

use super::wrong::Wrong;
use super::{Case, cases, check};
use crate::os::Odds;

const SEEDS: u64 = 100;
const FAULTS: u64 = 40;

fn draw(seed: u64) -> Case {
    let mut rng = Rng::new(seed ^ 0x9e37);
    let odds = Odds {
        short: [0, 0, 200][rng.below(3) as usize],
        interrupted: [0, 0, 50][rng.below(3) as usize],
        spurious: [0, 0, 50][rng.below(3) as usize],
        stale_events: [0, 0, 50][rng.below(3) as usize],
        latency_ms: [0, 3, 20, 50][rng.below(4) as usize],
        capacity: [60_000, 1_000_000, usize::MAX][rng.below(3) as usize],
        ..Odds::NONE
    };
    let wrong = [Wrong::Nothing, Wrong::Lowercase, Wrong::AddsThere(&["Via: 1.1 hop"])];
    let wrong = wrong[rng.below(3) as usize];
    let name = format!("SEED={seed} {odds:?} {wrong:?}");
    let case = if rng.below(4) == 0 {
        Case::patient(&name, wrong).within(25_000)
    } else {
        Case::quick(&name, wrong).within(25_000)
    };
    let args = format!("{} --sockets {}", case.args, 1 + rng.below(16));
    Case { args, odds, seed, jitter: rng.below(2) == 0, has_hop: rng.below(8) > 0, ..case }
}

/// One of the faults, behind a line with jitter.
fn draw_fault(seed: u64, cases: &[Case]) -> Case {
    let mut rng = Rng::new(seed ^ 0x51f1);
    let case = cases[rng.below(cases.len() as u64) as usize].clone();
    let odds = Odds {
        short: [0, 200, 500][rng.below(3) as usize],
        latency_ms: [0, 5, 20, 50][rng.below(4) as usize],
        ..case.odds
    };
    let most_ms = case.most_ms + 20_000;
    let name = format!("SEED={seed} {odds:?} {}", case.name);
    let mut want = case.want.clone();
    // The hop's Close may come in the middle of a frame: then nothing is known.
    want.iter_mut().filter(|want| want.starts_with("age-close")).for_each(|want| {
        *want = "age-close|age-rst|nothing";
    });
    Case { name, odds, seed, jitter: true, most_ms, want, ..case }
}

#[test]
fn probes_of_random_harmless_hops() {
    run(SEEDS, draw);
}

#[test]
fn probes_of_faults_and_jitter() {
    let cases = cases::all();
    run(FAULTS, |seed| draw_fault(seed, &cases));
}

fn run(count: u64, draw: impl Fn(u64) -> Case) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("FIRST").unwrap_or(0);
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + number("SEEDS").unwrap_or(count),
    };
    for seed in seeds {
        let case = draw(seed);
        let outcome = std::panic::catch_unwind(|| check(&case).err());
        assert!(outcome.is_ok(), "SEED={seed} cargo test probes");
        if let Ok(Some(why)) = outcome {
            panic!("{why}");
        }
    }
}

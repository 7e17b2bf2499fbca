//! Workloads, and the server's CPU a message in each, beside another server in turn.

use std::io::{self, Read};
use std::process::{Child, Stdio};

use wspulse::behaviours::Kind;
use wspulse::engine::{Target, Trust};
use wspulse::load::{Answers, Life, Outcome, Pace, Plan, ServerKind, WhenLost};
use wspulse::proto::upgrade::Ask;

use crate::servers::{Server, on_core};

pub(crate) const ROUNDS: usize = 9;
/// The clients inflate each message alone, so a server must not refer to earlier ones.
const OFFER: &str = "permessage-deflate; server_no_context_takeover; client_max_window_bits";

/// Name; clients, bytes, messages under way, and how long they go on.
const WORKLOADS: &[(&str, &str)] = &[
    ("64 × 20 B", "64 20 1 time 1500"),
    ("1 × 20 B", "1 20 1 time 1500"),
    ("512 × 125 B", "512 125 1 time 1500"),
    ("64 × 20 B, 16 under way", "64 20 16 time 1500"),
    ("16 × 16 KiB", "16 16384 1 time 1500"),
    ("4 × 1 MiB", "4 1048576 1 time 1500"),
    ("handshake, echo, close", "64 20 1 churn 20000"),
];

/// Runs clients in this process; prints how many answers they got.
pub(crate) fn load(spec: &[&str]) -> io::Result<()> {
    let number = |at: usize| -> usize { spec.get(at).and_then(|n| n.parse().ok()).unwrap_or(0) };
    let Some(target) = spec.first().and_then(|text| text.parse().ok()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let unframed = spec.get(1) == Some(&"plain");
    let plan = Plan {
        targets: vec![match spec.get(1) {
            Some(&"tls") => Target::Tcp(target).secured("localhost", Trust::unverified()),
            _ => Target::Tcp(target),
        }],
        ask: Ask {
            host: "localhost".to_owned(),
            path: if spec.get(1) == Some(&"gateway") { "/gateway/prod" } else { "/echo" }
                .to_owned(),
            extensions: if spec.get(1) == Some(&"deflate") { OFFER } else { "" }.to_owned(),
            ..Ask::default()
        },
        clients: number(2),
        ramp: None,
        when_lost: WhenLost::Leave,
        size: number(3),
        pace: Pace::Closed { depth: number(4).max(1) },
        kind: Kind::Text,
        fragment: 0,
        server_kind: if unframed { ServerKind::PlainEcho } else { ServerKind::WebSocket },
        answers: Answers::Same,
        patience_ms: 10_000,
        progress_ms: None,
        start_ms: None,
        life: match spec.get(5) {
            Some(&"time") => Life::Time { ms: number(6) as u64 },
            Some(&"idle") => Life::Hold { messages: 1, ms: number(6) as u64 },
            Some(&"churn") => Life::Churn { connections: number(6) as u64 },
            _ => Life::Messages(number(6) as u64),
        },
    };
    let report = wspulse::run::load(plan).map_err(|error| io::Error::other(error.to_string()))?;
    // A client whose server answers the Close without its code ends with 1005.
    let clean = [1000, 1005].map(|code| report.ends.get(&Outcome::Closed(code)).unwrap_or(&0));
    if clean.into_iter().sum::<u64>() != report.ends.values().sum::<u64>() {
        let ends = format!("clients ended otherwise than by 1000: {:?}", report.ends);
        return Err(io::Error::other(ends));
    }
    println!("{}", report.answered);
    Ok(())
}

/// Starts clients on the other core.
pub(crate) fn start_load(server: &Server, server_kind: &str, spec: &str) -> io::Result<Child> {
    let own = std::env::current_exe()?;
    let mut command = on_core("1", &own.to_string_lossy());
    command.arg("load").arg(server.address.to_string()).arg(server_kind).args(spec.split(' '));
    command.stdout(Stdio::piped()).spawn()
}

/// How many answers the clients got.
pub(crate) fn finish_load(mut load: Child) -> io::Result<u64> {
    let mut text = String::new();
    if let Some(stdout) = &mut load.stdout {
        stdout.read_to_string(&mut text)?;
    }
    if !load.wait()?.success() {
        return Err(io::Error::other("the clients failed"));
    }
    text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Nanoseconds of the server's CPU a message.
pub(crate) fn cost(server: &Server, server_kind: &str, spec: &str) -> io::Result<f64> {
    let before = server.cpu_ns()?;
    let answers = finish_load(start_load(server, server_kind, spec)?)?;
    Ok((server.cpu_ns()? - before) as f64 / answers as f64)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The rows that are wanted, each server in turn: wspulse, and these other ones. A command starts
/// another WebSocket server; `plain` is the plain TCP echo.
pub(crate) fn table(beside: &[&str], wanted: impl Fn(&str) -> bool) -> io::Result<()> {
    println!(
        "| server CPU a message | beside | ratio, median of {ROUNDS} | min–max | wspulse | other |"
    );
    println!("|---|---|---|---|---|---|");
    for (name, spec) in WORKLOADS.iter().filter(|(name, _)| wanted(name)) {
        let ours = Server::wspulse()?;
        let mut others = Vec::new();
        for command in beside {
            others.push(match *command {
                "plain" => (Server::plain()?, "plain"),
                command => (Server::other(command)?, "websocket"),
            });
        }
        let mut pairs = vec![Vec::new(); others.len()];
        for _ in 0..ROUNDS {
            let ours_ns = cost(&ours, "websocket", spec)?;
            for ((other, server_kind), pairs) in others.iter().zip(&mut pairs) {
                pairs.push((ours_ns, cost(other, server_kind, spec)?));
            }
        }
        for (command, pairs) in beside.iter().zip(&pairs) {
            let program = command.split(' ').next().unwrap_or_default();
            row(&format!("{name} | {program}"), pairs);
        }
    }
    Ok(())
}

/// One row: the ratio of these pairs, and both medians.
pub(crate) fn row(name: &str, pairs: &[(f64, f64)]) {
    let ratios: Vec<f64> = pairs.iter().map(|(ours, other)| ours / other).collect();
    let low = ratios.iter().copied().fold(f64::MAX, f64::min);
    let high = ratios.iter().copied().fold(0.0, f64::max);
    println!(
        "| {name} | {:.2} | {low:.2}–{high:.2} | {:.2} µs | {:.2} µs |",
        median(ratios),
        median(pairs.iter().map(|pair| pair.0).collect()) / 1000.0,
        median(pairs.iter().map(|pair| pair.1).collect()) / 1000.0,
    );
}

//! Workloads, processes on cores of their own, and what the kernel counted for them.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use wspulse::behaviours::Kind;
use wspulse::load::{Life, Outcome, Partner, Plan};

const ROUNDS: usize = 5;
const SERVER: &str = env!("CARGO_BIN_EXE_wspulse");

/// A row: name, clients, bytes, depth, milliseconds.
const PING_PONG: &[(&str, usize, usize, usize)] = &[
    ("64 × 20 B", 64, 20, 1),
    ("1 × 20 B", 1, 20, 1),
    ("512 × 125 B", 512, 125, 1),
    ("64 × 20 B, 16 under way", 64, 20, 16),
    ("16 × 16 KiB", 16, 16 * 1024, 1),
    ("4 × 1 MiB", 4, 1024 * 1024, 1),
];

/// A server process, ended with this value.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn on_core(core: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core, program]);
    command
}

fn wspulse(more: &[&str]) -> io::Result<Server> {
    let mut command = on_core("0", SERVER);
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "off", "--log-format", "json"]);
    command.args(["--max-message", "2MiB"]).args(more).env("RUST_LOG", "warn,listening=info");
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
    let banner = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    let address = banner.split("\"address\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let address = address.and_then(|text| text.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    // Somebody has to take the other lines.
    std::thread::spawn(move || lines.for_each(drop));
    Ok(Server { child, address })
}

fn raw() -> io::Result<Server> {
    let own = std::env::current_exe()?;
    let mut child =
        on_core("0", &own.to_string_lossy()).arg("raw").stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?).read_line(&mut line)?;
    let address = line.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Server { child, address })
}

impl Server {
    /// Nanoseconds of CPU so far: of this process alone, whatever the machine does beside it.
    fn cpu_ns(&self) -> io::Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let stat = fs::read_to_string(task?.path().join("schedstat"))?;
            sum += stat.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum)
    }

    fn rss_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|n| n.parse().ok());
        kib.map(|kib: u64| kib * 1024).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Runs clients in this process; prints answers and connections.
pub(crate) fn load(spec: &[&str]) -> io::Result<()> {
    let number =
        |at: usize| -> usize { spec.get(at).and_then(|text| text.parse().ok()).unwrap_or(0) };
    let Some(target) = spec.first().and_then(|text| text.parse().ok()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let plan = Plan {
        target,
        host: "localhost".to_owned(),
        path: "/echo".to_owned(),
        clients: number(2),
        size: number(3),
        depth: number(4).max(1),
        kind: Kind::Text,
        fragment: 0,
        partner: if spec.get(1) == Some(&"raw") { Partner::PlainEcho } else { Partner::WebSocket },
        patience_ms: 10_000,
        life: match spec.get(5) {
            Some(&"time") => Life::Time { ms: number(6) as u64 },
            Some(&"idle") => Life::Idle { ms: number(6) as u64 },
            Some(&"churn") => Life::Churn { connections: number(6) as u64 },
            _ => Life::Messages(number(6) as u64),
        },
    };
    let report = wspulse::net::load(plan)?;
    let clean = report.ends.get(&Outcome::Closed(1000)).copied().unwrap_or(0);
    let all: u64 = report.ends.values().sum();
    if clean != all {
        return Err(io::Error::other(format!(
            "clients ended otherwise than by 1000: {:?}",
            report.ends
        )));
    }
    println!("{} {}", report.answered, report.opened);
    Ok(())
}

fn start_load(server: &Server, partner: &str, spec: &str) -> io::Result<Child> {
    let own = std::env::current_exe()?;
    let mut command = on_core("1", &own.to_string_lossy());
    command.arg("load").arg(server.address.to_string()).arg(partner).args(spec.split(' '));
    command.stdout(Stdio::piped()).spawn()
}

/// Answers that were counted.
fn finish_load(mut load: Child) -> io::Result<u64> {
    let mut text = String::new();
    if let Some(stdout) = &mut load.stdout {
        stdout.read_to_string(&mut text)?;
    }
    if !load.wait()?.success() {
        return Err(io::Error::other("the clients failed"));
    }
    text.split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Nanoseconds of the server's CPU a message.
fn cost(server: &Server, partner: &str, spec: &str) -> io::Result<f64> {
    let before = server.cpu_ns()?;
    let answers = finish_load(start_load(server, partner, spec)?)?;
    Ok((server.cpu_ns()? - before) as f64 / answers as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The whole table, or the rows that are named.
pub(crate) fn table(only: &[&str]) -> io::Result<()> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| name.contains(only));
    println!("| workload | CPU a message, wspulse : plain TCP echo | min–max | wspulse | plain |");
    println!("|---|---|---|---|---|");
    let mut rows: Vec<(String, String)> = PING_PONG
        .iter()
        .map(|(name, clients, size, depth)| {
            ((*name).to_owned(), format!("{clients} {size} {depth} time 1500"))
        })
        .collect();
    rows.push(("handshake + echo + close".to_owned(), "64 20 1 churn 20000".to_owned()));
    for (name, spec) in rows.iter().filter(|(name, _)| wanted(name)) {
        let (ours, plain) = (wspulse(&[])?, raw()?);
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            pairs.push((cost(&ours, "websocket", spec)?, cost(&plain, "raw", spec)?));
        }
        let ratios: Vec<f64> = pairs.iter().map(|(ours, plain)| ours / plain).collect();
        let (low, high) = ratios.iter().fold((f64::MAX, 0_f64), |(l, h), r| (l.min(*r), h.max(*r)));
        println!(
            "| {name} | {:.2} | {low:.2}–{high:.2} | {:.2} µs | {:.2} µs |",
            median(ratios.clone()),
            median(pairs.iter().map(|pair| pair.0).collect()) / 1000.0,
            median(pairs.iter().map(|pair| pair.1).collect()) / 1000.0,
        );
    }
    if wanted("memory") {
        memory()?;
    }
    Ok(())
}

fn memory() -> io::Result<()> {
    println!("\n| memory | |\n|---|---|");
    let server = wspulse(&[])?;
    let fresh = server.rss_bytes()?;
    println!("| RSS just started | {:.2} MiB |", fresh as f64 / f64::from(1 << 20));
    for (name, spec, clients) in [
        ("idle connection, after one echo of 20 B", "10000 20 1 idle 4000", 10_000),
        ("kept after one echo of 1 MiB", "64 1048576 1 idle 3000", 64),
    ] {
        let server = wspulse(&[])?;
        let before = server.rss_bytes()?;
        let load = start_load(&server, "websocket", spec)?;
        pause(2_500);
        let after = server.rss_bytes()?;
        finish_load(load)?;
        println!("| {name} | {} B of RSS a connection |", after.saturating_sub(before) / clients);
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "clients that only stay make no event to wait for")]
fn pause(ms: u64) {
    std::thread::sleep(std::time::Duration::from_millis(ms));
}

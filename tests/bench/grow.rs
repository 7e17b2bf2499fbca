//! What a message costs as connections grow in number, of which few are active, beside the plain
//! TCP echo with as many: what both have in common is the kernel's share.

use std::io;
use std::process::Child;

use crate::measure::{ROUNDS, cost, median, start_load};
use crate::servers::{Server, pause};

const CONNECTIONS: [u64; 5] = [10, 100, 1_000, 10_000, 19_000];
/// The second set: as many are active whatever the number of connections.
const ACTIVE: u64 = 10;
/// Milliseconds until this many connections are open and have had their echo.
const OPENING_MS: u64 = 3_000;
const BAR: usize = 40;

/// One point: so many connections, of which so many are active.
struct Point {
    connections: u64,
    active: u64,
    ours: Vec<f64>,
    plain: Vec<f64>,
    bytes: u64,
}

/// A server with clients that hold their connections, ended with this value.
struct Held {
    server: Server,
    clients: Option<Child>,
    /// Bytes of RSS that they added.
    grown: u64,
}

impl Held {
    fn new(server: Server, server_kind: &str, idle: u64) -> io::Result<Self> {
        let before = server.status("VmRSS")?;
        let spec = format!("{idle} 20 1 idle 600000");
        let clients = (idle > 0).then(|| start_load(&server, server_kind, &spec)).transpose()?;
        let mut held = Self { server, clients, grown: 0 };
        pause(OPENING_MS);
        held.grown = held.server.status("VmRSS")?.saturating_sub(before) * 1024;
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(clients) = &mut self.clients {
            // They may have ended by themselves.
            let _ = clients.kill();
            let _ = clients.wait();
        }
    }
}

/// Both sets, as tables and as bars.
pub(crate) fn table() -> io::Result<()> {
    let one_percent = |connections: u64| (connections / 100).max(1);
    for (title, active) in
        [("1 % active", &one_percent as &dyn Fn(u64) -> u64), ("10 active", &|_| ACTIVE)]
    {
        let points: io::Result<Vec<_>> = CONNECTIONS
            .iter()
            .map(|connections| point(*connections, active(*connections)))
            .collect();
        show(title, &points?);
    }
    Ok(())
}

fn point(connections: u64, active: u64) -> io::Result<Point> {
    let idle = connections - active;
    let ours = Held::new(Server::wspulse()?, "websocket", idle)?;
    let plain = Held::new(Server::plain()?, "plain", idle)?;
    let spec = format!("{active} 20 1 time 1000");
    let bytes = ours.grown / connections;
    let mut point = Point { connections, active, ours: Vec::new(), plain: Vec::new(), bytes };
    for _ in 0..ROUNDS {
        point.ours.push(cost(&ours.server, "websocket", &spec)?);
        point.plain.push(cost(&plain.server, "plain", &spec)?);
    }
    Ok(point)
}

fn show(title: &str, points: &[Point]) {
    println!(
        "\n| connections, {title} | wspulse | plain TCP echo | ratio, median of {ROUNDS} \
         (min–max) | µs more than it | RSS a connection |"
    );
    println!("|---|---|---|---|---|---|");
    for point in points {
        let ratios: Vec<f64> =
            point.ours.iter().zip(&point.plain).map(|(ours, plain)| ours / plain).collect();
        let more = point.ours.iter().zip(&point.plain).map(|(ours, plain)| ours - plain).collect();
        let low = ratios.iter().copied().fold(f64::MAX, f64::min);
        let high = ratios.iter().copied().fold(0.0, f64::max);
        println!(
            "| {}, {} of them | {:.2} µs | {:.2} µs | {:.2} ({low:.2}–{high:.2}) | {:.2} | {} |",
            point.connections,
            point.active,
            median(point.ours.clone()) / 1000.0,
            median(point.plain.clone()) / 1000.0,
            median(ratios),
            median(more) / 1000.0,
            if point.connections < 1_000 { "–".to_owned() } else { format!("{} B", point.bytes) },
        );
    }
    let most = points.iter().map(|point| median(point.ours.clone())).fold(0.0, f64::max);
    println!("\n```");
    for point in points {
        for (name, costs) in [("wspulse", &point.ours), ("plain", &point.plain)] {
            let ns = median(costs.clone());
            let is_filled = |at: &usize| (*at as f64 + 0.5) / BAR as f64 <= ns / most;
            let bar = "█".repeat((0..BAR).take_while(is_filled).count());
            println!("{:>6} {name:<7} {bar} {:.2} µs", point.connections, ns / 1000.0);
        }
    }
    println!("```");
}

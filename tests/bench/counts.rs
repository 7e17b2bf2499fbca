//! What is counted rather than timed: memory, system calls, instructions, wake-ups, sizes.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use crate::measure::{finish_load, start_load};
use crate::servers::{Server, WSPULSE, arguments, free_port, on_core, pause};

const STARTS: usize = 20;

/// All of it, one row each.
pub(crate) fn table() -> io::Result<()> {
    println!("\n| counted | |\n|---|---|");
    let server = Server::wspulse()?;
    pause(200);
    println!("| RSS, just started | {:.2} MiB |", server.status("VmRSS")? as f64 / 1024.0);
    let before = server.status("voluntary_ctxt_switches")?;
    pause(3_000);
    let woken = server.status("voluntary_ctxt_switches")? - before;
    println!("| wake-ups in 3 s without connections | {woken} |");
    println!("| RSS an idle connection, of 10 000, after one echo of 20 B | {} B |", {
        growth("websocket", "10000 20 1 idle 4000", 10_000)?
    });
    #[cfg(feature = "deflate")]
    {
        let grown = growth("deflate", "10000 20 1 idle 4000", 10_000)?;
        println!("| the same with compression agreed | {grown} B |");
        println!("| a compressed message of 64 MiB | {} |", crate::deflate::bombs()?);
    }
    println!("| RSS kept a connection, of 64, after one echo of 1 MiB | {} B |", {
        growth("websocket", "64 1048576 1 idle 3000", 64)?
    });
    println!("| from exec to the first answer, best of {STARTS} | {:.1} ms |", first_answer()?);
    println!(
        "| this binary | {:.2} MiB |",
        fs::metadata(WSPULSE)?.len() as f64 / f64::from(1 << 20)
    );
    for (name, depth) in [("one after the other", 1), ("16 under way", 16)] {
        match system_calls(depth) {
            Ok(calls) => println!("| system calls a message, 64 × 20 B, {name} | {calls} |"),
            Err(error) => println!("| system calls a message, {name} | not measured: {error} |"),
        }
    }
    match instructions() {
        Ok(count) => println!("| instructions a message, 64 × 20 B, 16 under way | {count:.0} |"),
        Err(error) => println!("| instructions a message | not measured: {error} |"),
    }
    Ok(())
}

/// Resident bytes that each of these connections adds.
fn growth(server_kind: &str, spec: &str, clients: u64) -> io::Result<u64> {
    growth_of(&Server::wspulse()?, server_kind, spec, clients)
}

/// The same for this server, which has just been started.
pub(crate) fn growth_of(
    server: &Server,
    server_kind: &str,
    spec: &str,
    clients: u64,
) -> io::Result<u64> {
    let before = server.status("VmRSS")?;
    let load = start_load(server, server_kind, spec)?;
    pause(2_500);
    let after = server.status("VmRSS")?;
    finish_load(load)?;
    Ok(after.saturating_sub(before) * 1024 / clients)
}

#[expect(clippy::disallowed_methods, reason = "the time that a user waits")]
fn first_answer() -> io::Result<f64> {
    let mut best_ms = f64::MAX;
    for _ in 0..STARTS {
        let port = free_port()?;
        let began = Instant::now();
        let mut child =
            Command::new(WSPULSE).args(arguments(port)).env("RUST_LOG", "off").spawn()?;
        let mut stream = loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                break stream;
            }
        };
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")?;
        stream.read_exact(&mut [0; 15])?;
        best_ms = best_ms.min(began.elapsed().as_secs_f64() * 1000.0);
        child.kill()?;
        child.wait()?;
    }
    Ok(best_ms)
}

/// Runs the server under a tool that counts, and this many messages of each of 64 clients.
fn under(tool: &[&str], depth: usize, messages: usize) -> io::Result<()> {
    let port = free_port()?;
    let mut command = on_core("0", tool[0]);
    command.args(&tool[1..]).arg(WSPULSE).args(arguments(port));
    if Command::new(tool[0]).arg("--version").output().is_err() {
        return Err(io::Error::other(format!("{} is not installed", tool[0])));
    }
    let server = Server::start(command, port)?;
    finish_load(start_load(&server, "websocket", &format!("64 20 {depth} messages {messages}"))?)?;
    server.stop()
}

fn system_calls(depth: usize) -> io::Result<String> {
    let file = std::env::temp_dir().join(format!("wspulse-bench-{}", std::process::id()));
    let path = file.to_string_lossy().into_owned();
    let messages = 2_000;
    under(&["strace", "-f", "-c", "-o", &path], depth, messages)?;
    let text = fs::read_to_string(&file)?;
    fs::remove_file(&file)?;
    let count = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.split_whitespace().last() == Some(name));
        let calls = line.and_then(|line| line.split_whitespace().nth(3)?.parse::<f64>().ok());
        calls.unwrap_or(0.0) / (64.0 * messages as f64)
    };
    Ok(format!(
        "{:.2} reads, {:.2} writes, {:.2} waits",
        count("recvfrom"),
        count("sendto") + count("sendmsg") + count("writev"),
        count("epoll_wait")
    ))
}

/// By the difference of two runs, so that starting and connecting do not count.
fn instructions() -> io::Result<f64> {
    let file = std::env::temp_dir().join(format!("wspulse-bench-{}", std::process::id()));
    let out = format!("--callgrind-out-file={}", file.display());
    let count = |messages: usize| -> io::Result<f64> {
        under(&["valgrind", "--tool=callgrind", &out], 16, messages)?;
        let text = fs::read_to_string(&file)?;
        fs::remove_file(&file)?;
        let line = text.lines().find_map(|line| line.strip_prefix("totals: "));
        line.and_then(|n| n.trim().parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    };
    Ok((count(1_500)? - count(500)?) / 64_000.0)
}

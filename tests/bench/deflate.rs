//! What compression costs: messages that are too short for it beside the same without it, and
//! what it adds to a message of 1 KiB beside what `zlib-rs` takes for those bytes alone.

use std::fs;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use wspulse::load::padding;
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

use crate::measure::{ROUNDS, cost, row};
use crate::peers::{upgrade, upgrade_request};
use crate::servers::{Server, on_core};

const SHORT: (&str, &str) = ("64 × 20 B, compression agreed", "64 20 1 time 1500");
const JSON: (&str, &str) = ("64 × 1 KiB of JSON, compressed", "64 1024 1 time 1500");
const MESSAGES_ALONE: u64 = 20_000;

/// The rows that are wanted.
pub(crate) fn table(wanted: impl Fn(&str) -> bool) -> io::Result<()> {
    println!("\n| compression, server CPU | ratio, median of {ROUNDS} | min–max | with | beside |");
    println!("|---|---|---|---|---|");
    if wanted(SHORT.0) {
        let server = Server::wspulse()?;
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            pairs.push((cost(&server, "deflate", SHORT.1)?, cost(&server, "websocket", SHORT.1)?));
        }
        row(SHORT.0, &pairs);
    }
    if wanted(JSON.0) {
        let server = Server::wspulse()?;
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            let with = cost(&server, "deflate", JSON.1)?;
            pairs.push((with - cost(&server, "websocket", JSON.1)?, alone()?));
        }
        row(JSON.0, &pairs);
    }
    Ok(())
}

/// Compressed messages, CPU and bytes on the wire, beside other servers in turn.
pub(crate) fn table_beside(beside: &[&str]) -> io::Result<()> {
    let ours = Server::wspulse()?;
    let others: io::Result<Vec<_>> = beside.iter().map(|command| Server::other(command)).collect();
    let others = others?;
    println!(
        "| {}, server CPU a message | ratio, median of {ROUNDS} | min–max | wspulse | other |",
        JSON.0
    );
    println!("|---|---|---|---|---|");
    let mut pairs = vec![Vec::new(); others.len()];
    for _ in 0..ROUNDS {
        let ours_ns = cost(&ours, "deflate", JSON.1)?;
        for (other, pairs) in others.iter().zip(&mut pairs) {
            pairs.push((ours_ns, cost(other, "deflate", JSON.1)?));
        }
    }
    for (command, pairs) in beside.iter().zip(&pairs) {
        row(command, pairs);
    }
    println!("\n| 1 KiB of JSON: bytes of the echo on the wire | first | tenth |\n|---|---|---|");
    for (name, server) in
        [&"wspulse"].into_iter().chain(beside).zip([&ours].into_iter().chain(&others))
    {
        for context in ["", "; server_no_context_takeover"] {
            let sizes = wire_bytes(server, context)?;
            println!("| {name}, `permessage-deflate{context}` | {} B | {} B |", sizes[0], sizes[9]);
        }
    }
    Ok(())
}

/// A masked frame with this first byte, of a message that is 126 B to 64 KiB when compressed.
fn compressed(first: u8, message: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut wire = vec![0; 128 * 1024];
    let mut state = Deflate::new(level, false, 15);
    let pressed = state.compress(message, &mut wire, DeflateFlush::SyncFlush);
    pressed.map_err(|_| io::Error::other("zlib-rs failed"))?;
    wire.truncate(state.total_out() as usize - 4);
    let length = u16::try_from(wire.len()).map_err(io::Error::other)?;
    // A mask of zeros leaves it as it is.
    Ok([&[first, 0xfe][..], &length.to_be_bytes(), &[0; 4], &wire].concat())
}

/// How many bytes the echo of each of ten equal messages has, with the frame's header.
fn wire_bytes(server: &Server, parameters: &str) -> io::Result<[usize; 10]> {
    let frame = compressed(0xc1, &padding(1024), 1)?;
    let mut stream = TcpStream::connect(server.address)?;
    let offer = format!("Sec-WebSocket-Extensions: permessage-deflate{parameters}\r\n");
    upgrade(&mut stream, "/echo", &offer)?;
    let mut sizes = [0; 10];
    for size in &mut sizes {
        stream.write_all(&frame)?;
        let mut header = [0; 2];
        stream.read_exact(&mut header)?;
        let mut length = usize::from(header[1]);
        let mut header_size = 2;
        if length == 126 {
            stream.read_exact(&mut header)?;
            (length, header_size) = (usize::from(u16::from_be_bytes(header)), 4);
        }
        stream.read_exact(&mut vec![0; length])?;
        *size = header_size + length;
    }
    Ok(sizes)
}

/// Nanoseconds that `zlib-rs` takes for a message both ways, on the core of the servers.
fn alone() -> io::Result<f64> {
    let own = std::env::current_exe()?;
    let mut child =
        on_core("0", &own.to_string_lossy()).arg("zlib").stdout(Stdio::piped()).spawn()?;
    let mut text = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut text)?;
    }
    child.wait()?;
    text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// What 64 MiB of zeros in 64 KiB cost a server: its memory at most, its CPU on average.
pub(crate) fn bombs() -> io::Result<String> {
    const BOMBS: u64 = 20;
    let frame = compressed(0xc2, &vec![0; 64 << 20], 9)?;
    let server = Server::wspulse()?;
    let (memory, cpu) = (server.status("VmRSS")?, server.cpu_ns()?);
    for _ in 0..BOMBS {
        let mut stream = TcpStream::connect(server.address)?;
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        let head = upgrade_request("/echo", offer);
        stream.write_all(&[head.as_bytes(), &frame].concat())?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said)?;
        if !said.ends_with(b"\x03\xf1message too big") {
            return Err(io::Error::other("a bomb was not answered with 1009"));
        }
    }
    let cpu_ms = (server.cpu_ns()? - cpu) as f64 / BOMBS as f64 / 1e6;
    let memory_kib = server.status("VmHWM")?.saturating_sub(memory);
    Ok(format!("{cpu_ms:.2} ms of CPU and 1009; {memory_kib} KiB, all of {BOMBS} together"))
}

/// In a process of its own: inflates and compresses a message over and over, prints what one took.
pub(crate) fn zlib_alone() -> io::Result<()> {
    let message = padding(1024);
    let (mut deflate, mut inflate) = (Deflate::new(1, false, 15), Inflate::new(false, 15));
    let (mut wire, mut plain) = (vec![0; 2048], vec![0; 2048]);
    let failed = |_| io::Error::other("zlib-rs failed");
    let mut press = |wire: &mut [u8]| -> io::Result<usize> {
        deflate.reset();
        deflate.compress(&message, wire, DeflateFlush::SyncFlush).map_err(failed)?;
        Ok(deflate.total_out() as usize)
    };
    let length = press(&mut wire)?;
    let sent = wire[..length].to_vec();
    let before = cpu_ns()?;
    for _ in 0..MESSAGES_ALONE {
        inflate.reset(false);
        let inflated = inflate.decompress(&sent, &mut plain, InflateFlush::NoFlush);
        inflated.map_err(|_| io::Error::other("zlib-rs failed"))?;
        black_box(&plain);
        black_box(press(&mut wire)?);
    }
    println!("{}", (cpu_ns()? - before) as f64 / MESSAGES_ALONE as f64);
    Ok(())
}

fn cpu_ns() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/self/schedstat")?;
    stat.split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

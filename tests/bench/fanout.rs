//! What a Deployment change costs for each viewer, beside the floor: one `write` of the same frame
//! to each of as many sockets. The API server here knows one Deployment, which changes at a rate.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::measure::{ROUNDS, row};
use crate::peers::{serve_each, upgrade};
use crate::servers::{Server, on_core, pause};

const VIEWERS: usize = 1_000;
/// Between two changes.
const INTERVAL: Duration = Duration::from_millis(25);
const MEASURED_MS: u64 = 3_000;
const OPENING_MS: u64 = 1_500;
const PATHS: [&str; 2] = ["/api/wds/logs", "/api/wds/logs?format=json"];

/// Viewers in a process of their own, ended with this value.
struct Viewers {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

/// What the viewers have received so far.
#[derive(Clone, Copy)]
struct Seen {
    bytes: u64,
    /// Frames of the first viewer, and their bytes.
    frames: u64,
    frame_bytes: u64,
}

impl Viewers {
    fn start(server: &Server, path: &str) -> io::Result<Self> {
        let own = std::env::current_exe()?;
        let mut command = on_core("1", &own.to_string_lossy());
        command.args(["view", &server.address.to_string(), path]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, answers: BufReader::new(stdout) })
    }

    fn seen(&mut self) -> io::Result<Seen> {
        let stdin = self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(b"\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [bytes, frames, frame_bytes] = numbers[..] else {
            return Err(io::Error::other("the viewers have ended"));
        };
        Ok(Seen { bytes, frames, frame_bytes })
    }

    /// Nanoseconds of the server's CPU a frame, and the bytes of a frame.
    fn cost(&mut self, server: &Server) -> io::Result<(f64, u64)> {
        let (from, cpu) = (self.seen()?, server.cpu_ns()?);
        pause(MEASURED_MS);
        let (to, spent) = (self.seen()?, server.cpu_ns()? - cpu);
        let frames = to.frames - from.frames;
        let frame_bytes = (to.frame_bytes - from.frame_bytes).checked_div(frames).unwrap_or(0);
        if frames * 2 < MEASURED_MS / INTERVAL.as_millis() as u64 || frame_bytes == 0 {
            return Err(io::Error::other(format!("a viewer received {frames} frames only")));
        }
        Ok((spent as f64 / ((to.bytes - from.bytes) / frame_bytes) as f64, frame_bytes))
    }
}

impl Drop for Viewers {
    fn drop(&mut self) {
        // They may have ended by themselves.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A row for each format.
pub(crate) fn table() -> io::Result<()> {
    println!(
        "\n| a change to {VIEWERS} viewers, server CPU a viewer | ratio, median of {ROUNDS} | \
         min–max | wspulse | one `write` each |"
    );
    println!("|---|---|---|---|---|");
    for path in PATHS {
        let api = Server::own("api", "1")?;
        let url = format!("http://{}", api.address);
        let ours = Server::wspulse_with(&["--kube", &url])?;
        let mut viewers = Viewers::start(&ours, path)?;
        pause(OPENING_MS);
        let (_, length) = viewers.cost(&ours)?;
        drop(viewers);
        let floor = Server::own(&format!("sends {length}"), "0")?;
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            let mut pair = [0.0; 2];
            for (ns, (server, path)) in pair.iter_mut().zip([(&ours, path), (&floor, "")]) {
                let mut viewers = Viewers::start(server, path)?;
                pause(OPENING_MS);
                *ns = viewers.cost(server)?.0;
            }
            pairs.push((pair[0], pair[1]));
        }
        row(&format!("{path}, frames of {length} B"), &pairs);
    }
    Ok(())
}

static BYTES: AtomicU64 = AtomicU64::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);
static FRAME_BYTES: AtomicU64 = AtomicU64::new(0);

/// The viewers: they read all they get; a line on standard input asks how much that was.
pub(crate) fn view(address: &str, path: &str) -> io::Result<()> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let mut poll = Poll::new()?;
    let mut streams = Vec::new();
    for key in 0..VIEWERS {
        let mut stream = TcpStream::connect(address)?;
        if !path.is_empty() {
            upgrade(&mut stream, path, "")?;
        }
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(key), Interest::READABLE)?;
        streams.push(stream);
    }
    thread::spawn(|| {
        for _ in io::stdin().lines() {
            let [bytes, frames, length] = [&BYTES, &FRAMES, &FRAME_BYTES].map(|n| n.load(Relaxed));
            println!("{bytes} {frames} {length}");
        }
    });
    let mut events = Events::with_capacity(1024);
    let (mut buffer, mut first) = (vec![0; 64 * 1024], Vec::new());
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            while let Ok(n @ 1..) = streams[event.token().0].read(&mut buffer) {
                BYTES.fetch_add(n as u64, Relaxed);
                if event.token().0 == 0 {
                    first.extend_from_slice(&buffer[..n]);
                    count(&mut first);
                }
                if n < buffer.len() {
                    break;
                }
            }
        }
    }
}

/// Takes the complete frames off the front.
fn count(bytes: &mut Vec<u8>) {
    loop {
        let whole = match bytes[..] {
            [_, 126, high, low, ..] => 4 + usize::from(u16::from_be_bytes([high, low])),
            [_, length @ ..=125, ..] => 2 + usize::from(length),
            _ => return,
        };
        if bytes.len() < whole {
            return;
        }
        bytes.drain(..whole);
        FRAMES.fetch_add(1, Relaxed);
        FRAME_BYTES.fetch_add(whole as u64, Relaxed);
    }
}

/// The floor: accepts sockets and writes a frame of this length to each, at the same rate.
#[expect(clippy::disallowed_methods, reason = "it keeps a rate")]
pub(crate) fn sends(length: &str) -> io::Result<()> {
    let length: u16 = length.parse().map_err(io::Error::other)?;
    let mut frame = vec![b'x'; usize::from(length)];
    let header: &[u8] = &match length {
        ..=127 => vec![0x81, (length - 2) as u8],
        _ => [&[0x81, 126][..], &(length - 4).to_be_bytes()].concat(),
    };
    frame[..header.len()].copy_from_slice(header);
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?);
    listener.set_nonblocking(true)?;
    let mut streams: Vec<TcpStream> = Vec::new();
    let mut due = Instant::now() + INTERVAL;
    loop {
        if streams.len() < VIEWERS {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                streams.push(stream);
            }
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += INTERVAL;
        streams.retain_mut(|stream| stream.write(&frame).is_ok_and(|n| n == frame.len()));
    }
}

/// An API server with one Deployment that changes all the time.
pub(crate) fn api() -> io::Result<()> {
    serve_each(|stream| answer(&stream))
}

fn answer(stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut line, mut field) = (String::new(), String::new());
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        while reader.read_line(&mut field)? > 2 {
            field.clear();
        }
        if line.contains("sendInitialEvents") {
            let refusal = b"HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: 2\r\n\r\n{}";
            (&mut &*stream).write_all(refusal)?;
        } else if line.contains("watch=true") {
            return watch(stream);
        } else {
            let deployment = deployment(100_000);
            let version = r#"{"resourceVersion":"100000"}"#;
            let list = format!(
                r#"{{"kind":"DeploymentList","metadata":{version},"items":[{deployment}]}}"#
            );
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", list.len());
            (&mut &*stream).write_all([head, list].concat().as_bytes())?;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it keeps a rate")]
fn watch(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let mut due = Instant::now();
    for version in 100_001.. {
        due += INTERVAL;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let event = format!(r#"{{"type":"MODIFIED","object":{}}}"#, deployment(version)) + "\n";
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
    }
    Ok(())
}

fn deployment(version: u32) -> String {
    let replicas = version % 9;
    let names = r#""namespace":"shop","name":"web","uid":"uid-web""#;
    let template = r#"{"spec":{"containers":[{"name":"c","image":"web:1"}]}}"#;
    let spec = format!(r#"{{"replicas":{replicas},"template":{template}}}"#);
    format!(r#"{{"metadata":{{{names},"resourceVersion":"{version}"}},"spec":{spec},"#)
        + &format!(r#""status":{{"readyReplicas":{replicas}}}}}"#)
}

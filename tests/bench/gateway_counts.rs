//! What the gateway costs besides messages: idle clients, many `$connect`s at once, callbacks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::measure::{finish_load, start_load};
use crate::servers::{Server, WSPULSE, free_port, on_core, pause};

const CLIENTS: u64 = 10_000;
/// How long the backend takes for a `$connect` of many at once.
const CONNECT_MS: u64 = 50;
/// Connections that the backend's kernel queues: the default of many languages, and that of Linux.
const BACKLOGS: [i32; 2] = [128, 4096];
/// Of 50 ms each.
const WAITS_MAX: u32 = 400;

type Ids = Arc<Mutex<Vec<String>>>;

/// The rows.
pub(crate) fn table() -> io::Result<()> {
    println!("\n| counted at the gateway | |\n|---|---|");
    let (gateway, admin, ids) = start(0, BACKLOGS[1])?;
    let before = gateway.status("VmRSS")?;
    let load = start_load(&gateway, "gateway", &format!("{CLIENTS} 20 1 idle 12000"))?;
    let mut waits = 0;
    while ids.lock().map_err(poisoned)?.len() < CLIENTS as usize {
        pause(50);
        waits += 1;
        if waits > WAITS_MAX {
            return Err(io::Error::other("the backend was not asked for all clients"));
        }
    }
    pause(1_500);
    let grown = gateway.status("VmRSS")?.saturating_sub(before) * 1024 / CLIENTS;
    println!("| RSS an idle client, of {CLIENTS}, after one message | {grown} B |");
    let cpu_ns = gateway.cpu_ns()?;
    let all = ids.lock().map_err(poisoned)?.clone();
    callbacks(admin, &all)?;
    let each_ns = (gateway.cpu_ns()? - cpu_ns) as f64 / all.len() as f64;
    println!(
        "| callbacks a second of CPU, to {CLIENTS} clients, over one connection | {:.0} |",
        1e9 / each_ns
    );
    finish_load(load)?;

    for backlog in BACKLOGS {
        at_once(backlog)?;
    }
    Ok(())
}

/// Many clients that connect at the same time.
fn at_once(backlog: i32) -> io::Result<()> {
    let (gateway, ..) = start(CONNECT_MS, backlog)?;
    let url = format!("ws://{}/gateway/prod", gateway.address);
    let load = ["load", &url, "--clients", "1000", "--messages", "1", "--json"];
    let output = on_core("1", WSPULSE).args(load).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, rest) = text.split_once("\"connect_ms\":").ok_or(io::ErrorKind::InvalidData)?;
    let ms = rest.split(['.', ',']).next().unwrap_or_default();
    let all = text.contains("\"connected\":1000");
    println!(
        "| until 1000 clients are connected, {CONNECT_MS} ms of the backend each, which queues \
         {backlog} connections | {ms} ms{} |",
        if all { "" } else { " (not all were)" }
    );
    Ok(())
}

fn poisoned<E>(_: E) -> io::Error {
    io::Error::other("a backend's thread panicked")
}

/// A gateway with its admin address, and the ids that its backend was told.
fn start(connect_ms: u64, backlog: i32) -> io::Result<(Server, SocketAddr, Ids)> {
    let backend = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    backend.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    backend.listen(backlog)?;
    let backend = TcpListener::from(backend);
    let url = format!("http://{}", backend.local_addr()?);
    let ids = Ids::default();
    let known = ids.clone();
    thread::spawn(move || {
        for stream in backend.incoming().flatten() {
            let known = known.clone();
            thread::spawn(move || answer(stream, connect_ms, &known));
        }
    });
    let (port, admin) = (free_port()?, free_port()?);
    let arguments = format!(
        "--listen 127.0.0.1:{port} --admin-listen 127.0.0.1:{admin} --gateway-backend {url} \
         --gateway-format proxy --gateway-reply on"
    );
    let mut command: Command = on_core("0", WSPULSE);
    command.args(arguments.split(' '));
    let gateway = Server::start(command, port)?;
    Ok((gateway, SocketAddr::from(([127, 0, 0, 1], admin)), ids))
}

/// Answers each request with 200 and its body.
fn answer(stream: TcpStream, connect_ms: u64, ids: &Ids) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream);
    loop {
        let (mut is_connect, mut length, mut id) = (false, 0, String::new());
        let mut line = String::new();
        while lines.read_line(&mut line)? > 0 && line != "\r\n" {
            is_connect |= line.starts_with("EventType: CONNECT");
            if let Some(n) = line.strip_prefix("Content-Length: ") {
                length = n.trim().parse().unwrap_or(0);
            }
            if let Some(named) = line.strip_prefix("ConnectionId: ") {
                named.trim().clone_into(&mut id);
            }
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        let mut body = vec![0; length];
        lines.read_exact(&mut body)?;
        if is_connect {
            pause(connect_ms);
            ids.lock().map_err(poisoned)?.push(id);
        }
        let mut whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        whole.extend_from_slice(&body);
        out.write_all(&whole)?;
    }
}

/// Posts a message to each of these clients, one after the other; for `load`, none asked for it.
fn callbacks(admin: SocketAddr, ids: &[String]) -> io::Result<()> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    for id in ids {
        let request = format!(
            "POST /@connections/{id} HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\ntick 1"
        );
        stream.write_all(request.as_bytes())?;
        let n = stream.read(&mut buffer)?;
        if !buffer[..n].starts_with(b"HTTP/1.1 200 ") {
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            return Err(io::Error::other(format!("a callback was refused: {text}")));
        }
    }
    Ok(())
}

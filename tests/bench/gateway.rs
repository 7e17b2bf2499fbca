//! What the gateway costs a message, beside the least that an HTTP exchange on loopback costs
//! anybody, and beside an echo: a message through the gateway is one of each.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::measure::{ROUNDS, cost, median};
use crate::peers::serve_each;
use crate::servers::{Server, arguments, cpu_ns, free_port, on_core};

const CLIENTS: usize = 64;
const SPEC: &str = "64 20 1 time 1500";
const TIME: Duration = Duration::from_millis(1_500);
const BODY: &str = "twenty bytes of text";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\ntwenty bytes of text";

/// The gateway's row.
pub(crate) fn table() -> io::Result<()> {
    let backend = Server::own("http", "1")?;
    let gateway = {
        let port = free_port()?;
        let mut command = on_core("0", crate::servers::WSPULSE);
        let url = format!("http://{}", backend.address);
        let asked = ["--gateway-format", "proxy", "--gateway-reply", "on"];
        command.args(arguments(port)).args(["--gateway-backend", &url]).args(asked);
        Server::start(command, port)?
    };
    let echo = Server::wspulse()?;
    let (mut alone, mut both, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let gateway_ns = cost(&gateway, "gateway", SPEC)?;
        let (echo_ns, exchange_ns) = (cost(&echo, "websocket", SPEC)?, exchange(&backend)?);
        alone.push(gateway_ns / exchange_ns);
        both.push(gateway_ns / (echo_ns + exchange_ns));
        costs.push([gateway_ns, exchange_ns, echo_ns]);
    }
    let middle = |which: usize| median(costs.iter().map(|costs| costs[which]).collect()) / 1000.0;
    let spread = |ratios: &[f64]| {
        let low = ratios.iter().copied().fold(f64::MAX, f64::min);
        let high = ratios.iter().copied().fold(0.0, f64::max);
        format!("{:.2} ({low:.2}–{high:.2})", median(ratios.to_vec()))
    };
    println!("\n| CPU a message, 64 × 20 B | ratio, median of {ROUNDS} (min–max) | µs |");
    println!("|---|---|---|");
    let [ours, exchange, echo] = [middle(0), middle(1), middle(2)];
    println!("| gateway, beside an HTTP exchange alone | {} | {ours:.2}, {exchange:.2} |", {
        spread(&alone)
    });
    let together = format!("{ours:.2}, {exchange:.2} + {echo:.2}");
    println!("| gateway, beside an exchange and an echo | {} | {together} |", spread(&both));
    Ok(())
}

/// Nanoseconds of CPU that an exchange costs a client that knows the answer already.
fn exchange(backend: &Server) -> io::Result<f64> {
    let own = std::env::current_exe()?;
    let mut command = on_core("0", &own.to_string_lossy());
    command.arg("ask").arg(backend.address.to_string()).stdin(Stdio::null());
    let text = String::from_utf8(command.output()?.stdout).unwrap_or_default();
    text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// As many connections, one request under way in each; it reads no answer but counts its bytes.
#[expect(clippy::disallowed_methods, reason = "it goes on for so long")]
pub(crate) fn ask(address: &str) -> io::Result<()> {
    let length = BODY.len();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nUser-Agent: wspulse/0.2.0\r\n\
         ConnectionId: Zm9yIHRlc3RzAAAAAAAAAA\r\nContent-Length: {length}\r\n\r\n{BODY}"
    );
    let mut poll = Poll::new()?;
    let mut streams = Vec::new();
    for key in 0..CLIENTS {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(key), Interest::READABLE)?;
        stream.write_all(request.as_bytes())?;
        streams.push((stream, 0));
    }
    let mut events = Events::with_capacity(1024);
    let mut buffer = [0; 4096];
    let (began, before) = (Instant::now(), cpu_ns(std::process::id())?);
    let mut answers = 0_u32;
    while began.elapsed() < TIME {
        poll.poll(&mut events, Some(TIME))?;
        for event in &events {
            let (stream, have) = &mut streams[event.token().0];
            match stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => *have += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if *have >= ANSWER.len() {
                *have = 0;
                answers += 1;
                stream.write_all(request.as_bytes())?;
            }
        }
    }
    println!("{}", (cpu_ns(std::process::id())? - before) as f64 / f64::from(answers));
    Ok(())
}

/// A backend that knows one answer.
pub(crate) fn serve() -> io::Result<()> {
    serve_each(answer)
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut have = 0;
    loop {
        let n = stream.read(&mut buffer[have..])?;
        if n == 0 {
            return Ok(());
        }
        have += n;
        let head = buffer[..have].windows(4).position(|four| four == b"\r\n\r\n");
        // `$connect` has no body; a message has one, which is the message.
        let body = head.map_or(&b""[..], |head| &buffer[head + 4..have]);
        let is_connect = buffer.starts_with(b"POST /connect");
        if is_connect && head.is_some() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        } else if body.len() == BODY.len() {
            let mut whole = ANSWER.as_bytes().to_vec();
            let start = whole.len() - BODY.len();
            whole[start..].copy_from_slice(body);
            stream.write_all(&whole)?;
        } else {
            continue;
        }
        have = 0;
    }
}

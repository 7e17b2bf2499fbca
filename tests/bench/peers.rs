//! What the clients and servers of several sections have in common.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// A request for a WebSocket, with more header fields, each with its line end.
pub(crate) fn upgrade_request(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

/// Sends such a request and reads the 101, and nothing behind it.
pub(crate) fn upgrade(
    stream: &mut (impl Read + Write),
    target: &str,
    fields: &str,
) -> io::Result<()> {
    stream.write_all(upgrade_request(target, fields).as_bytes())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if head.starts_with(b"HTTP/1.1 101") { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// A server with a thread for each connection; says on standard output where it is.
pub(crate) fn serve_each(answer: fn(TcpStream) -> io::Result<()>) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        stream.set_nodelay(true)?;
        thread::spawn(move || answer(stream));
    }
    Ok(())
}

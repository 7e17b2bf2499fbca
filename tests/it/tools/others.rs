//! The client commands against servers that are not ours, with their habits and their faults.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::*;

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A server that accepts each WebSocket with these header fields, and then does as told.
fn server(
    fields: &'static str,
    serve: impl Fn(TcpStream) -> std::io::Result<()> + Copy + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                accept(&mut stream, fields)?;
                serve(stream)
            });
        }
    });
    url
}

fn accept(stream: &mut TcpStream, fields: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.split("Sec-WebSocket-Key: ").nth(1).unwrap().lines().next().unwrap();
    let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
    let response = format!(
        "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{fields}\r\n"
    );
    stream.write_all(response.as_bytes())
}

/// The opcode and the payload of the next frame, which is short.
fn frame(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let (mut head, mut payload) = ([0; 6], Vec::new());
    stream.read_exact(&mut head)?;
    payload.resize(usize::from(head[1] & 0x7f), 0);
    stream.read_exact(&mut payload)?;
    payload.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= head[2 + at % 4]);
    Ok((head[0] & 0x0f, payload))
}

/// Sends an unmasked frame.
fn send(stream: &mut TcpStream, first: u8, payload: &[u8]) -> std::io::Result<()> {
    stream.write_all(&[&[first, payload.len() as u8][..], payload].concat())
}

/// Messages were called wrong answers because the server's compression had kept its context.
#[test]
#[cfg(feature = "deflate")]
fn compression_with_a_context() {
    let lax = server("Sec-WebSocket-Extensions: permessage-deflate\r\n", |_| Ok(()));
    let invalid = server(
        "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n",
        |mut stream| {
            frame(&mut stream)?;
            send(&mut stream, 0xc1, &[0xff; 8])?;
            frame(&mut stream).map(drop)
        },
    );
    let takeover = "upgrade failed: the server compresses with context takeover, though \
                    server_no_context_takeover was offered";
    let message = "a compressed message from the server is invalid or too long";
    for (url, code, text) in
        [(lax, "upgrade_context_takeover", takeover), (invalid, "invalid_compression", message)]
    {
        let (_, report) = load(&url, "--clients 1 --messages 3 --deflate on");
        assert_eq!(report["causes"], serde_json::json!({ code: { "count": 1, "text": text } }));
    }
}

/// A correct echo was called wrong because it was fragmented.
#[test]
fn answers_in_fragments() {
    /// Echoes in frames of up to this size, after an empty one.
    fn echo<const PIECE: usize, const CUT: usize>(mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let (opcode, payload) = frame(&mut stream)?;
            if opcode == 8 {
                return send(&mut stream, 0x88, &payload);
            }
            send(&mut stream, 1, b"rand")?;
            send(&mut stream, 0x80, b"ping")?;
            send(&mut stream, 1, b"")?;
            for piece in payload[..payload.len() - CUT].chunks(PIECE) {
                send(&mut stream, 0, piece)?;
            }
            send(&mut stream, 0x80, b"")?;
        }
    }
    for url in [server("", echo::<1, 0>), server("", echo::<2, 0>), server("", echo::<99, 0>)] {
        for size in ["0B", "100B"] {
            let flags = format!("--clients 2 --messages 3 --verify --size {size}");
            let (code, report) = load(&url, &flags);
            assert_eq!((code, &report["answered"]), (0, &6.into()), "{report}");
            assert_eq!(report["unasked"], 6);
        }
    }
    // One that lacks its last byte is wrong.
    for flags in ["--size 0B", "--size 100B"] {
        let flags = format!("--clients 2 --messages 3 --verify {flags}");
        let (code, report) = load(&server("", echo::<2, 1>), &flags);
        assert_eq!((code, &report["causes"]["wrong_answer"]["count"]), (3, &2.into()), "{report}");
    }
}

/// Nothing was said when the server's end and that of the input arrived together.
#[test]
fn an_end_without_a_close_is_reported() {
    // It ends with the response, and the input is there already.
    let url = server("", |_| Ok(()));
    for input in [&b""[..], b"x\n"] {
        for _ in 0..8 {
            let (code, out, _) = run(&["connect", &url], input);
            let last = out.lines().last().unwrap().to_owned();
            assert_eq!((code, &*last), (1, "Connection closed: 1006 (broken without a Close)."));
        }
    }
}

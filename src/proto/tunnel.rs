//! The request for a tunnel through an HTTP proxy (CONNECT, RFC 9110 §9.3.6), and its answer. After
//! a 2xx, the connection carries the bytes of client and server.

use httparse::{EMPTY_HEADER, Response, Status};

use crate::engine::ProxyFault;
use crate::limits::HEAD_FIELDS;

/// The longest head of an answer.
const HEAD_BYTES: usize = 16 * 1024;

/// A request for a tunnel to `server` (host and port), with a value for `Proxy-Authorization`.
#[must_use]
pub fn request(server: &str, authorization: Option<&str>) -> Vec<u8> {
    let line = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
    let field = authorization.map(|value| format!("Proxy-Authorization: {value}\r\n"));
    [&line, field.as_deref().unwrap_or_default(), "\r\n"].concat().into_bytes()
}

/// The answer of a proxy, as far as it has arrived.
#[derive(Debug, Default)]
pub struct Answer {
    head: Vec<u8>,
}

impl Answer {
    /// Takes bytes of the proxy. Returns whether the tunnel is open.
    ///
    /// # Errors
    /// Why it will not be.
    pub fn read(&mut self, bytes: &[u8]) -> Result<bool, ProxyFault> {
        if self.head.len() + bytes.len() > HEAD_BYTES {
            return Err(ProxyFault::Invalid);
        }
        self.head.extend_from_slice(bytes);
        let mut fields = [EMPTY_HEADER; HEAD_FIELDS];
        let mut response = Response::new(&mut fields);
        let length = match response.parse(&self.head) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(false),
            Err(_) => return Err(ProxyFault::Invalid),
        };
        match response.code {
            // The server cannot have sent anything: a client begins.
            Some(200..=299) if length == self.head.len() => Ok(true),
            Some(status @ 300..=599) => Err(ProxyFault::Answered(status)),
            Some(_) | None => Err(ProxyFault::Invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_opens_with_any_2xx_however_it_is_cut() {
        let text = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 p\r\n\r\n";
        for at in 0..text.len() {
            let mut answer = Answer::default();
            assert_eq!(answer.read(&text[..at]), Ok(false));
            assert_eq!(answer.read(&text[at..]), Ok(true));
        }
        assert_eq!(Answer::default().read(b"HTTP/1.0 204\r\n\r\n"), Ok(true));
    }

    #[test]
    fn anything_else_is_a_fault() {
        for (bytes, fault) in [
            (
                &b"HTTP/1.1 407 No\r\nContent-Length: 9\r\n\r\nnot so fa"[..],
                ProxyFault::Answered(407),
            ),
            (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", ProxyFault::Answered(302)),
            (b"HTTP/1.1 100 Continue\r\n\r\n", ProxyFault::Invalid),
            (b"HTTP/1.1 200 OK\r\n\r\nx", ProxyFault::Invalid),
            (b"SSH-2.0-OpenSSH_9.6\r\n", ProxyFault::Invalid),
            (b"HTTP/1.1 999 What\r\n\r\n", ProxyFault::Invalid),
        ] {
            assert_eq!(Answer::default().read(bytes), Err(fault));
        }
        let mut endless = Answer::default();
        let flood = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; HEAD_BYTES]].concat();
        assert_eq!(endless.read(&flood), Err(ProxyFault::Invalid));
    }

    #[test]
    fn the_request_names_the_server_twice() {
        let plain = b"CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n";
        assert_eq!(request("h:80", None), plain);
        let text = "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\
                    Proxy-Authorization: Basic eDp5\r\n\r\n";
        assert_eq!(request("[::1]:443", Some("Basic eDp5")), text.as_bytes());
    }
}

//! A connection from a trusted proxy, which names its client with a PROXY header first. Nothing is
//! buffered: the header stays in the kernel until it is complete.

use std::io::{self, Read};
use std::net::SocketAddr;

use mio::net::TcpStream;

use crate::proto::proxy_header::{self, Parsed};

#[derive(Debug)]
pub(crate) struct Proxied {
    pub(super) stream: TcpStream,
    header: Header,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    Awaited,
    /// It named this client, which was not reported yet.
    Read(Option<SocketAddr>),
}

impl Proxied {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, header: Header::Awaited }
    }

    /// The client, once.
    pub(super) fn take_client(&mut self) -> Option<SocketAddr> {
        match &mut self.header {
            Header::Awaited => None,
            Header::Read(client) => client.take(),
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.header == Header::Awaited && !self.read_header()? {
            return Ok(0);
        }
        self.stream.read(buffer)
    }

    /// Returns false if the proxy sent nothing and closed, as in a health check.
    fn read_header(&mut self) -> io::Result<bool> {
        let mut bytes = [0; proxy_header::BYTES_MAX];
        let arrived = self.stream.peek(&mut bytes)?;
        if arrived == 0 {
            return Ok(false);
        }
        match proxy_header::parse(&bytes[..arrived]) {
            Parsed::Incomplete => Err(io::ErrorKind::WouldBlock.into()),
            Parsed::Invalid => {
                log::info!(target: "proxy", "a trusted proxy sent no PROXY header");
                Err(io::ErrorKind::InvalidData.into())
            }
            Parsed::Complete(length, client) => {
                self.stream.read_exact(&mut bytes[..length])?;
                self.header = Header::Read(client);
                Ok(true)
            }
        }
    }
}

//! Replaces TLS in a build without it: none of these values can be created.

use std::io::{self, IoSlice};

use super::super::socket::Socket;
use super::super::stream::Stream;
use super::{CertificateError, Files};
use crate::engine::{Alpn, Now, TlsFacts, TlsFault, Trust};

#[derive(Debug)]
pub(crate) enum Tls {}

impl Tls {
    pub(crate) fn socket(&mut self) -> &mut Socket {
        match *self {}
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub(crate) fn facts(&self) -> TlsFacts {
        match *self {}
    }

    pub(crate) fn held_bytes(&self) -> usize {
        match *self {}
    }

    pub(crate) fn holds_more(&self) -> bool {
        match *self {}
    }

    pub(crate) fn handshake(&mut self) -> io::Result<bool> {
        match *self {}
    }

    pub(crate) fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn write(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn finish(&mut self) {
        match *self {}
    }

    pub(crate) fn skip_close_notify(&mut self) {
        match *self {}
    }
}

#[derive(Debug)]
pub(crate) enum Certificate {}

impl Certificate {
    pub(crate) fn open(files: Files, _: &'static [u8]) -> Result<Self, CertificateError> {
        let why = "cannot be used: this build has no TLS";
        Err(CertificateError::Unusable { flag: "--tls-cert", path: files.cert, why })
    }

    pub(crate) fn accept(&mut self, _: Now, _: Socket) -> io::Result<Stream> {
        match *self {}
    }

    pub(crate) fn reload(&mut self, _: Now) {
        match *self {}
    }

    pub(crate) fn warn(&mut self, _: Now) -> u64 {
        match *self {}
    }
}

#[derive(Debug, Default)]
pub(crate) struct Trusts(());

impl Trusts {
    #[expect(clippy::unused_self, reason = "as in a build with TLS")]
    pub(crate) fn begin(&mut self, _: &Trust, _: Alpn, _: &str, _: Socket) -> io::Result<Tls> {
        Err(TlsFault::NotBuilt.into())
    }
}

//! Replaces TLS in a build without it: none of these values can be created.

use std::io::{self, IoSlice};

use super::super::stream::{Socket, Stream};
use super::{CertificateError, Files};
use crate::engine::{Now, TlsFault, Trust};

#[derive(Debug)]
pub(crate) enum Tls {}

impl Tls {
    pub(in crate::net) fn socket(&mut self) -> &mut Socket {
        match *self {}
    }

    pub(in crate::net) fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub(in crate::net) fn held_bytes(&self) -> usize {
        match *self {}
    }

    pub(in crate::net) fn holds_more(&self) -> bool {
        match *self {}
    }

    pub(in crate::net) fn handshake(&mut self) -> io::Result<bool> {
        match *self {}
    }

    pub(in crate::net) fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }

    pub(in crate::net) fn write(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        match *self {}
    }

    pub(in crate::net) fn flush(&mut self) -> io::Result<()> {
        match *self {}
    }

    pub(in crate::net) fn finish(&mut self) {
        match *self {}
    }

    pub(in crate::net) fn skip_close_notify(&mut self) {
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

    pub(in crate::net) fn accept(&mut self, _: Now, _: Socket) -> io::Result<Stream> {
        match *self {}
    }

    pub(in crate::net) fn reload(&mut self, _: Now) {
        match *self {}
    }

    pub(in crate::net) fn warn(&mut self, _: Now) -> u64 {
        match *self {}
    }
}

#[derive(Debug, Default)]
pub(in crate::net) struct Trusts(());

impl Trusts {
    #[expect(clippy::unused_self, reason = "as in a build with TLS")]
    pub(in crate::net) fn begin(&mut self, _: &Trust, _: &str, _: Socket) -> io::Result<Tls> {
        Err(TlsFault::NotBuilt.into())
    }
}

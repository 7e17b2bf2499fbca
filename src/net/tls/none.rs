//! What stands for TLS in a build without it: there is no such channel, and nobody gets one.

use std::io::{self, IoSlice};

use super::super::stream::{Socket, Stream};
use super::{Files, KeepError};
use crate::engine::{Now, TlsFault, Trust};

/// Never there.
#[derive(Debug)]
pub(crate) enum Tls {}

impl Tls {
    pub(in crate::net) fn socket(&mut self) -> &mut Socket {
        match *self {}
    }

    pub(in crate::net) fn is_shaking(&self) -> bool {
        match *self {}
    }

    pub(in crate::net) fn held_bytes(&self) -> usize {
        match *self {}
    }

    pub(in crate::net) fn holds_more(&self) -> bool {
        match *self {}
    }

    pub(in crate::net) fn shake(&mut self) -> io::Result<bool> {
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

    pub(in crate::net) fn forget(&mut self) {
        match *self {}
    }
}

/// Never there.
#[derive(Debug)]
pub(crate) enum Keeper {}

impl Keeper {
    pub(crate) fn open(files: Files, _: &'static [u8]) -> Result<Self, KeepError> {
        let what = "is of no use: this build has no TLS";
        Err(KeepError::Wrong { flag: "--tls-cert", path: files.cert, what })
    }

    pub(in crate::net) fn greet(&mut self, _: Now, _: Socket) -> io::Result<Stream> {
        match *self {}
    }

    pub(in crate::net) fn reload(&mut self, _: Now) {
        match *self {}
    }

    pub(in crate::net) fn warn(&mut self, _: Now) -> u64 {
        match *self {}
    }
}

/// Nobody is trusted.
#[derive(Debug, Default)]
pub(in crate::net) struct Trusts(());

impl Trusts {
    #[expect(clippy::unused_self, reason = "as in a build with TLS")]
    pub(in crate::net) fn begin(&mut self, _: &Trust, _: &str, _: Socket) -> io::Result<Tls> {
        Err(TlsFault::NotBuilt.into())
    }
}

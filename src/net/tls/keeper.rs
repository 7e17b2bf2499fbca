//! The certificate of the main doors: read at start, on SIGHUP, and when its files have changed. A
//! new pair that cannot be used changes nothing but the log. It says when the end is near.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ProducesTickets;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};

use super::super::stream::{Socket, Stream};
use super::channel::Tls;
use super::{Files, KeepError, expiry};
use crate::engine::Now;
use crate::time;

/// Between two looks at the files; only who comes in makes us look.
const LOOK_GAP_MS: u64 = 5_000;
/// Between two words about the end.
const WARN_GAP_MS: u64 = 24 * 3_600_000;
/// So long before the end.
const WARN_AHEAD_MS: i64 = 30 * 24 * 3_600_000;
const DAY_MS: i64 = 24 * 3_600_000;
/// A file that is longer is something else.
const FILE_BYTES_MAX: u64 = 256 * 1024;
const CERT: &str = "--tls-cert";
const KEY: &str = "--tls-key";

/// What the main doors show.
#[derive(Debug)]
pub(crate) struct Keeper {
    files: Files,
    config: Arc<ServerConfig>,
    /// Outlives certificates: whoever was here before need not begin anew.
    tickets: Arc<dyn ProducesTickets>,
    not_after_ms: Option<i64>,
    /// The files as they were when they were last read, with whatever success.
    stamp: Option<Stamp>,
    look_ns: u64,
    warn_ns: u64,
    plain_words: &'static [u8],
}

/// By which a file is known to be another one, whatever links lead to it.
type Stamp = [(u64, u64, u64, i64, i64); 2];

impl Keeper {
    /// Reads a certificate and its key. `plain_words` is what those hear who do not speak TLS.
    pub(crate) fn open(files: Files, plain_words: &'static [u8]) -> Result<Self, KeepError> {
        let stamp = stamp(&files);
        let tickets = ring::Ticketer::new().map_err(|_| KeepError::Wrong {
            flag: KEY,
            path: files.key.clone(),
            what: "cannot be used: the kernel has no random numbers",
        })?;
        let (config, not_after_ms) = read(&files, &tickets)?;
        Ok(Self {
            files,
            config,
            tickets,
            not_after_ms,
            stamp,
            look_ns: 0,
            warn_ns: 0,
            plain_words,
        })
    }

    /// A connection of a main listener was accepted.
    pub(in crate::net) fn greet(&mut self, now: Now, socket: Socket) -> std::io::Result<Stream> {
        if self.look_ns <= now.mono_ns {
            self.look_ns = now.mono_ns + time::ms(LOOK_GAP_MS);
            let stamp = stamp(&self.files);
            if stamp.is_some() && stamp != self.stamp {
                self.reload(now);
            }
        }
        let tls = Tls::accept(socket, Arc::clone(&self.config), self.plain_words)?;
        Ok(Stream::Tls(Box::new(tls)))
    }

    /// Reads the files again.
    pub(in crate::net) fn reload(&mut self, now: Now) {
        // Before they are read: what changes meanwhile is seen at the next look.
        self.stamp = stamp(&self.files);
        match read(&self.files, &self.tickets) {
            Ok((config, not_after_ms)) => {
                (self.config, self.not_after_ms) = (config, not_after_ms);
                let days = self.days_left(now);
                log::info!(target: "tls", days_left = days; "certificate read again");
                self.warn_ns = now.mono_ns;
                self.warn(now);
            }
            Err(error) => {
                log::warn!(
                    target: "tls", error:% = error;
                    "cannot use the new certificate, the old one stays"
                );
            }
        }
    }

    /// Says when the end is near; tells when to ask again.
    pub(in crate::net) fn warn(&mut self, now: Now) -> u64 {
        if now.mono_ns < self.warn_ns {
            return self.warn_ns;
        }
        self.warn_ns = now.mono_ns + time::ms(WARN_GAP_MS);
        let cert = self.files.cert.display();
        if let Some(end_ms) = self.not_after_ms {
            let days = self.days_left(now);
            if end_ms <= now.wall_ms {
                log::error!(
                    target: "tls", file:% = cert, days_ago = -days;
                    "the certificate has expired: clients refuse it"
                );
            } else if end_ms - now.wall_ms < WARN_AHEAD_MS {
                log::warn!(
                    target: "tls", file:% = cert, days_left = days;
                    "the certificate expires soon"
                );
            }
        }
        self.warn_ns
    }

    fn days_left(&self, now: Now) -> i64 {
        self.not_after_ms.map_or(0, |end_ms| (end_ms - now.wall_ms).div_euclid(DAY_MS))
    }
}

fn stamp(files: &Files) -> Option<Stamp> {
    let of = |path: &Path| {
        let found = fs::metadata(path).ok()?;
        Some((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    };
    Some([of(&files.cert)?, of(&files.key)?])
}

/// What a TLS connection needs, and when the certificate ends.
fn read(
    files: &Files,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<(Arc<ServerConfig>, Option<i64>), KeepError> {
    let wrong = |flag, path: &Path, what| KeepError::Wrong { flag, path: path.to_owned(), what };
    let pem = contents(CERT, &files.cert)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|_| wrong(CERT, &files.cert, "is no valid PEM"))?;
    let Some(first) = chain.first() else {
        let what = "has no certificate in PEM (-----BEGIN CERTIFICATE-----)";
        return Err(wrong(CERT, &files.cert, what));
    };
    let not_after_ms = expiry::not_after_ms(first);
    let pem = contents(KEY, &files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        let locked = pem.windows(9).any(|word| word == b"ENCRYPTED");
        let what = match error {
            _ if locked => "is encrypted: decrypt it first (openssl pkey -in …)",
            rustls::pki_types::pem::Error::NoItemsFound => {
                "has no private key in PEM (-----BEGIN PRIVATE KEY-----)"
            }
            _ => "is no valid PEM",
        };
        wrong(KEY, &files.key, what)
    })?;
    let provider = Arc::new(ring::default_provider());
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            KeepError::Mismatch { key: files.key.clone(), cert: files.cert.clone() }
        }
        rustls::Error::InvalidCertificate(_) => {
            wrong(CERT, &files.cert, "has a certificate that is malformed")
        }
        _ => wrong(KEY, &files.key, "has a key of a kind that is not supported"),
    })?;
    Ok((config(certified, provider, Arc::clone(tickets)), not_after_ms))
}

fn config(
    certified: CertifiedKey,
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(rustls::DEFAULT_VERSIONS);
    let builder = builder.expect("the provider has suites for both versions");
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Tickets hold what a cache would: nothing is kept for those who may never come back.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = tickets;
    Arc::new(config)
}

fn contents(flag: &'static str, path: &Path) -> Result<Vec<u8>, KeepError> {
    let unreadable = |error| KeepError::Unreadable { flag, path: path.to_owned(), error };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let what = "is too large to be what it should be";
        return Err(KeepError::Wrong { flag, path: path.to_owned(), what });
    }
    Ok(bytes)
}

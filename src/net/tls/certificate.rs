//! The certificate of the main listeners: read at start, on SIGHUP, and when its files have
//! changed. An unusable new pair is only logged. Warns before the certificate expires.

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

use super::super::socket::Socket;
use super::super::stream::Stream;
use super::channel::Tls;
use super::{CertificateError, Files, expiry};
use crate::engine::Now;
use crate::time;

/// How often the files are checked for changes, when connections are accepted.
const CHECK_INTERVAL_MS: u64 = 5_000;
/// How often a warning is repeated.
const WARN_INTERVAL_MS: u64 = 24 * 3_600_000;
/// How long before the expiry the warnings begin.
const WARN_BEFORE_MS: i64 = 30 * 24 * 3_600_000;
const DAY_MS: i64 = 24 * 3_600_000;
/// A longer file is no certificate and no key.
const FILE_BYTES_MAX: u64 = 256 * 1024;
const CERT: &str = "--tls-cert";
const KEY: &str = "--tls-key";

#[derive(Debug)]
pub(crate) struct Certificate {
    files: Files,
    config: Arc<ServerConfig>,
    /// Outlives certificates, so that clients can resume their sessions.
    tickets: Arc<dyn ProducesTickets>,
    not_after_ms: Option<i64>,
    /// The files as of the last attempt to read them.
    stamp: Option<Stamp>,
    check_ns: u64,
    warn_ns: u64,
    plaintext_response: &'static [u8],
}

/// Device, inode, length and modification time of both files, links resolved.
type Stamp = [(u64, u64, u64, i64, i64); 2];

impl Certificate {
    /// `plaintext_response` is sent to clients that do not use TLS.
    pub(crate) fn open(
        files: Files,
        plaintext_response: &'static [u8],
    ) -> Result<Self, CertificateError> {
        let stamp = stamp(&files);
        let tickets = ring::Ticketer::new().map_err(|_| CertificateError::Unusable {
            flag: KEY,
            path: files.key.clone(),
            why: "cannot be used: the kernel has no random numbers",
        })?;
        let (config, not_after_ms) = read(&files, &tickets)?;
        Ok(Self {
            files,
            config,
            tickets,
            not_after_ms,
            stamp,
            check_ns: 0,
            warn_ns: 0,
            plaintext_response,
        })
    }

    pub(crate) fn accept(&mut self, now: Now, socket: Socket) -> std::io::Result<Stream> {
        if self.check_ns <= now.mono_ns {
            self.check_ns = now.mono_ns + time::ms(CHECK_INTERVAL_MS);
            let stamp = stamp(&self.files);
            if stamp.is_some() && stamp != self.stamp {
                self.reload(now);
            }
        }
        let tls = Tls::accept(socket, Arc::clone(&self.config), self.plaintext_response)?;
        Ok(Stream::Tls(Box::new(tls)))
    }

    /// Reads the files again; keeps the old certificate if that fails.
    pub(crate) fn reload(&mut self, now: Now) {
        // Taken before reading: a change meanwhile is found by the next check.
        self.stamp = stamp(&self.files);
        match read(&self.files, &self.tickets) {
            Ok((config, not_after_ms)) => {
                (self.config, self.not_after_ms) = (config, not_after_ms);
                let days = self.days_left(now);
                log::info!(target: "tls", days_left = days; "certificate reloaded");
                self.warn_ns = now.mono_ns;
                self.warn(now);
            }
            Err(error) => {
                log::warn!(
                    target: "tls", error:% = error;
                    "cannot use the new certificate, keeping the old one"
                );
            }
        }
    }

    /// Warns if the certificate expires soon; returns when to call this again.
    pub(crate) fn warn(&mut self, now: Now) -> u64 {
        if now.mono_ns < self.warn_ns {
            return self.warn_ns;
        }
        self.warn_ns = now.mono_ns + time::ms(WARN_INTERVAL_MS);
        let cert = self.files.cert.display();
        if let Some(end_ms) = self.not_after_ms {
            let days = self.days_left(now);
            if end_ms <= now.wall_ms {
                log::error!(
                    target: "tls", file:% = cert, days_ago = -days;
                    "the certificate has expired: clients will reject it"
                );
            } else if end_ms - now.wall_ms < WARN_BEFORE_MS {
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

/// The configuration for accepting connections, and when the certificate expires.
fn read(
    files: &Files,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<(Arc<ServerConfig>, Option<i64>), CertificateError> {
    let wrong =
        |flag, path: &Path, why| CertificateError::Unusable { flag, path: path.to_owned(), why };
    let pem = contents(CERT, &files.cert)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|_| wrong(CERT, &files.cert, "is not valid PEM"))?;
    let Some(first) = chain.first() else {
        let why = "has no certificate in PEM (-----BEGIN CERTIFICATE-----)";
        return Err(wrong(CERT, &files.cert, why));
    };
    let not_after_ms = expiry::not_after_ms(first);
    let pem = contents(KEY, &files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        let locked = pem.windows(9).any(|word| word == b"ENCRYPTED");
        let why = match error {
            _ if locked => "is encrypted: decrypt it first (openssl pkey -in …)",
            rustls::pki_types::pem::Error::NoItemsFound => {
                "has no private key in PEM (-----BEGIN PRIVATE KEY-----)"
            }
            _ => "is not valid PEM",
        };
        wrong(KEY, &files.key, why)
    })?;
    let provider = Arc::new(ring::default_provider());
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            CertificateError::Mismatch { key: files.key.clone(), cert: files.cert.clone() }
        }
        rustls::Error::InvalidCertificate(_) => {
            wrong(CERT, &files.cert, "has a malformed certificate")
        }
        _ => wrong(KEY, &files.key, "has a key of an unsupported type"),
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
    // Tickets replace a session cache: nothing is stored for clients that may never return.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = tickets;
    // Each resumed session gets another one; a second would only serve parallel connections.
    config.send_tls13_tickets = 1;
    Arc::new(config)
}

fn contents(flag: &'static str, path: &Path) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |error| CertificateError::Unreadable { flag, path: path.to_owned(), error };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let why = "is too large for a PEM file";
        return Err(CertificateError::Unusable { flag, path: path.to_owned(), why });
    }
    Ok(bytes)
}

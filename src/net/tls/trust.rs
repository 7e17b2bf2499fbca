//! Turns a [`Trust`] into a `rustls` configuration.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::super::socket::Socket;
use super::channel::Tls;
use crate::engine::{Alpn, Roots, TlsFault, Trust};

/// Most configurations kept; the oldest is dropped first.
const CONFIGS_MAX: usize = 8;

/// Configurations by trust and offered protocols: connections with the same ones share a session
/// cache.
#[derive(Debug, Default)]
pub(crate) struct Trusts(Vec<(Trust, Alpn, Arc<ClientConfig>)>);

impl Trusts {
    pub(crate) fn begin(
        &mut self,
        trust: &Trust,
        alpn: Alpn,
        name: &str,
        socket: Socket,
    ) -> io::Result<Tls> {
        let config = self.config(trust, alpn)?;
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let name = bare.unwrap_or(name).to_owned();
        let name = ServerName::try_from(name).map_err(|_| TlsFault::WrongName)?;
        Tls::connect(socket, config, name)
    }

    fn config(&mut self, trust: &Trust, alpn: Alpn) -> Result<Arc<ClientConfig>, TlsFault> {
        let mut known = self.0.iter();
        if let Some((.., config)) = known.find(|(known, of, _)| known == trust && *of == alpn) {
            return Ok(Arc::clone(config));
        }
        let mut config = config(trust)?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let config = Arc::new(config);
        if self.0.len() >= CONFIGS_MAX {
            self.0.remove(0);
        }
        self.0.push((trust.clone(), alpn, Arc::clone(&config)));
        Ok(config)
    }
}

fn config(trust: &Trust) -> Result<ClientConfig, TlsFault> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(rustls::DEFAULT_VERSIONS);
    let builder = builder.map_err(|_| TlsFault::Broken)?;
    let builder = match &trust.roots {
        Roots::Public => {
            let roots = webpki_roots::TLS_SERVER_ROOTS.to_vec();
            builder.with_root_certificates(RootCertStore { roots })
        }
        Roots::Pem(pem) => {
            let mut store = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| TlsFault::RootsUnusable)?;
                store.add(certificate).map_err(|_| TlsFault::RootsUnusable)?;
            }
            if store.is_empty() {
                return Err(TlsFault::RootsUnusable);
            }
            builder.with_root_certificates(store)
        }
        Roots::Unverified => {
            let verifier = Arc::new(Unverified(provider));
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
    };
    match &trust.identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => {
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(&identity.chain_pem).collect();
            let chain = chain.map_err(|_| TlsFault::IdentityUnusable)?;
            let key = PrivateKeyDer::from_pem_slice(&identity.key_pem);
            let key = key.map_err(|_| TlsFault::IdentityUnusable)?;
            let config = builder.with_client_auth_cert(chain, key);
            config.map_err(|_| TlsFault::IdentityUnusable)
        }
    }
}

/// Accepts every certificate, but checks that the server holds its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

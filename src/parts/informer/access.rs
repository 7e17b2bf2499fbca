//! How to connect to an API server: address, TLS and authentication.

use std::collections::BTreeMap;

use crate::engine::{Roots, Target, Trust};
use crate::proto::url::{Flaw, HostPort, Parts, Protocol, Scheme, Wrong};

/// An API server, and the credentials for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Host and port.
    pub place: HostPort,
    /// Prefix of all paths, before `/apis`, without a trailing slash.
    pub prefix: String,
    /// `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// The bearer token.
    pub token: Token,
}

/// TLS settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The expected name in the certificate, if not the host.
    pub server_name: Option<String>,
    /// The trusted certificate authorities.
    pub authority: Pem,
    /// Client certificate and key.
    pub client: Option<(Pem, Pem)>,
    /// Whether to skip certificate verification.
    pub insecure: bool,
}

/// A certificate or key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pem {
    /// Not configured. As an authority: the public roots.
    #[default]
    None,
    /// The PEM text.
    Text(Vec<u8>),
    /// The path of a PEM file.
    File(String),
}

/// A bearer token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Token {
    /// Not configured.
    #[default]
    None,
    /// The token.
    Text(String),
    /// The path of a token file, which is rotated.
    File(String),
}

impl Access {
    /// Parses a URL such as `http://127.0.0.1:8001`, or the `server` of a kubeconfig.
    ///
    /// # Errors
    /// What the URL must look like.
    pub fn from_url(url: &str) -> Result<Self, Wrong> {
        let parts = Parts::read(url, Protocol::Http).map_err(|flaw| match flaw {
            Flaw::Scheme => "must begin with http:// or https://",
            _ => flaw.clause("must have a host, such as http://127.0.0.1:8001"),
        })?;
        let prefix = parts.path.trim_end_matches('/');
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
        if !prefix.bytes().all(plain) || prefix.contains("//") {
            return Err("must have a path of letters, digits and -._~/ or none");
        }
        let tls = match parts.scheme {
            Scheme::Plain => None,
            Scheme::Secured => Some(Tls::default()),
        };
        let (place, prefix) = (parts.server, prefix.to_owned());
        Ok(Self { place, prefix, tls, token: Token::None })
    }

    /// Value of the `Host` field.
    #[must_use]
    pub fn authority(&self) -> String {
        self.place.shown(self.scheme().port())
    }

    /// Whether it uses TLS.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Secured } else { Scheme::Plain }
    }

    /// `to`, which leads to the place, with the TLS settings.
    ///
    /// # Errors
    /// The file that is missing or invalid.
    pub fn target(&self, to: Target, read: &Secrets) -> Result<Target, MissingFile> {
        let Some(tls) = &self.tls else { return Ok(to) };
        let roots = if tls.insecure {
            Roots::Unverified
        } else {
            match read.pem(&tls.authority).ok_or("certificate-authority")? {
                [] => Roots::Public,
                pem => Roots::Pem(pem.into()),
            }
        };
        let mut trust = Trust { roots, identity: None };
        if let Some((certificate, key)) = &tls.client {
            let certificate = read.pem(certificate).ok_or("client-certificate")?;
            trust = trust.with_identity(certificate, read.pem(key).ok_or("client-key")?);
        }
        Ok(to.secured(tls.server_name.as_deref().unwrap_or(&self.place.name), trust))
    }

    /// Files with secrets, re-read while running.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let token = match &self.token {
            Token::File(path) => Some(path),
            Token::None | Token::Text(_) => None,
        };
        token.into_iter().chain(self.pem_files()).cloned().collect()
    }

    /// Whether [`Access::files`] is not empty.
    #[must_use]
    pub fn has_files(&self) -> bool {
        matches!(self.token, Token::File(_)) || self.pem_files().next().is_some()
    }

    fn pem_files(&self) -> impl Iterator<Item = &String> {
        let pems = self.tls.iter().flat_map(|tls| {
            let client = tls.client.iter().flat_map(|(certificate, key)| [certificate, key]);
            [&tls.authority].into_iter().chain(client)
        });
        pems.filter_map(|pem| match pem {
            Pem::File(path) => Some(path),
            Pem::None | Pem::Text(_) => None,
        })
    }
}

/// The kubeconfig field whose file is missing or invalid.
pub type MissingFile = &'static str;

/// The contents of [`Access::files`]. Half-written files do not replace older contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    token: Option<String>,
    pems: BTreeMap<String, Vec<u8>>,
}

impl Secrets {
    /// Before any file is read.
    #[must_use]
    pub fn new(access: &Access) -> Self {
        let token = match &access.token {
            Token::Text(token) => Some(token.clone()),
            Token::None | Token::File(_) => None,
        };
        Self { token, pems: BTreeMap::new() }
    }

    /// Stores the content of a file, if it is valid.
    pub fn fetched(&mut self, access: &Access, path: &str, bytes: &[u8]) {
        if matches!(&access.token, Token::File(file) if file == path)
            && let Some(token) = token(bytes)
        {
            self.token = Some(token);
        }
        if access.pem_files().any(|file| file == path) && is_whole(bytes) {
            self.pems.insert(path.to_owned(), bytes.to_vec());
        }
    }

    /// The bearer token, if one is configured.
    ///
    /// # Errors
    /// The token file is missing or invalid.
    pub fn token(&self, access: &Access) -> Result<Option<&str>, MissingFile> {
        match (&self.token, &access.token) {
            (None, Token::File(_)) => Err("token"),
            (token, _) => Ok(token.as_deref()),
        }
    }

    /// Empty if not configured; `None` if the file is missing or invalid.
    fn pem<'a>(&'a self, pem: &'a Pem) -> Option<&'a [u8]> {
        match pem {
            Pem::None => Some(&[]),
            Pem::Text(bytes) => Some(bytes),
            Pem::File(path) => self.pems.get(path).map(Vec::as_slice),
        }
    }
}

/// Whether every section of a PEM file is complete (RFC 7468 §2).
fn is_whole(bytes: &[u8]) -> bool {
    let lines = || bytes.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    let begun = lines().filter(|line| line.starts_with(b"-----BEGIN ")).count();
    let ended = |line: &&[u8]| line.starts_with(b"-----END ") && line[9..].ends_with(b"-----");
    begun > 0 && begun == lines().filter(ended).count()
}

/// Parses a token file; `None` if it is empty, too long or has invalid characters.
#[must_use]
pub fn token(bytes: &[u8]) -> Option<String> {
    const TOKEN_BYTES_MAX: usize = 16 * 1024;
    let token = std::str::from_utf8(bytes).ok()?.trim();
    let valid = !token.is_empty()
        && token.len() <= TOKEN_BYTES_MAX
        && token.bytes().all(|b| b.is_ascii_graphic());
    valid.then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_urls() {
        for (url, authority, prefix, tls) in [
            ("http://127.0.0.1:8001", "127.0.0.1:8001", "", false),
            ("http://localhost", "localhost", "", false),
            ("https://k8s.example/", "k8s.example", "", true),
            (
                "https://[fd00::1]:6443/k8s/clusters/c-1/",
                "[fd00::1]:6443",
                "/k8s/clusters/c-1",
                true,
            ),
        ] {
            if tls && cfg!(not(feature = "tls")) {
                assert!(Access::from_url(url).unwrap_err().starts_with("needs TLS"));
                continue;
            }
            let access = Access::from_url(url).unwrap();
            assert_eq!((&*access.authority(), &*access.prefix), (authority, prefix));
            assert_eq!(access.tls.is_some(), tls);
        }
    }

    #[test]
    fn invalid_urls() {
        for (url, why) in [
            ("127.0.0.1:8001", "begin with http://"),
            ("ftp://x", "begin with http://"),
            ("http://", "have a host"),
            ("http://a b", "have a host"),
            ("http://user@host", "not have a user"),
            ("http://[::1", "have a host"),
            ("http://[x]", "have a host"),
            ("http://x:0", "have a port from 1"),
            ("http://x:99999", "have a port from 1"),
            ("http://x/?a", "have a path of letters"),
            ("http://x?a", "have a path of letters"),
            ("http://x/a//b", "have a path of letters"),
            ("http://x/\r\n", "have only visible ASCII"),
        ] {
            let said = Access::from_url(url).unwrap_err();
            assert!(said.starts_with(&format!("must {why}")), "{url}: {said}");
        }
    }

    #[test]
    #[cfg(feature = "tls")]
    fn missing_files_are_named_and_half_files_are_ignored() {
        let mut access = Access::from_url("https://k8s.example").unwrap();
        access.token = Token::File("token".into());
        let file = |path: &str| Pem::File(path.into());
        let to = || Target::host("k8s.example", 443);
        let client = Some((file("crt"), file("key")));
        let server_name = Some("kubernetes".to_owned());
        access.tls = Some(Tls { authority: file("ca"), client, server_name, insecure: false });
        assert_eq!(access.files(), ["token", "ca", "crt", "key"]);
        let mut read = Secrets::new(&access);
        let pem = b"# ours\n-----BEGIN X-----\nQUJD\n-----END X-----\n";
        for (path, missing) in
            [("ca", "certificate-authority"), ("crt", "client-certificate"), ("key", "client-key")]
        {
            assert_eq!(access.target(to(), &read), Err(missing));
            read.fetched(&access, path, &pem[..pem.len() - 2]);
            assert_eq!(access.target(to(), &read), Err(missing), "half of {path}");
            read.fetched(&access, path, pem);
        }
        assert_eq!(read.token(&access), Err("token"));
        read.fetched(&access, "token", b"abc\n");
        let whole = read.clone();
        for path in ["token", "ca", "elsewhere"] {
            read.fetched(&access, path, b"-----BEGIN X-----\n");
        }
        assert_eq!(read, whole, "half-written files keep the old content");
        assert_eq!(read.token(&access), Ok(Some("abc")));
        let trust = Trust::pem(pem).with_identity(pem, pem);
        let target = to().secured("kubernetes", trust);
        assert_eq!(access.target(to(), &read), Ok(target));
        access.tls.as_mut().unwrap().insecure = true;
        let trust = Trust::unverified().with_identity(pem, pem);
        let target = to().secured("kubernetes", trust);
        assert_eq!(access.target(to(), &read), Ok(target));
        access.tls = Some(Tls::default());
        let target = to().secured("k8s.example", Trust::public());
        assert_eq!(access.target(to(), &read), Ok(target));
    }

    #[test]
    fn invalid_tokens() {
        assert_eq!(token(b"abc.def\n").as_deref(), Some("abc.def"));
        for bytes in [&b""[..], b"\n", b"a b", b"a\0", b"\xff"] {
            assert_eq!(token(bytes), None);
        }
    }
}

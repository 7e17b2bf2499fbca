//! Finds API server and credentials in one or more kubeconfigs. Plugins that run other programs are
//! not supported.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::access::{Access, Pem, Tls, Token};
use super::yaml;
use crate::proto::url::Wrong;

/// Why a kubeconfig cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeconfigError {
    /// A file is not YAML or JSON, or has a field of the wrong type.
    Unreadable(String),
    /// No file has a current context.
    NoContext,
    /// This context, cluster or user does not exist.
    Missing(&'static str, String),
    /// The URL of the server is invalid.
    Server(Wrong),
    /// The data of this field is not base64.
    Data(&'static str),
    /// A feature that is not supported.
    Unsupported(&'static str),
}

impl fmt::Display for KubeconfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path) => write!(f, "{path} cannot be read as a kubeconfig"),
            Self::NoContext => f.write_str("the kubeconfig has no current context: --kube-context"),
            Self::Missing(what, name) => write!(f, "the kubeconfig has no {what} {name:?}"),
            Self::Server(bad) => write!(f, "the server in the kubeconfig {bad}"),
            Self::Data(field) => write!(f, "{field} in the kubeconfig is no base64"),
            Self::Unsupported(what) => write!(
                f,
                "the kubeconfig wants {what}: run kubectl proxy, and use --kube \
                 http://127.0.0.1:8001"
            ),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    current_context: Option<String>,
    contexts: Option<Vec<NamedContext>>,
    clusters: Option<Vec<NamedCluster>>,
    users: Option<Vec<NamedUser>>,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    #[serde(default)]
    name: String,
    context: Context,
}

#[derive(Debug, Deserialize)]
struct Context {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    user: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    #[serde(default)]
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    #[serde(default)]
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: Option<bool>,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    #[serde(default)]
    name: String,
    user: Option<User>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
    username: Option<String>,
    r#as: Option<String>,
}

/// Resolves a context. Earlier files take precedence; an empty name means the current context.
///
/// # Errors
/// Why the context cannot be used.
pub fn read(files: &[(String, Vec<u8>)], context: &str) -> Result<Access, KubeconfigError> {
    let mut read = Vec::new();
    for (path, bytes) in files {
        let unreadable = || KubeconfigError::Unreadable(path.clone());
        let text = std::str::from_utf8(bytes).map_err(|_| unreadable())?;
        let value = yaml::read(text).ok_or_else(unreadable)?;
        let file: Option<File> = serde_json::from_value(value).map_err(|_| unreadable())?;
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        read.push((folder, file.unwrap_or_default()));
    }
    let current = read.iter().find_map(|(_, file)| file.current_context.as_deref());
    let named = if context.is_empty() { current } else { Some(context) };
    let name = named.ok_or(KubeconfigError::NoContext)?;
    let context = read
        .iter()
        .find_map(|(_, file)| file.contexts.iter().flatten().find(|one| one.name == name))
        .ok_or_else(|| KubeconfigError::Missing("context", name.to_owned()))?;
    let cluster = &context.context.cluster;
    let (folder, found) = read
        .iter()
        .find_map(|(folder, file)| {
            let one = file.clusters.iter().flatten().find(|one| one.name == *cluster)?;
            Some((*folder, &one.cluster))
        })
        .ok_or_else(|| KubeconfigError::Missing("cluster", cluster.clone()))?;
    let mut access = reach(folder, found)?;
    if let Some(user) = &context.context.user {
        let (folder, found) = read
            .iter()
            .find_map(|(folder, file)| {
                let one = file.users.iter().flatten().find(|one| one.name == *user)?;
                Some((*folder, one.user.as_ref()))
            })
            .ok_or_else(|| KubeconfigError::Missing("user", user.clone()))?;
        if let Some(user) = found {
            identify(&mut access, folder, user)?;
        }
    }
    Ok(access)
}

fn reach(folder: &str, cluster: &Cluster) -> Result<Access, KubeconfigError> {
    if cluster.proxy_url.is_some() {
        return Err(KubeconfigError::Unsupported("a proxy"));
    }
    let mut access = Access::from_url(&cluster.server).map_err(KubeconfigError::Server)?;
    if let Some(tls) = &mut access.tls {
        *tls = Tls {
            server_name: cluster.tls_server_name.clone(),
            authority: pem(
                folder,
                ("certificate-authority-data", cluster.certificate_authority_data.as_ref()),
                cluster.certificate_authority.as_ref(),
            )?,
            client: None,
            insecure: cluster.insecure_skip_tls_verify.unwrap_or(false),
        };
    }
    Ok(access)
}

fn identify(access: &mut Access, folder: &str, user: &User) -> Result<(), KubeconfigError> {
    for (asked, what) in [
        (user.exec.is_some(), "an exec plugin"),
        (user.auth_provider.is_some(), "an auth provider"),
        (user.username.is_some(), "a user name and password"),
        (user.r#as.is_some(), "impersonation"),
    ] {
        if asked {
            return Err(KubeconfigError::Unsupported(what));
        }
    }
    // As in client-go, the file takes precedence.
    access.token = match (&user.token_file, &user.token) {
        (Some(path), _) => Token::File(beside(folder, path)),
        (None, Some(token)) => Token::Text(token.trim().to_owned()),
        (None, None) => Token::None,
    };
    let data = user.client_certificate_data.as_ref();
    let certificate =
        pem(folder, ("client-certificate-data", data), user.client_certificate.as_ref())?;
    let data = user.client_key_data.as_ref();
    let key = pem(folder, ("client-key-data", data), user.client_key.as_ref())?;
    if let Some(tls) = &mut access.tls
        && certificate != Pem::None
        && key != Pem::None
    {
        tls.client = Some((certificate, key));
    }
    Ok(())
}

/// As in client-go, data takes precedence over a file.
fn pem(
    folder: &str,
    (field, data): (&'static str, Option<&String>),
    file: Option<&String>,
) -> Result<Pem, KubeconfigError> {
    match (data, file) {
        (Some(data), _) => {
            let clean: String = data.split_ascii_whitespace().collect();
            STANDARD.decode(clean).map(Pem::Text).map_err(|_| KubeconfigError::Data(field))
        }
        (None, Some(path)) => Ok(Pem::File(beside(folder, path))),
        (None, None) => Ok(Pem::None),
    }
}

/// Resolves a path relative to the folder of the kubeconfig.
fn beside(folder: &str, path: &str) -> String {
    if path.starts_with('/') || folder.is_empty() {
        path.to_owned()
    } else {
        format!("{folder}/{path}")
    }
}

// Most cases need TLS.
#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
apiVersion: v1
kind: Config
current-context: dev   # the usual one
contexts:
- name: dev
  context: {cluster: local, user: me, namespace: shop}
- name: tokens
  context:
    cluster: "far"
    user: file
- {name: plugin, context: {cluster: far, user: eks}}
- {name: lost, context: {cluster: nowhere, user: me}}
clusters:
- cluster:
    server: http://127.0.0.1:8001
  name: local
- cluster:
    certificate-authority-data: |
      QUJD
      REVG
    server: https://k8s.example:6443
    tls-server-name: kubernetes
    insecure-skip-tls-verify: false
  name: far
users:
- name: me
  user:
    token: abc
- name: file
  user:
    tokenFile: secrets/token
    client-certificate: me.crt
    client-key: /etc/me.key
- name: eks
  user:
    exec:
      command: aws
"#;

    fn one(context: &str) -> Result<Access, KubeconfigError> {
        read(&[("/home/me/.kube/config".to_owned(), CONFIG.as_bytes().to_vec())], context)
    }

    #[test]
    fn usable_contexts() {
        let dev = one("").unwrap();
        assert_eq!((&*dev.authority(), dev.tls), ("127.0.0.1:8001", None));
        assert_eq!(dev.token, Token::Text("abc".to_owned()));
        let far = one("tokens").unwrap();
        assert_eq!(far.token, Token::File("/home/me/.kube/secrets/token".to_owned()));
        let tls = far.tls.unwrap();
        assert_eq!(tls.authority, Pem::Text(b"ABCDEF".to_vec()));
        assert_eq!(tls.server_name.as_deref(), Some("kubernetes"));
        let file = |path: &str| Pem::File(path.to_owned());
        assert_eq!(tls.client, Some((file("/home/me/.kube/me.crt"), file("/etc/me.key"))));
    }

    #[test]
    fn unusable_contexts() {
        let plugin = one("plugin").unwrap_err();
        assert_eq!(plugin, KubeconfigError::Unsupported("an exec plugin"));
        let remedy = "the kubeconfig wants an exec plugin: run kubectl proxy, and use --kube \
                      http://127.0.0.1:8001";
        assert_eq!(plugin.to_string(), remedy);
        assert_eq!(one("lost"), Err(KubeconfigError::Missing("cluster", "nowhere".to_owned())));
        assert_eq!(one("x"), Err(KubeconfigError::Missing("context", "x".to_owned())));
        let bomb = "a: &a [x,x]\nb: &b [*a,*a]\n";
        for text in [bomb, "{", "contexts: 7", "\t", &"[".repeat(100), "- - -", "\u{0}"] {
            let files = [("c".to_owned(), text.as_bytes().to_vec())];
            let unusable = read(&files, "x").unwrap_err();
            let fits =
                matches!(unusable, KubeconfigError::Unreadable(_) | KubeconfigError::Missing(..));
            assert!(fits, "{text:?}: {unusable:?}");
        }
        assert_eq!(read(&[], ""), Err(KubeconfigError::NoContext));
    }

    /// Tools write all fields, empty where they are not set.
    #[test]
    fn empty_strings_are_unset() {
        let full = CONFIG
            .replace("    token: abc\n", "    token: ''\n    username: \"\"\n    as: ''\n")
            .replace(
                "    tls-server-name: kubernetes\n",
                "    tls-server-name: ''\n    proxy-url: \"\"\n",
            )
            .replace("    tokenFile: secrets/token\n", "    tokenFile: \"\"\n    token: t\n")
            .replace("    client-certificate: me.crt\n", "    client-certificate: ''\n");
        let files = [
            ("/a/1".to_owned(), b"current-context: ''".to_vec()),
            ("/b/2".to_owned(), full.into_bytes()),
        ];
        assert_eq!(read(&files, "").unwrap().token, Token::None);
        let far = read(&files, "tokens").unwrap();
        assert_eq!(far.token, Token::Text("t".to_owned()));
        let tls = far.tls.unwrap();
        assert_eq!((tls.server_name, tls.client), (None, None));
        let nothing = CONFIG.replace("    server: http://127.0.0.1:8001\n", "    server: ''\n");
        let error = read(&[("c".to_owned(), nothing.into_bytes())], "").unwrap_err();
        assert!(matches!(error, KubeconfigError::Server(_)), "{error:?}");
    }

    #[test]
    fn the_first_file_takes_precedence() {
        let json =
            br#"{"current-context":"tokens","users":[{"name":"file","user":{"token":"t"}}]}"#;
        let files =
            [("/a/1".to_owned(), json.to_vec()), ("/b/2".to_owned(), CONFIG.as_bytes().to_vec())];
        assert_eq!(read(&files, "").unwrap().token, Token::Text("t".to_owned()));
    }
}

//! The informer and an API server with its own certificate authority: trust, credentials, error
//! messages, and recovery once the files are correct.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::running::PATIENCE;
use super::tls::Authority;
use super::*;

/// A real API server that answers lists and watches, and records its clients.
struct Api {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// The request and the credentials of each connection.
    asked: Receiver<String>,
}

#[derive(Default)]
struct State {
    /// Other tokens get 401.
    token: String,
    /// Deployments: name and replicas.
    names: Vec<&'static str>,
    open: Vec<TcpStream>,
}

impl Api {
    /// With the certificate `name.pem` of this folder.
    fn start(folder: &Folder, authority: &Authority, name: &str) -> Self {
        let config = Arc::new(config(folder, authority, name));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { names: vec!["web"], ..State::default() }));
        let (sender, asked) = channel();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                shared.lock().unwrap().open.push(socket.try_clone().unwrap());
                let session = ServerConnection::new(Arc::clone(&config)).unwrap();
                let (shared, sender) = (Arc::clone(&shared), sender.clone());
                let stream = StreamOwned::new(session, socket);
                std::thread::spawn(move || serve(stream, &shared, &sender));
            }
        });
        Self { address, state, asked }
    }

    fn asked(&self) -> String {
        self.asked.recv_timeout(PATIENCE).unwrap()
    }

    /// Changes its state and closes all connections.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap();
        change(&mut state);
        for socket in state.open.drain(..) {
            // It may be closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn config(folder: &Folder, authority: &Authority, name: &str) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots);
    let guard = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let guard = guard.allow_unauthenticated().build().unwrap();
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_client_cert_verifier(guard);
    let file = |ending: &str| folder.0.join(format!("{name}.{ending}"));
    let chain = vec![CertificateDer::from_pem_file(file("pem")).unwrap()];
    config.with_single_cert(chain, PrivateKeyDer::from_pem_file(file("key")).unwrap()).unwrap()
}

/// Serves a connection until it ends.
fn serve(
    mut stream: StreamOwned<ServerConnection, TcpStream>,
    state: &Mutex<State>,
    asked: &Sender<String>,
) {
    let mut input = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        let Ok(n @ 1..) = stream.read(&mut bytes) else { return };
        input.extend_from_slice(&bytes[..n]);
        let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head: Vec<u8> = input.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let target = head.split(' ').nth(1).unwrap();
        if target.contains("sendInitialEvents") {
            // As Kubernetes 1.20 does.
            let answer = b"HTTP/1.1 422 X\r\nContent-Length: 2\r\n\r\n{}";
            if stream.write_all(answer).is_err() {
                return;
            }
            continue;
        }
        let token = field("Authorization: Bearer ").unwrap_or("");
        let known = if stream.conn.peer_certificates().is_some() { "certificate" } else { "" };
        let what = if target.contains("watch=true") { "watch" } else { "list" };
        let state = state.lock().unwrap();
        let answer = if !state.token.is_empty() && state.token != token {
            "HTTP/1.1 401 X\r\nContent-Length: 2\r\n\r\n{}".to_owned()
        } else if what == "watch" {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()
        } else {
            list(&state.names)
        };
        drop(state);
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
        // The test may be over.
        let _ = asked.send(format!("{what} {token}{known}"));
    }
}

fn list(names: &[&str]) -> String {
    let item = |name: &&str| {
        format!(
            "{{\"metadata\":{{\"namespace\":\"n\",\"name\":\"{name}\",\"uid\":\"{name}\",\
             \"resourceVersion\":\"1\"}},\"spec\":{{\"replicas\":1}}}}"
        )
    };
    let items: Vec<String> = names.iter().map(item).collect();
    let items = items.join(",");
    let body = format!("{{\"metadata\":{{\"resourceVersion\":\"7\"}},\"items\":[{items}]}}");
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Writes a kubeconfig; `cluster` and `user` are lines of it.
fn kubeconfig(folder: &Folder, api: &Api, host: &str, cluster: &[&str], user: &[&str]) -> String {
    let lines = |lines: &[&str]| {
        let indented: Vec<String> = lines.iter().map(|line| format!("    {line}\n")).collect();
        indented.concat()
    };
    let text = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters:\n- name: k\n  cluster:\n    server: https://{host}:{}\n{}\
         users:\n- name: u\n  user:\n{}",
        api.address.port(),
        lines(cluster),
        lines(user),
    );
    let path = folder.0.join("config");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn start(arguments: &[&str], config: &str) -> Server {
    let mut command = Command::new(PROGRAM);
    command.args(LISTENERS).args(arguments);
    Server::run_in(command, &[("KUBECONFIG", config)])
}

fn viewer(server: &Server) -> Client {
    Client::upgraded(server.main, "/api/wds/logs?format=json", &[])
}

/// The next frame in short.
fn news(viewer: &mut Client) -> String {
    let line = viewer.line();
    let json = line.strip_prefix("text ").unwrap_or_else(|| panic!("{line}"));
    let json: String = serde_json::from_str(json).unwrap();
    let event: Value = serde_json::from_str(&json).unwrap();
    let word = |name: &str| event[name].as_str().unwrap_or("").to_owned();
    format!("{} {}{}", word("type"), word("name"), word("reason"))
}

/// The kernel probes the peer, so that a dead one is noticed long before the watch times out.
#[test]
fn a_silent_api_server_is_probed() {
    let Scene { folder, api, .. } = scene("kube-probes");
    let ca = ["certificate-authority: ca.pem"];
    let config = kubeconfig(&folder, &api, "localhost", &ca, &[]);
    let server = start(&[], &config);
    let mut viewer = viewer(&server);
    assert_eq!([news(&mut viewer), news(&mut viewer)], ["added web", "synced "]);
    let name = format!("{:04X}", api.address.port());
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    // The remote address, the state (established) and the timer: 2 is that of keepalive.
    let timers: Vec<&str> = sockets
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[2].ends_with(&name) && fields[3] == "01")
        .map(|fields| fields[5])
        .collect();
    assert!(timers.iter().any(|timer| timer.starts_with("02:")), "{timers:?}");
}

const NOT_TRUSTED: &str = "no TLS with the API server: its certificate is not trusted";
const WRONG_NAME: &str = "no TLS with the API server: its certificate is for another name";

struct Scene {
    folder: Folder,
    authority: Authority,
    api: Api,
}

/// An API server with a certificate for localhost.
fn scene(name: &str) -> Scene {
    let (folder, authority) = (Folder::new(name), Authority::new());
    authority.issue(&folder, "api", 2100);
    authority.issue(&folder, "me", 2100);
    fs::write(folder.0.join("ca.pem"), authority.certificate.pem()).unwrap();
    let api = Api::start(&folder, &authority, "api");
    Scene { folder, authority, api }
}

#[test]
fn a_token_that_changes() {
    let Scene { folder, api, .. } = scene("kube-token");
    fs::write(folder.0.join("token"), "first\n").unwrap();
    api.change(|state| state.token = "first".to_owned());
    let (cluster, user) = (["certificate-authority: ca.pem"], ["tokenFile: token"]);
    let config = kubeconfig(&folder, &api, "localhost", &cluster, &user);
    let server = start(&[], &config);
    let mut viewer = viewer(&server);
    let snapshot = ["added web", "synced "];
    assert_eq!([news(&mut viewer), news(&mut viewer)], snapshot);
    assert_eq!([api.asked(), api.asked()], ["list first", "watch first"]);
    fs::write(folder.0.join("token"), "second\n").unwrap();
    api.change(|state| state.token = "second".to_owned());
    // The old token is rejected; the file is read before the next attempt. Whether the closed
    // connection is reported depends on where it was cut.
    assert_eq!(api.asked(), "watch first");
    let mut got = news(&mut viewer);
    if got == "stale the connection to the API server is lost" {
        got = news(&mut viewer);
    }
    assert_eq!(got, "stale the API server does not accept the token");
    assert_eq!(api.asked(), "watch second");
    assert_eq!(news(&mut viewer), "synced ");
}

#[test]
fn a_wrong_authority_is_reported_and_the_right_one_is_loaded() {
    let Scene { folder, authority, api } = scene("kube-authority");
    fs::write(folder.0.join("ca.pem"), Authority::new().certificate.pem()).unwrap();
    let config = kubeconfig(&folder, &api, "localhost", &["certificate-authority: ca.pem"], &[]);
    let mut server = start(&[], &config);
    let mut viewer = viewer(&server);
    assert_eq!(news(&mut viewer), format!("stale {NOT_TRUSTED}"));
    let record = server.wait_for("informer");
    assert_eq!((&record["level"], &record["message"]), (&"warn".into(), &NOT_TRUSTED.into()));
    assert_eq!(record["host"], format!("localhost:{}", api.address.port()));
    // An incomplete file changes nothing.
    let pem = authority.certificate.pem();
    fs::write(folder.0.join("ca.pem"), &pem[..pem.len() / 2]).unwrap();
    server.wait_for("informer");
    fs::write(folder.0.join("ca.pem"), pem).unwrap();
    server.signal("HUP");
    assert_eq!([news(&mut viewer), news(&mut viewer)], ["added web", "synced "]);
}

#[test]
fn client_certificates_server_names_and_skipped_verification() {
    let Scene { folder, api, .. } = scene("kube-certificate");
    let me = ["client-certificate: me.pem", "client-key: me.key"];
    let ca = "certificate-authority: ca.pem";
    for (host, cluster, user, asked) in [
        ("localhost", &[ca][..], &me[..], Ok("list certificate")),
        ("127.0.0.1", &[ca, "tls-server-name: localhost"], &[], Ok("list ")),
        ("127.0.0.1", &["insecure-skip-tls-verify: true"], &["token: t"], Ok("list t")),
        ("127.0.0.1", &[ca], &[], Err(WRONG_NAME)),
        ("localhost", &[], &[], Err(NOT_TRUSTED)),
        ("a..b", &[ca], &[], Err("the API server cannot be reached: its name cannot be looked up")),
        (
            "localhost",
            &["certificate-authority: no.pem"],
            &[],
            Err("the certificate-authority cannot be read from its file"),
        ),
        ("localhost", &[ca], &["tokenFile: no"], Err("the token cannot be read from its file")),
    ] {
        let config = kubeconfig(&folder, &api, host, cluster, user);
        let server = start(&["--kube", "kubeconfig"], &config);
        let mut viewer = viewer(&server);
        match asked {
            Ok(asked) => {
                assert_eq!(news(&mut viewer), "added web", "{host} {cluster:?}");
                assert_eq!((&*api.asked(), &api.asked()[..6]), (asked, "watch "));
            }
            Err(why) => assert_eq!(news(&mut viewer), format!("stale {why}")),
        }
    }
}

#[test]
fn sighup_follows_the_kubeconfig_to_another_cluster() {
    let Scene { folder, authority, api } = scene("kube-hangup");
    let other = Api::start(&folder, &authority, "api");
    other.change(|state| state.names = vec!["db", "web"]);
    let ca = ["certificate-authority: ca.pem"];
    let config = kubeconfig(&folder, &api, "localhost", &ca, &["token: one"]);
    let mut server = start(&[], &config);
    let mut viewer = viewer(&server);
    assert_eq!([news(&mut viewer), news(&mut viewer)], ["added web", "synced "]);
    fs::write(&config, "contexts: 7").unwrap();
    server.signal("HUP");
    let record = loop {
        let record = server.wait_for("informer");
        if record["level"] == "warn" {
            break record;
        }
    };
    assert_eq!(record["message"], "cannot use the new kubeconfig, keeping the old one");
    kubeconfig(&folder, &other, "localhost", &ca, &["token: two"]);
    server.signal("HUP");
    assert_eq!(other.asked(), "list two");
    assert_eq!(news(&mut viewer), "added db");
}

#[test]
fn an_unusable_kubeconfig_is_reported_at_start() {
    let folder = Folder::new("kube-broken");
    let config = folder.0.join("config");
    fs::write(&config, "current-context: x").unwrap();
    let config = config.to_str().unwrap();
    let server = start(&[], config);
    let kube = server.logged("kube");
    assert_eq!(kube.len(), 1, "{:?}", server.log);
    assert_eq!(kube[0]["error"], "the kubeconfig has no context \"x\"");
    let mut viewer = Client::upgraded(server.main, "/api/wds/logs", &[]);
    assert_eq!(viewer.line(), "text \"Error getting Kubernetes client\"");
    assert_eq!(viewer.line(), "close 1011 \"the kubeconfig has no context \\\"x\\\"\"");
    let asked = [&LISTENERS[..], &["--kube", "kubeconfig", "--log-format", "text"]].concat();
    let (code, _, stderr) = output(&asked, &[("KUBECONFIG", config)]);
    assert_eq!((code, &*stderr), (1, "wspulse: --kube: the kubeconfig has no context \"x\"\n"));
    for asked in [&["--check", "--kube", "kubeconfig"][..], &["--check"]] {
        let asked = [&LISTENERS[..], asked].concat();
        let (code, stdout, stderr) = output(&asked, &[("KUBECONFIG", config)]);
        assert!(stderr.contains("the kubeconfig has no context"), "{asked:?}: {stderr}");
        // Without `--kube` the server starts, and says why it shows nothing.
        let is_explicit = asked.contains(&"--kube");
        assert_eq!((code, stdout.is_empty()), (i32::from(is_explicit), is_explicit));
    }
    let (code, _, stderr) = output(&asked, &[("KUBECONFIG", "/no/such:/neither")]);
    let want = "wspulse: --kube: no kubeconfig found: looked for /no/such, /neither\n";
    assert_eq!((code, &*stderr), (1, want));
}

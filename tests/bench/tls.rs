//! What TLS costs: messages, handshakes and idle connections, beside other servers with TLS.
//! In the command of another server, `{cert}` and `{key}` are files in PEM, and `{plain}` is the
//! port of a wspulse without TLS, for a proxy that ends TLS in front of it.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::counts::growth_of;
use crate::measure::{ROUNDS, cost, row};
use crate::peers::upgrade;
use crate::servers::{Server, on_core};

/// Concurrent clients that make full handshakes.
const THREADS: usize = 16;
/// Full handshakes of each of them.
const HANDSHAKES: usize = 100;
const IDLE: u64 = 1_000;
const WORKLOADS: &[(&str, &str)] = &[
    ("64 × 20 B", "64 20 1 time 1500"),
    ("16 × 1 KiB", "16 1024 1 time 1500"),
    ("16 × 16 KiB", "16 16384 1 time 1500"),
    ("4 × 1 MiB", "4 1048576 1 time 1500"),
    ("resumed handshake, echo, close", "64 20 1 churn 3000"),
    (FULL, ""),
];
const FULL: &str = "full handshake, echo, close";

/// A certificate for localhost and its key, ended with this value.
struct Files {
    folder: PathBuf,
    cert: String,
    key: String,
}

impl Files {
    fn new() -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("wspulse-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let made = made.map_err(io::Error::other)?;
        let file = |name: &str, pem: String| -> io::Result<String> {
            let path = folder.join(name);
            fs::write(&path, pem)?;
            Ok(path.to_string_lossy().into_owned())
        };
        let cert = file("cert.pem", made.cert.pem())?;
        let key = file("key.pem", made.signing_key.serialize_pem())?;
        Ok(Self { folder, cert, key })
    }

    fn wspulse(&self) -> io::Result<Server> {
        Server::wspulse_with(&["--tls-cert", &self.cert, "--tls-key", &self.key])
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // Left behind in the worst case.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Another server, and the server behind it if it is a proxy.
struct Other {
    name: String,
    server: Server,
    behind: Option<Server>,
}

impl Other {
    fn start(command: &str, files: &Files) -> io::Result<Self> {
        let behind = command.contains("{plain}").then(Server::wspulse).transpose()?;
        let port = behind.as_ref().map_or(0, |server| server.address.port()).to_string();
        let names = [("{cert}", &*files.cert), ("{key}", &*files.key), ("{plain}", &*port)];
        let server = Server::other_with(command, &names)?;
        let program = command.split(' ').next().unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self { name, server, behind })
    }

    /// Nanoseconds of the server's CPU a message, and of both servers if there are two.
    fn cost(&self, spec: &str, files: &Files) -> io::Result<(f64, Option<f64>)> {
        let Some(behind) = &self.behind else {
            return Ok((measured(&self.server, spec, files)?, None));
        };
        let (before, behind_before) = (self.server.cpu_ns()?, behind.cpu_ns()?);
        let alone = measured(&self.server, spec, files)?;
        let spent = (self.server.cpu_ns()? - before) as f64;
        let spent_behind = (behind.cpu_ns()? - behind_before) as f64;
        Ok((alone, Some(alone * (spent + spent_behind) / spent)))
    }
}

/// The rows that are wanted, wspulse and the others in turn.
pub(crate) fn table(beside: &[&str], wanted: impl Fn(&str) -> bool) -> io::Result<()> {
    let files = Files::new()?;
    println!(
        "| TLS, server CPU | beside | ratio, median of {ROUNDS} | min–max | wspulse | other |"
    );
    println!("|---|---|---|---|---|---|");
    for (name, spec) in WORKLOADS.iter().filter(|(name, _)| wanted(name)) {
        rows(name, spec, beside, &files)?;
    }
    if !wanted("idle") {
        return Ok(());
    }
    println!(
        "\n| RSS an idle connection with TLS, of {IDLE}, after one echo of 20 B | |\n|---|---|"
    );
    let spec = format!("{IDLE} 20 1 idle 5000");
    println!("| wspulse | {} B |", growth_of(&files.wspulse()?, "tls", &spec, IDLE)?);
    for command in beside {
        let other = Other::start(command, &files)?;
        println!("| {} | {} B |", other.name, growth_of(&other.server, "tls", &spec, IDLE)?);
    }
    Ok(())
}

fn rows(name: &str, spec: &str, beside: &[&str], files: &Files) -> io::Result<()> {
    let ours = files.wspulse()?;
    let plain = Server::wspulse()?;
    let others: io::Result<Vec<_>> =
        beside.iter().map(|command| Other::start(command, files)).collect();
    let others = others?;
    let mut without = Vec::new();
    let mut pairs = vec![(Vec::new(), Vec::new()); others.len()];
    for _ in 0..ROUNDS {
        let ours_ns = measured(&ours, spec, files)?;
        if !spec.is_empty() {
            without.push((ours_ns, cost(&plain, "websocket", spec)?));
        }
        for (other, (alone, both)) in others.iter().zip(&mut pairs) {
            let (other_ns, both_ns) = other.cost(spec, files)?;
            alone.push((ours_ns, other_ns));
            both.extend(both_ns.map(|both_ns| (ours_ns, both_ns)));
        }
    }
    if !without.is_empty() {
        row(&format!("{name} | itself without TLS"), &without);
    }
    for (other, (alone, both)) in others.iter().zip(&pairs) {
        row(&format!("{name} | {}", other.name), alone);
        if !both.is_empty() {
            row(&format!("{name} | {} and wspulse behind it", other.name), both);
        }
    }
    Ok(())
}

/// Nanoseconds of the server's CPU a message, or a full handshake.
fn measured(server: &Server, spec: &str, files: &Files) -> io::Result<f64> {
    if !spec.is_empty() {
        return cost(server, "tls", spec);
    }
    let before = server.cpu_ns()?;
    let own = std::env::current_exe()?;
    let mut command = on_core("1", &own.to_string_lossy());
    command.arg("handshakes").arg(server.address.to_string()).arg(&files.cert);
    if !command.stdout(Stdio::null()).status()?.success() {
        return Err(io::Error::other("a handshake failed"));
    }
    Ok((server.cpu_ns()? - before) as f64 / (THREADS * HANDSHAKES) as f64)
}

/// Clients that never resume a session: each connects, has one message echoed and closes.
pub(crate) fn handshakes(address: &str, cert: &str) -> io::Result<()> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    let cert = CertificateDer::from_pem_file(cert).map_err(io::Error::other)?;
    roots.add(cert).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_protocol_versions(rustls::DEFAULT_VERSIONS);
    let mut config =
        config.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let config = Arc::clone(&config);
            thread::spawn(move || (0..HANDSHAKES).try_for_each(|_| once(address, &config)))
        })
        .collect();
    threads
        .into_iter()
        .try_for_each(|thread| thread.join().map_err(|_| io::Error::other("a client panicked"))?)
}

fn once(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<()> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, stream);
    upgrade(&mut stream, "/echo", "")?;
    // Masked with zeros: 20 bytes of text, then a Close with 1000.
    stream.write_all(b"\x81\x94\0\0\0\0twenty bytes of text")?;
    let (mut echo, mut close) = ([0; 22], [0; 4]);
    stream.read_exact(&mut echo)?;
    stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 3, 232])?;
    stream.read_exact(&mut close)?;
    if &echo == b"\x81\x14twenty bytes of text" && close[0] == 0x88 {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

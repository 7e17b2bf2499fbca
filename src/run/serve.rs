//! `wspulse serve` and `wspulse backend`: binds the listeners, reads the files that options name,
//! fits the server's limits to memory and descriptors, and starts the loop. It does not know HTTP
//! or WebSocket; the server that it drives does. `net::driver` is the loop.

use core::fmt;
use std::io::{self, IsTerminal};

use super::seed;
use crate::engine::Side;
use crate::limits;
use crate::listen::Listen;
use crate::net::assets::AssetReader;
use crate::net::driver::Driver;
use crate::net::kernel::{Duties, Kernel};
use crate::net::listen::{self, Port};
use crate::net::logs::{self, Shape};
use crate::net::memory::Gauge;
use crate::net::notify::Supervisor;
use crate::net::passed::{Passed, PassedError};
use crate::net::socket::Listener;
use crate::net::tls::{self, Certificate, CertificateError};
use crate::net::{clock, files, process, signals, unix};
use crate::options::{LogFormat, LogStyle, Reach, Serve};
use crate::parts;
use crate::server::config::{Config, Surface};
use crate::server::{self, Assets, Server};
use crate::units::show_size;

/// Descriptors that are not connections: pollers, listeners, signals, logs, a reserve.
const OWN_DESCRIPTORS: u64 = 24;

/// Why the server could not start, or had to stop.
#[derive(Debug)]
pub enum StartError {
    /// Listening on an address failed.
    Listen {
        /// The flag that names the address.
        flag: &'static str,
        /// The address.
        listen: Listen,
        /// The kernel's error.
        error: io::Error,
    },
    /// A part of the server refuses its settings.
    Part(String),
    /// A socket that the supervisor passed is not usable.
    Passed(PassedError),
    /// The directory of `--assets` cannot be served.
    Assets(io::Error),
    /// The certificate of `--tls-cert` or its key is not usable.
    Tls(CertificateError),
    /// A system call that every server needs failed.
    Kernel(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { flag, listen, error } => {
                let remedy = match (listen, error.kind()) {
                    (Listen::Unix(_), kind) => unix::remedy(kind),
                    (_, io::ErrorKind::AddrInUse) => {
                        "stop the other process, or choose another port"
                    }
                    (_, io::ErrorKind::PermissionDenied) => {
                        "ports below 1024 need a privilege, choose a higher one"
                    }
                    (_, io::ErrorKind::AddrNotAvailable) => {
                        "this machine does not have that address"
                    }
                    _ => "choose another address",
                };
                let address = match listen {
                    Listen::Default { port } => format!("port {port}"),
                    Listen::At(_) | Listen::Unix(_) => listen.to_string(),
                };
                write!(f, "{flag}: cannot listen on {address}: {error}: {remedy}")
            }
            Self::Part(why) => f.write_str(why),
            Self::Passed(error) => error.fmt(f),
            Self::Assets(error) => write!(f, "--assets: cannot serve {error}"),
            Self::Tls(error) => error.fmt(f),
            Self::Kernel(error) => write!(f, "a system call failed: {error}"),
        }
    }
}

/// Starts the logs in the style of the options: `auto` is text on a terminal, JSON otherwise.
///
/// # Errors
/// When the thread of the log writer cannot be started.
pub fn start_logs(style: &LogStyle) -> io::Result<()> {
    let shape = match style.format {
        LogFormat::Text => Shape::Text,
        LogFormat::Auto if io::stderr().is_terminal() => Shape::Text,
        LogFormat::Auto | LogFormat::Json => Shape::Json,
    };
    logs::start(&style.filter, shape)
}

/// Runs the server until it exits and returns the exit code. Sockets that the supervisor
/// [passed](crate::net::passed::take) replace the listeners of the flags.
///
/// # Errors
/// When the server cannot start, or polling for events fails.
pub fn serve(mut serve: Serve, passed: Result<Vec<Passed>, PassedError>) -> Result<u8, StartError> {
    let passed = passed.map_err(StartError::Passed)?;
    check_passed(&serve, &passed)?;
    let assets = assets(&serve)?;
    let reach = reach(&serve, &passed);
    for plan in &mut serve.parts {
        plan.resolve(&files::present(&plan.paths()), reach).map_err(StartError::Part)?;
        plan.draw_from(draw);
    }
    let tls = certificate(&serve)?;
    let descriptors = process::raise_descriptor_limit();
    serve.server.memory.tls_bytes = if tls.is_some() { limits::TLS_BYTES } else { 0 };
    let memory = gauge(&mut serve.server.memory.limit).map_err(StartError::Kernel)?;
    serve.server.fit_memory();
    let of_parts = serve.parts.iter().map(|plan| plan.descriptors()).sum();
    let granted = share_out(descriptors, of_parts, &mut serve.server);
    for plan in &mut serve.parts {
        plan.granted(plan.descriptors() * granted / of_parts.max(1));
    }
    let open = open_listeners(&serve, passed)?;
    for (at, plan) in (0..).zip(&mut serve.parts) {
        let address_of =
            |side| open.iter().find(|open| open.side == side).map(|open| &*open.address);
        let bound = plan.bound(address_of(Side::Part(at)), address_of(Side::Admin));
        bound.map_err(StartError::Part)?;
    }
    // Signals are caught before the server is announced: a supervisor may stop it at once.
    let signals = signals::pipes().map_err(StartError::Kernel)?;
    announce(&serve, &open);
    let listeners = open.into_iter().map(|open| (open.side, open.listener)).collect();
    let supervisor = Supervisor::found();
    let assets_again = serve.assets.map(|folder| AssetReader::new(folder, server::prepare));
    let trusted = &serve.server.trusted_proxies;
    let proxies = if serve.proxy_protocol { trusted.clone() } else { Vec::new() };
    let duties = Duties { listeners, assets: assets_again, supervisor, tls, proxies, memory };
    let kernel = Kernel::new(duties, signals).map_err(StartError::Kernel)?;
    let seed = seed();
    let server = Server::new(serve.server, parts::build(serve.parts, seed), assets, seed);
    Driver::new(server, kernel).run().map_err(StartError::Kernel)
}

fn assets(serve: &Serve) -> Result<Assets, StartError> {
    Ok(match &serve.assets {
        Some(directory) => Assets::directory(files::read(directory).map_err(StartError::Assets)?),
        None if serve.server.surface == Surface::Bare => Assets::none(),
        None => Assets::embedded(clock::now()),
    })
}

fn certificate(serve: &Serve) -> Result<Option<Certificate>, StartError> {
    let opened = serve.tls.clone().map(|files| {
        Certificate::open(
            tls::Files { cert: files.cert, key: files.key },
            server::PLAIN_HTTP_RESPONSE,
        )
    });
    opened.transpose().map_err(StartError::Tls)
}

/// Reads the files that the settings refer to: the certificate, the assets, a kubeconfig.
///
/// # Errors
/// Why [`serve`] could not use them.
pub fn check(mut serve: Serve) -> Result<(), StartError> {
    assets(&serve)?;
    certificate(&serve)?;
    let reach = reach(&serve, &[]);
    for plan in &mut serve.parts {
        plan.check(&files::present(&plan.paths()), reach).map_err(StartError::Part)?;
    }
    Ok(())
}

/// Whether other hosts can connect to the main listeners. Passed sockets win over flags.
fn reach(serve: &Serve, passed: &[Passed]) -> Reach {
    let mut mains = passed.iter().filter(|passed| passed.side == Side::Main).peekable();
    let is_local = if mains.peek().is_some() {
        mains.all(Passed::is_local)
    } else {
        serve.listen.iter().all(Listen::is_local)
    };
    if is_local { Reach::Local } else { Reach::Open }
}

/// Parts may refuse to be reachable from other hosts. Options check this for `--admin-listen`; they
/// do not know passed sockets, which are checked here.
fn check_passed(serve: &Serve, passed: &[Passed]) -> Result<(), StartError> {
    let open = passed.iter().find(|passed| passed.side == Side::Admin && !passed.is_local());
    let Some(passed) = open else { return Ok(()) };
    let mut checks = serve.parts.iter().map(|plan| plan.check_admin(&passed.address));
    let checked = checks.find(Result::is_err).unwrap_or(Ok(()));
    checked.map_err(|why| StartError::Part(format!("LISTEN_FDS: {why}")))
}

struct OpenListener {
    side: Side,
    name: &'static str,
    listener: Listener,
    address: String,
    origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Passed,
    Bound,
}

/// Binds the listeners of the flags. Sockets passed for a side replace the flag of that side.
fn open_listeners(serve: &Serve, passed: Vec<Passed>) -> Result<Vec<OpenListener>, StartError> {
    let passed = passed.into_iter().map(|Passed { side, listener, address }| OpenListener {
        side,
        name: if side == Side::Admin { "admin" } else { "main" },
        listener,
        address,
        origin: Origin::Passed,
    });
    let mut listeners: Vec<OpenListener> = passed.collect();
    let is_passed = |side| listeners.iter().any(|open| open.side == side);
    let (main, admin) = (!is_passed(Side::Main), !is_passed(Side::Admin));
    let port = if serve.reuse_port { Port::Shared } else { Port::Own };
    let main = serve.listen.iter().filter(|_| main);
    let main = main.map(|at| (Side::Main, "main", "--listen", at.clone(), port));
    let admin = serve.admin.iter().filter(|_| admin);
    let admin = admin.map(|at| (Side::Admin, "admin", "--admin-listen", at.clone(), Port::Own));
    let parts = (0..).zip(&serve.parts).filter_map(|(at, plan)| {
        let (flag, listen) = plan.listener()?;
        let name = flag.trim_start_matches('-').trim_end_matches("-listen");
        Some((Side::Part(at), name, flag, listen, Port::Own))
    });
    for (side, name, flag, listen, port) in main.chain(admin).chain(parts) {
        let (listener, address) = listen::listen(&listen, port)
            .map_err(|error| StartError::Listen { flag, listen, error })?;
        listeners.push(OpenListener { side, name, listener, address, origin: Origin::Bound });
    }
    if let Some(bytes) = serve.server.memory.socket_buffer {
        for open in &listeners {
            listen::limit_buffers(&open.listener, bytes).map_err(StartError::Kernel)?;
        }
    }
    // The log lists the main listeners first.
    let (mut ordered, others): (Vec<_>, Vec<_>) =
        listeners.into_iter().partition(|open| open.side == Side::Main);
    ordered.extend(others);
    Ok(ordered)
}

/// Logs what an operator needs first: addresses, limits, and whether faults can be injected.
fn announce(serve: &Serve, listeners: &[OpenListener]) {
    let server = &serve.server;
    let scheme = if serve.tls.is_some() { "https" } else { "http" };
    for open in listeners {
        let (listener, address) = (open.name, &*open.address);
        match (open.side, address.rsplit_once(':')) {
            (Side::Main, Some((host, port)))
                if host != "unix" && server.surface == Surface::Full =>
            {
                log::info!(
                    target: "listening", listener, address,
                    page:% = format_args!("{scheme}://localhost:{port}{}/", server.base_path);
                    "listening"
                );
            }
            (Side::Main | Side::Admin | Side::Part(_), _) => {
                log::info!(target: "listening", listener, address; "listening");
            }
        }
    }
    let passed = listeners.iter().filter(|open| open.origin == Origin::Passed);
    if passed.count() > 0 {
        log::info!(target: "passed", "sockets from LISTEN_FDS replace --listen and --admin-listen");
    }
    log::info!(
        target: "start", version = env!("CARGO_PKG_VERSION"), pid = std::process::id(),
        max_connections = server.limits.max_connections, max_message = server.limits.max_message,
        memory_limit:% = server.memory.limit.map_or_else(|| "none".to_owned(), show_size),
        faults = server.faults;
        "wspulse is ready"
    );
    if server.faults {
        log::warn!(
            target: "faults",
            "--faults is on: anyone who can connect can harm this process"
        );
    }
}

/// The gauge of memory in use. With a limit by flag it measures this process; without one the
/// limit and the usage are those of the control group. Without either there is no gauge.
fn gauge(limit: &mut Option<u64>) -> io::Result<Option<Gauge>> {
    if limit.is_some() {
        return Gauge::of_process().map(Some);
    }
    let Some((granted, gauge)) = Gauge::of_group() else { return Ok(None) };
    *limit = Some(granted);
    // A sandbox may hide the files of the group.
    gauge.or_else(|_| Gauge::of_process()).map(Some)
}

/// Divides the descriptors: a quarter of them, at most 128, is reserved, one half for admin
/// connections and one for refusals. Without the reserve, a full server would refuse probes.
/// Returns how many the parts get.
fn share_out(descriptors: u64, of_parts: usize, server: &mut Config) -> usize {
    let spare = (descriptors / 4).min(2 * limits::ADMIN_CONNECTIONS as u64);
    // Connections of parts may take up to half of the rest.
    let left = descriptors.saturating_sub(OWN_DESCRIPTORS + spare);
    let granted = (of_parts as u64).min(left / 2);
    let room = left - granted;
    let room = usize::try_from(room).unwrap_or(usize::MAX).max(1);
    let places = server.memory.max_connections().unwrap_or(usize::MAX);
    let refused = usize::try_from(spare / 2).unwrap_or(usize::MAX);
    let limits = &mut server.limits;
    limits.refused_connections = limits.refused_connections.min(refused);
    match limits.max_connections {
        0 => limits.max_connections = room.min(places),
        asked if asked > room => log::warn!(
            target: "limits", asked, room, descriptors;
            "--max-connections: descriptors will run out before that, for the admin side too"
        ),
        _ => {}
    }
    usize::try_from(granted).unwrap_or(of_parts)
}

/// A connection id that cannot be guessed.
fn draw(_: u64) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).is_ok().then_some(bytes)
}

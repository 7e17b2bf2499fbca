//! The operating system: everything that reads a socket, a file, a clock or a signal, or starts a
//! thread. It does not know that HTTP or WebSocket exist; it drives an [`Engine`](crate::engine).

mod assets;
mod begun;
pub mod clock;
pub mod driver;
mod files;
mod kernel;
mod listen;
pub mod logs;
mod memory;
mod names;
mod notify;
pub mod os;
pub mod passed;
mod process;
mod signals;
mod stream;
mod terminal;
pub mod tls;
mod tools;
mod unix;

use core::fmt;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::engine::Door;
use crate::healthcheck::{Healthcheck, Plan as Question};
use crate::limits;
use crate::options::{self, Listen, Reach, Serve};
use crate::server::config::{Config, Surface};
use crate::server::{self, Assets, Server};
use crate::units::show_size;
use assets::AssetReader;
use driver::Driver;
use kernel::{Duties, Kernel};
use listen::Port;
use memory::Gauge;
use notify::Supervisor;
use passed::{Passed, PassedError};
use stream::Listener;
use tls::{KeepError, Keeper};
pub use tools::{Ears, ToolError, connect, drive, load, measure};

/// Descriptors that are no connections: pollers, listeners, signals, logs, a reserve.
const OWN_DESCRIPTORS: u64 = 24;

/// Why the server could not start, or had to stop.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Listen {
        /// The flag that asked for it.
        flag: &'static str,
        /// The address.
        listen: Listen,
        /// What the kernel says.
        error: io::Error,
    },
    /// What a part is told cannot be done.
    Part(String),
    /// What a supervisor passed cannot be listened on.
    Passed(PassedError),
    /// The directory of `--assets` cannot be served.
    Assets(io::Error),
    /// The certificate of `--tls-cert` cannot be shown.
    Tls(KeepError),
    /// The kernel refuses what every server needs.
    Kernel(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { flag, listen, error } => {
                let remedy = match (listen, error.kind()) {
                    (Listen::Unix(_), kind) => unix::remedy(kind),
                    (_, io::ErrorKind::AddrInUse) => {
                        "stop what listens there, or choose another port"
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
            Self::Kernel(error) => write!(f, "the kernel does not let this server run: {error}"),
        }
    }
}

/// Runs the server, on the sockets that were [passed](passed::take) where there are such; returns
/// the process' exit code.
///
/// # Errors
/// When it cannot start, or the kernel no longer tells what happens.
pub fn serve(mut serve: Serve, passed: Result<Vec<Passed>, PassedError>) -> Result<u8, StartError> {
    let passed = passed.map_err(StartError::Passed)?;
    check_passed(&serve, &passed)?;
    let assets = match &serve.assets {
        Some(directory) => Assets::directory(files::read(directory).map_err(StartError::Assets)?),
        None if serve.server.surface == Surface::Bare => Assets::none(),
        None => Assets::embedded(clock::now()),
    };
    let paths = serve.parts.paths();
    if !paths.is_empty() {
        let reach = reach(&serve, &passed);
        serve.parts.resolve(files::present(&paths), reach).map_err(StartError::Part)?;
    }
    let tls = serve.tls.clone().map(|files| {
        Keeper::open(tls::Files { cert: files.cert, key: files.key }, server::PLAIN_WORDS)
    });
    let tls = tls.transpose().map_err(StartError::Tls)?;
    let descriptors = raise_descriptor_limit();
    serve.server.memory.unseen_bytes = if tls.is_some() { limits::TLS_BYTES } else { 0 };
    let memory = gauge(&mut serve.server.memory.limit).map_err(StartError::Kernel)?;
    serve.server.fit_memory();
    share_out(descriptors, serve.parts.descriptors(), &mut serve.server);
    serve.parts.draw_from(draw);
    let doors = open_doors(&serve, passed)?;
    // Before anyone is told that we are here, they can tell us to stop.
    let signals = signals::pipes().map_err(StartError::Kernel)?;
    announce(&serve, &doors);
    let listeners = doors.into_iter().map(|open| (open.door, open.listener)).collect();
    let supervisor = Supervisor::found();
    let assets_again = serve.assets.map(|folder| AssetReader::new(folder, server::prepare));
    let duties = Duties { listeners, assets: assets_again, supervisor, tls, memory };
    let kernel = Kernel::new(duties, signals).map_err(StartError::Kernel)?;
    let seed = seed();
    let server = Server::new(serve.server, serve.parts.build(seed), assets, seed);
    Driver::new(server, kernel).run().map_err(StartError::Kernel)
}

/// Who can connect to the main listeners. What was passed wins over what flags say.
fn reach(serve: &Serve, passed: &[Passed]) -> Reach {
    let mut mains = passed.iter().filter(|passed| passed.door == Door::Main).peekable();
    let is_local = if mains.peek().is_some() {
        mains.all(Passed::is_local)
    } else {
        serve.listen.iter().all(Listen::is_local)
    };
    if is_local { Reach::Local } else { Reach::Open }
}

/// What is passed can be reached from other machines; options know no passed socket.
fn check_passed(serve: &Serve, passed: &[Passed]) -> Result<(), StartError> {
    let open = passed.iter().find(|passed| passed.door == Door::Admin && !passed.is_local());
    let checked = open.map_or(Ok(()), |passed| serve.parts.check_admin(&passed.address));
    checked.map_err(|why| StartError::Part(format!("LISTEN_FDS: {why}")))
}

/// A door that can be knocked at.
struct OpenDoor {
    door: Door,
    listener: Listener,
    address: String,
    origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Passed,
    Bound,
}

/// What was passed for a side wins over what its flag says.
fn open_doors(serve: &Serve, passed: Vec<Passed>) -> Result<Vec<OpenDoor>, StartError> {
    let passed = passed.into_iter().map(|Passed { door, listener, address }| OpenDoor {
        door,
        listener,
        address,
        origin: Origin::Passed,
    });
    let mut doors: Vec<OpenDoor> = passed.collect();
    let is_passed = |side| doors.iter().any(|open| open.door == side);
    let (main, admin) = (!is_passed(Door::Main), !is_passed(Door::Admin));
    let port = if serve.reuse_port { Port::Shared } else { Port::Own };
    let main = serve.listen.iter().filter(|_| main).map(|at| (Door::Main, "--listen", at, port));
    let admin = serve.admin.iter().filter(|_| admin);
    let admin = admin.map(|at| (Door::Admin, "--admin-listen", at, Port::Own));
    for (door, flag, listen, port) in main.chain(admin) {
        let (listener, address) = listen::listen(listen, port)
            .map_err(|error| StartError::Listen { flag, listen: listen.clone(), error })?;
        doors.push(OpenDoor { door, listener, address, origin: Origin::Bound });
    }
    if let Some(bytes) = serve.server.memory.socket_buffer {
        for open in &doors {
            listen::limit_buffers(&open.listener, bytes).map_err(StartError::Kernel)?;
        }
    }
    // Where doors have no order of their own, people read the main one first.
    doors.sort_by_key(|open| open.door == Door::Admin);
    Ok(doors)
}

/// What whoever starts it wants to know first.
fn announce(serve: &Serve, doors: &[OpenDoor]) {
    let server = &serve.server;
    let scheme = if serve.tls.is_some() { "https" } else { "http" };
    for open in doors {
        let door = match open.door {
            Door::Main => "main",
            Door::Admin => "admin",
        };
        let address = &*open.address;
        match (open.door, address.rsplit_once(':')) {
            (Door::Main, Some((host, port)))
                if host != "unix" && server.surface == Surface::Full =>
            {
                log::info!(
                    target: "listening", door, address,
                    page:% = format_args!("{scheme}://localhost:{port}{}/", server.base_path);
                    "listening"
                );
            }
            (Door::Main | Door::Admin, _) => {
                log::info!(target: "listening", door, address; "listening");
            }
        }
    }
    let passed = doors.iter().filter(|open| open.origin == Origin::Passed);
    if passed.count() > 0 {
        log::info!(target: "passed", "sockets in LISTEN_FDS win over --listen and --admin-listen");
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

/// To the hard limit: what is idle costs a descriptor and little else. Returns the limit.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    now.current.unwrap_or(1 << 20)
}

/// What tells how much memory is used. Without a limit by flag it is that of the control group, and
/// so is what is used; without either nothing needs to be told.
fn gauge(limit: &mut Option<u64>) -> io::Result<Option<Gauge>> {
    if limit.is_some() {
        return Gauge::of_process().map(Some);
    }
    let Some((granted, gauge)) = Gauge::of_group() else { return Ok(None) };
    *limit = Some(granted);
    // A sandbox may hide the group's files.
    gauge.or_else(|_| Gauge::of_process()).map(Some)
}

/// Decides how many descriptors go to whom: a quarter of few, 128 of many, stay free, one half for
/// the admin side and one for refusals. With none left even a probe would be turned away.
fn share_out(descriptors: u64, of_parts: usize, server: &mut Config) {
    let spare = (descriptors / 4).min(2 * limits::ADMIN_CONNECTIONS as u64);
    // Half of what is left may go to requests of our own and to callbacks, where there are such.
    let left = descriptors.saturating_sub(OWN_DESCRIPTORS + spare);
    let room = left - (of_parts as u64).min(left / 2);
    let room = usize::try_from(room).unwrap_or(usize::MAX).max(1);
    let places = server.memory.places().unwrap_or(usize::MAX);
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
}

/// An id that nobody can guess.
fn draw(_: u64) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).is_ok().then_some(bytes)
}

/// For jitter only; ids and masks come from the kernel directly.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        // A kernel without entropy: the clock spreads jitter well enough.
        Err(_) => clock::now().wall_ms.unsigned_abs(),
    }
}

/// The name of this host.
#[must_use]
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// Asks a server whether it is healthy; returns the exit code, and what happened in one line.
///
/// # Errors
/// When the kernel does not let it run.
pub fn healthcheck(asked: options::Healthcheck) -> io::Result<(u8, String)> {
    let began_ns = clock::now().mono_ns;
    let options::Healthcheck { goal, host, path, url, timeout_ms } = asked;
    let targets = match tools::targets(goal) {
        Ok(targets) => targets,
        Err(error) => return Ok((1, format!("{url}: {error}"))),
    };
    let question = Question { targets, host, path, timeout_ms };
    let kernel = Kernel::new(Duties::default(), signals::pipes()?)?;
    let mut driver = Driver::new(Healthcheck::new(question, began_ns), kernel);
    let code = driver.run()?;
    let verdict = driver.engine().verdict();
    Ok((code, format!("{url}: {}", verdict.map_or(String::new(), ToString::to_string))))
}

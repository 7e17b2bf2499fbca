//! The operating system: everything that reads a socket, a file, a clock or a signal, or starts a
//! thread. It does not know that HTTP or WebSocket exist; it drives an [`Engine`](crate::engine).

pub mod clock;
pub mod driver;
mod files;
mod kernel;
mod listen;
pub mod logs;
pub mod os;
mod process;
mod signals;

use core::fmt;
use core::net::SocketAddr;
use std::io;

use mio::net::TcpListener;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::engine::Door;
use crate::load::{Load, Plan, Report};
use crate::options::{Listen, Serve};
use crate::server::{Assets, Server};
use crate::units::show_size;
use driver::Driver;
use kernel::Kernel;
use listen::Port;

/// Descriptors that are no connections: pollers, listeners, signals, logs, a reserve.
const OWN_DESCRIPTORS: u64 = 16;

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
    /// The directory of `--assets` cannot be served.
    Assets(io::Error),
    /// The kernel refuses what every server needs.
    Kernel(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { flag, listen, error } => {
                let address = match listen {
                    Listen::Default { port } => format!("port {port}"),
                    Listen::At(address) => address.to_string(),
                };
                let remedy = match error.kind() {
                    io::ErrorKind::AddrInUse => "stop what listens there, or choose another port",
                    io::ErrorKind::PermissionDenied => {
                        "ports below 1024 need a privilege, choose a higher one"
                    }
                    io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
                    _ => "choose another address",
                };
                write!(f, "{flag}: cannot listen on {address}: {error}: {remedy}")
            }
            Self::Assets(error) => write!(f, "--assets: cannot serve {error}"),
            Self::Kernel(error) => write!(f, "the kernel does not let this server run: {error}"),
        }
    }
}

/// Runs the server; returns the process' exit code.
///
/// # Errors
/// When it cannot start, or the kernel no longer tells what happens.
pub fn serve(mut serve: Serve) -> Result<u8, StartError> {
    let assets = match &serve.assets {
        Some(directory) => Assets::directory(files::read(directory).map_err(StartError::Assets)?),
        None => Assets::embedded(clock::now()),
    };
    let descriptors = raise_descriptor_limit();
    if serve.server.memory.limit.is_none() {
        serve.server.memory.limit = process::memory_limit();
    }
    serve.server.fit_memory();
    if serve.server.limits.max_connections == 0 {
        let places = serve.server.memory.places().unwrap_or(usize::MAX);
        serve.server.limits.max_connections = connections_for(descriptors).min(places);
    }
    let doors = open_doors(&serve)?;
    // Before anyone is told that we are here, they can tell us to stop.
    let signals = signals::pipes().map_err(StartError::Kernel)?;
    announce(&serve, &doors);
    let listeners = doors.into_iter().map(|(door, listener, _)| (door, listener)).collect();
    let kernel = Kernel::new(listeners, signals, serve.assets).map_err(StartError::Kernel)?;
    let server = Server::new(serve.server, assets, seed());
    Driver::new(server, kernel).run().map_err(StartError::Kernel)
}

type OpenDoor = (Door, TcpListener, SocketAddr);

fn open_doors(serve: &Serve) -> Result<Vec<OpenDoor>, StartError> {
    let open = |door, flag, listen, port| match listen::listen(listen, port) {
        Ok((listener, address)) => Ok((door, listener, address)),
        Err(error) => Err(StartError::Listen { flag, listen, error }),
    };
    let port = if serve.reuse_port { Port::Shared } else { Port::Own };
    let main = serve.listen.iter().map(|&listen| open(Door::Main, "--listen", listen, port));
    let admin = serve.admin.map(|listen| open(Door::Admin, "--admin-listen", listen, Port::Own));
    main.chain(admin).collect()
}

/// What whoever starts it wants to know first.
fn announce(serve: &Serve, doors: &[OpenDoor]) {
    let server = &serve.server;
    for (door, _, address) in doors {
        match door {
            Door::Main => log::info!(
                target: "listening", door = "main", address:% = address,
                page:% = format_args!("http://localhost:{}{}/", address.port(), server.base_path);
                "listening"
            ),
            Door::Admin => {
                log::info!(target: "listening", door = "admin", address:% = address; "listening");
            }
        }
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

/// A quarter of few descriptors, 64 of many, stay free for the admin side and for refusals.
fn connections_for(descriptors: u64) -> usize {
    let spare = OWN_DESCRIPTORS + (descriptors / 4).min(64);
    usize::try_from(descriptors.saturating_sub(spare)).unwrap_or(usize::MAX).max(1)
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

/// Runs clients until they are done; says what came of it.
///
/// # Errors
/// When the kernel does not let it run.
pub fn load(plan: Plan) -> io::Result<Report> {
    raise_descriptor_limit();
    let kernel = Kernel::new(Vec::new(), signals::pipes()?, None)?;
    let mut driver = Driver::new(Load::new(plan, seed()), kernel);
    driver.run()?;
    Ok(driver.engine().report().clone())
}

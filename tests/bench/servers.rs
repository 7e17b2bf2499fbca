//! Server processes on a core of their own, and what the kernel counted for them.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The server that is measured.
pub(crate) const WSPULSE: &str = env!("CARGO_BIN_EXE_wspulse");

/// A server process, ended with this value.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command on one core: the server has the first, the clients have the second.
pub(crate) fn on_core(core: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core, program]);
    command
}

/// The arguments that every measured server gets.
pub(crate) fn arguments(port: u16) -> Vec<String> {
    let arguments = format!("--listen 127.0.0.1:{port} --admin-listen off --max-message 2MiB");
    arguments.split(' ').map(str::to_owned).collect()
}

pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

impl Server {
    /// Starts a command that listens on this port, and waits until it does.
    pub(crate) fn start(mut command: Command, port: u16) -> io::Result<Self> {
        command.env("RUST_LOG", "warn").stdout(Stdio::null()).stderr(Stdio::null());
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let server = Self { child: command.spawn()?, address };
        for _ in 0..2_000 {
            if TcpStream::connect(address).is_ok() {
                return Ok(server);
            }
            pause(5);
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    pub(crate) fn wspulse() -> io::Result<Self> {
        Self::wspulse_with(&[])
    }

    /// With these arguments too.
    pub(crate) fn wspulse_with(more: &[&str]) -> io::Result<Self> {
        let port = free_port()?;
        let mut command = on_core("0", WSPULSE);
        command.args(arguments(port)).args(more);
        Self::start(command, port)
    }

    /// The plain TCP echo.
    pub(crate) fn plain() -> io::Result<Self> {
        Self::own("raw", "0")
    }

    /// This very program as a server, which says where it is.
    pub(crate) fn own(what: &str, core: &str) -> io::Result<Self> {
        let own = std::env::current_exe()?;
        let mut child = on_core(core, &own.to_string_lossy())
            .args(what.split(' '))
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Self { child, address })
    }

    /// Another server: a command in which `{port}` stands for the port.
    pub(crate) fn other(command: &str) -> io::Result<Self> {
        Self::other_with(command, &[])
    }

    /// The same with more such names and what they stand for.
    pub(crate) fn other_with(command: &str, names: &[(&str, &str)]) -> io::Result<Self> {
        let port = free_port()?;
        let mut command = command.replace("{port}", &port.to_string());
        for (name, value) in names {
            command = command.replace(name, value);
        }
        let mut words = command.split(' ');
        let mut started = on_core("0", words.next().unwrap_or_default());
        started.args(words);
        Self::start(started, port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has. A tool around it ends when its child does.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let whom = children.split(' ').next().filter(|child| !child.is_empty());
        Command::new("kill").arg(whom.map_or_else(|| pid.to_string(), str::to_owned)).status()?;
        self.child.wait().map(drop)
    }

    /// Nanoseconds of CPU so far.
    pub(crate) fn cpu_ns(&self) -> io::Result<u64> {
        cpu_ns(self.pid())
    }

    /// A line of its `/proc/PID/status`.
    pub(crate) fn status(&self, name: &str) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find(|line| line.split(':').next() == Some(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        number.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Nanoseconds of CPU so far: of this process alone, whatever the machine does beside it.
pub(crate) fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += stat.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

#[expect(clippy::disallowed_methods, reason = "clients that only stay make no event to wait for")]
pub(crate) fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

//! A running server process and a client on a real socket.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;

use crate::peer::{self, Reader};
use crate::unique_keys;

/// Anything slower has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_wspulse");
pub(crate) const LISTENERS: [&str; 4] =
    ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

/// A running server; dropping it kills it.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) lines: Receiver<String>,
    pub(crate) main: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Log lines since the banner.
    pub(crate) log: Vec<Value>,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(LISTENERS).args(arguments);
        Self::run(command)
    }

    /// Starts it and waits for the log lines with its addresses.
    pub(crate) fn run(command: Command) -> Self {
        Self::run_in(command, &[])
    }

    /// The same with these environment variables only.
    pub(crate) fn run_in(command: Command, variables: &[(&str, &str)]) -> Self {
        let mut server = Self::spawn_in(command, variables);
        server.wait_for("start");
        let address = |side: &str| {
            let listens = |line: &&Value| line["event"] == "listening" && line["listener"] == side;
            server.log.iter().find(listens).unwrap()["address"].as_str().unwrap().parse().unwrap()
        };
        (server.main, server.admin) = (address("main"), address("admin"));
        server
    }

    /// Starts it without waiting.
    pub(crate) fn spawn(command: Command) -> Self {
        Self::spawn_in(command, &[])
    }

    fn spawn_in(mut command: Command, variables: &[(&str, &str)]) -> Self {
        command.env_clear().envs(variables.iter().copied()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let lines = stderr.lines().map_while(Result::ok);
            lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { child, lines, main: nowhere, admin: nowhere, log: Vec::new() }
    }

    /// Reads the log up to the first line of this kind.
    pub(crate) fn wait_for(&mut self, event: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no {event} in {:?}", self.log));
            self.log.push(unique_keys::read(&line));
            if self.log.last().unwrap()["event"] == event {
                return self.log.last().unwrap().clone();
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        kill(self.child.id(), name);
    }

    /// Waits for its end; returns the exit code, none if a signal killed it.
    pub(crate) fn exit(&mut self) -> Option<i32> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.log.push(unique_keys::read(&line)),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("still there: {:?}", self.log),
            }
        }
        self.child.wait().unwrap().code()
    }

    pub(crate) fn logged(&self, event: &str) -> Vec<&Value> {
        self.log.iter().filter(|line| line["event"] == event).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have exited on its own.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill(pid: u32, signal: &str) {
    let command = format!("kill -{signal} {pid}");
    assert!(Command::new("/bin/sh").args(["-c", &command]).status().unwrap().success());
}

/// A client on a real socket.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    reader: Reader,
    lines: Vec<String>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, reader: Reader::of_pieces(), lines: Vec::new() }
    }

    pub(crate) fn upgraded(address: SocketAddr, target: &str, fields: &[&str]) -> Self {
        let mut client = Self::connect(address);
        client.send(&peer::upgrade(target, fields));
        assert!(client.line().starts_with("101 "));
        client
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn get(&mut self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        self.line()
    }

    /// The next response or frame.
    pub(crate) fn line(&mut self) -> String {
        while self.lines.is_empty() {
            let mut bytes = vec![0; 64 * 1024];
            let n = match self.stream.read(&mut bytes) {
                Ok(n) => n,
                // With a socket timeout the kernel does not restart the call after a signal.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("reading: {error}"),
            };
            assert!(n > 0, "the server closed the connection");
            self.lines = self.reader.read(&bytes[..n]);
            self.lines.reverse();
        }
        self.lines.pop().unwrap()
    }

    /// Whether the server sends nothing and stays connected for this long.
    pub(crate) fn is_left_alone(&mut self, ms: u64) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(ms))).unwrap();
        let read = self.stream.read(&mut [0; 1]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        read.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// Nothing follows but the FIN.
    pub(crate) fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty() && self.lines.is_empty(), "{rest:?}");
    }
}

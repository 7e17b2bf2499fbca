//! `wspulse load` and `wspulse connect` as binaries, with real sockets: our server, and listeners
//! that send invalid responses.

mod connect;
mod load;
mod others;
mod proxies;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::process::running::{PROGRAM, Server};

/// Anything slower has failed.
const PATIENCE: Duration = Duration::from_secs(4);

/// Runs a command; returns exit code, standard output, standard error.
fn run(arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    run_in(&[], arguments, input)
}

/// The same with these environment variables.
fn run_in(variables: &[(&str, &str)], arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env_clear().envs(variables.iter().copied()).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have exited without reading.
    let _ = child.stdin.take().unwrap().write_all(input);
    let done = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

/// The report of `load URL …` as JSON, and the exit code.
fn load(url: &str, arguments: &str) -> (i32, Value) {
    let words = ["load", url, "--json"].into_iter().chain(arguments.split_whitespace());
    let (code, out, err) = run(&words.collect::<Vec<_>>(), b"");
    let report = serde_json::from_str(&out);
    (code, report.unwrap_or_else(|_| panic!("{code}: {out} {err}")))
}

/// A running command whose output is read by line.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env_clear().stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let lines = out.lines().map_while(Result::ok);
            lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
        });
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }

    fn types(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("/bin/sh").args(["-c", &command]).status().unwrap().success());
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The remaining output and the exit code.
    fn end(mut self) -> (i32, Vec<String>) {
        drop(self.child.stdin.take());
        let rest = std::iter::from_fn(|| self.lines.recv_timeout(PATIENCE).ok()).collect();
        (self.child.wait().unwrap().code().unwrap(), rest)
    }
}

/// A listener that answers each request with these bytes.
fn answering(bytes: &'static [u8]) -> SocketAddr {
    answering_by(move |_| bytes)
}

/// Each request gets what `choose` returns for it.
fn answering_by(choose: impl Fn(&[u8]) -> &'static [u8] + Copy + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream, choose));
        }
    });
    address
}

fn answer(mut stream: TcpStream, choose: impl Fn(&[u8]) -> &'static [u8]) {
    let mut asked = [0; 4096];
    // Reads to the end, since a reset would discard the response.
    while let Ok(n @ 1..) = stream.read(&mut asked) {
        if stream.write_all(choose(&asked[..n])).is_err() {
            return;
        }
    }
}

/// A port without a listener.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

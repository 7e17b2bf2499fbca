//! Scenarios, transcripts in virtual time: `tests/scenarios/*.txt`. Lines at the margin are
//! executed, indented lines are the server's output. `UPDATE=1 cargo test` rewrites the output.
//!
//! ```text
//! $ --drain-window 1s           arguments of the server, first line
//! a open [admin]                client `a` connects
//! a upgrade /echo [| Field: value]…
//! a http GET / HTTP/1.1 [| Field: value]… [|| body]
//! a raw "bytes\r\n"             a hex 81850102…
//! a text "…"   a binary "…"   a ping "…"   a pong "…"   a close [CODE "…"]
//! a compressed "…"              a text, compressed
//! a frame 01 "…"                a masked frame with this first byte
//! a window 10                   reads 10 more bytes; `open` reads everything
//! a fin   a reset   a spurious  shuts down; resets; an event without a change
//! a … * 100                     repeats a line
//! api …   backend …             an API server or a backend: see those modules
//! file PATH "…"                 the content of a file from now on
//! + 500ms                       time passes
//! signal stop|report|reload
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use wspulse::behaviours::Kind;
use wspulse::engine::Signal;
use wspulse::proto::deflate;
use wspulse::server::TRANSITIONS;

use crate::api_server::ApiServer;
use crate::backend::Backend;
use crate::harness::Harness;
use crate::os::End;
use crate::peer::{self, Reader};
use crate::watched::Transition;

struct Client {
    wire: usize,
    reader: Reader,
    end: Option<End>,
}

struct Scenario {
    harness: Harness,
    clients: BTreeMap<String, Client>,
    api_server: ApiServer,
    /// Present if the scenario has lines for it.
    backend: Option<Backend>,
    transcript: String,
}

#[test]
fn scenarios_play_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 10, "the scenarios are missing");
    let (mut failed, mut seen) = (Vec::new(), BTreeMap::new());
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy();
        let needs = |feature: &str, built: bool| name.starts_with(feature) && !built;
        if needs("deflate", deflate::BUILT)
            || needs("deployments", cfg!(feature = "informer"))
            || needs("gateway", cfg!(feature = "gateway"))
            || needs("backend", cfg!(feature = "gateway"))
        {
            continue;
        }
        let written = std::fs::read_to_string(&path).unwrap();
        let (happened, transitions) = play(&written);
        for transition in transitions {
            seen.entry(transition).or_insert_with(|| name.clone().into_owned());
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &happened).unwrap();
        } else if written != happened {
            failed.push(format!("{}:\n{}", path.display(), difference(&written, &happened)));
        }
    }
    assert!(failed.is_empty(), "{}\nUPDATE=1 cargo test rewrites them", failed.join("\n"));
    check_transitions(&seen);
}

/// Each transition of the server's table occurs in a scenario; `watched` checks that no other
/// occurs.
fn check_transitions(seen: &BTreeMap<Transition, String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/transitions.txt");
    let mut table = String::new();
    for (from, by, to) in TRANSITIONS {
        let witness = seen.get(&(*from, *by, *to)).map_or("none", String::as_str);
        writeln!(table, "{from:10} {by:9} {to:10} {witness}").unwrap();
    }
    // Without the parts no upgrade is pending and no connection is opened.
    if !cfg!(all(feature = "gateway", feature = "informer", feature = "deflate")) {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, table).unwrap();
        return;
    }
    assert!(!table.contains(" none"), "transitions without a scenario:\n{table}");
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), table, "UPDATE=1 cargo test");
}

fn difference(written: &str, happened: &str) -> String {
    let mut lines = happened.lines();
    for written in written.lines() {
        let happened = lines.next().unwrap_or("(end)");
        if written != happened {
            return format!("  written:  {written}\n  happened: {happened}");
        }
    }
    format!("  happened: {}", lines.next().unwrap_or_default())
}

/// Plays a scenario; returns it with the server's output, and the transitions that occurred.
fn play(written: &str) -> (String, BTreeSet<Transition>) {
    let arguments = written.lines().find_map(|line| line.strip_prefix("$ ")).unwrap_or_default();
    let mut arguments: Vec<&str> = arguments.split_whitespace().collect();
    let inputs = || written.lines().filter(|line| !line.starts_with([' ', '#']));
    let watches = inputs().any(|line| line.contains("/api/wds/logs") || line.contains("--kube"));
    // So that lists of paths and metrics are the same in a build without the informer.
    if cfg!(feature = "informer") && !watches && arguments.first() != Some(&"backend") {
        arguments.push("--kube=off");
    }
    let mut scenario = Scenario {
        harness: Harness::new(&arguments),
        clients: BTreeMap::new(),
        api_server: ApiServer::default(),
        backend: written.contains("\nbackend ").then(Backend::default),
        transcript: String::new(),
    };
    for line in written.lines().filter(|line| !line.starts_with(' ')) {
        writeln!(scenario.transcript, "{line}").unwrap();
        if !line.is_empty() && !line.starts_with(['#', '$']) {
            scenario.act(line);
        }
    }
    let transitions = scenario.harness.driver.engine().transitions.clone();
    (scenario.transcript, transitions)
}

impl Scenario {
    fn act(&mut self, line: &str) {
        let (line, times) = match line.rsplit_once(" * ") {
            Some((line, times)) if times.bytes().all(|b| b.is_ascii_digit()) => {
                (line, times.parse().unwrap())
            }
            _ => (line, 1),
        };
        let (who, what) = line.split_once(' ').unwrap();
        match who {
            "+" => return self.pass(what),
            "api" => ApiServer::act(&self.harness.net, what, unquoted),
            "backend" => {
                let backend = self.backend.as_mut().unwrap();
                backend.act(&self.harness.net, what, unquoted);
            }
            "file" => {
                let (path, text) = what.split_once(' ').unwrap();
                let mut server = self.harness.net.server();
                let files = server.files.get_or_insert_default();
                files.retain(|(known, _)| known != path);
                files.push((path.to_owned(), unquoted(text)));
            }
            "signal" => self.harness.net.signal(match what {
                "stop" => Signal::Stop,
                "report" => Signal::Report,
                "reload" => Signal::Reload,
                _ => panic!("no such signal: {what}"),
            }),
            _ => {
                for _ in 0..times {
                    self.client(who, what);
                }
            }
        }
        self.harness.settle();
        self.show("");
    }

    fn client(&mut self, who: &str, what: &str) {
        let (verb, rest) = what.split_once(' ').unwrap_or((what, ""));
        let net = self.harness.net.clone();
        if verb == "open" {
            let wire = net.connect(usize::from(rest == "admin"));
            let client = Client { wire, reader: Reader::default(), end: None };
            self.clients.insert(who.to_owned(), client);
            return;
        }
        let wire = self.clients[who].wire;
        match verb {
            "fin" => net.fin(wire),
            "reset" => net.reset(wire),
            "spurious" => net.spurious_event(wire),
            "window" if rest == "open" => net.window(wire, usize::MAX),
            "window" => net.window(wire, rest.parse().unwrap()),
            _ => net.send(wire, &bytes(verb, rest)),
        }
    }

    /// Time passes by the millisecond, so that output is shown with its exact time.
    fn pass(&mut self, what: &str) {
        let ms = wspulse::units::duration_ms(what).unwrap();
        for elapsed_ms in 1..=ms {
            self.harness.pass(1);
            self.show(&format!("+{elapsed_ms}ms "));
        }
    }

    fn show(&mut self, moment: &str) {
        match &mut self.backend {
            Some(backend) => {
                for asked in backend.requests(&self.harness.net) {
                    writeln!(self.transcript, "    {moment}backend {asked}").unwrap();
                }
            }
            None => {
                for asked in self.api_server.requests(&self.harness.net) {
                    writeln!(self.transcript, "    {moment}api {asked}").unwrap();
                }
            }
        }
        for (name, client) in &mut self.clients {
            for line in client.reader.read(&self.harness.output(client.wire)) {
                writeln!(self.transcript, "    {moment}{name} {line}").unwrap();
            }
            let end = self.harness.end(client.wire);
            if end != client.end {
                client.end = end;
                let how = match end {
                    Some(End::Fin) => "fin".to_owned(),
                    Some(End::Closed) => "closed".to_owned(),
                    Some(End::ClosedUnread(n)) => format!("closed over {n} unread bytes"),
                    Some(End::Reset) => "reset".to_owned(),
                    None => continue,
                };
                writeln!(self.transcript, "    {moment}{name} {how}").unwrap();
            }
        }
        if let Some(code) = self.harness.exit
            && !self.transcript.contains(" exit ")
        {
            writeln!(self.transcript, "    {moment}exit {code}").unwrap();
        }
    }
}

fn bytes(verb: &str, rest: &str) -> Vec<u8> {
    match verb {
        "upgrade" => {
            let mut parts = rest.split(" | ");
            let target = parts.next().unwrap();
            peer::upgrade(target, &parts.collect::<Vec<_>>())
        }
        "http" => {
            let (head, body) = rest.split_once(" || ").unwrap_or((rest, ""));
            [head.replace(" | ", "\r\n").as_bytes(), b"\r\n\r\n", &unquoted(body)].concat()
        }
        "raw" => unquoted(rest),
        "hex" => (0..rest.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&rest[at..at + 2], 16).unwrap())
            .collect(),
        "compressed" => peer::compressed(Kind::Text, &unquoted(rest)),
        "text" => peer::frame(0x81, &unquoted(rest)),
        "binary" => peer::frame(0x82, &unquoted(rest)),
        "ping" => peer::frame(0x89, &unquoted(rest)),
        "pong" => peer::frame(0x8a, &unquoted(rest)),
        "close" if rest.is_empty() => peer::frame(0x88, b""),
        "close" => {
            let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
            let code: u16 = code.parse().unwrap();
            peer::frame(0x88, &[&code.to_be_bytes()[..], &unquoted(reason)].concat())
        }
        "frame" => {
            let (first, payload) = rest.split_once(' ').unwrap_or((rest, ""));
            peer::frame(u8::from_str_radix(first, 16).unwrap(), &unquoted(payload))
        }
        _ => panic!("no such verb: {verb}"),
    }
}

/// `"a\r\n\x00"`, or `"a"*1000` for a long one.
fn unquoted(text: &str) -> Vec<u8> {
    let (text, times) = match text.rsplit_once("\"*") {
        Some((text, times)) => (format!("{text}\""), times.parse().unwrap()),
        None => (text.to_owned(), 1),
    };
    let text = text.trim().trim_matches('"');
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        match (char, char == '\\') {
            (_, true) => match rest.next() {
                Some('r') => bytes.push(b'\r'),
                Some('n') => bytes.push(b'\n'),
                Some('t') => bytes.push(b'\t'),
                Some('x') => {
                    let hex: String = rest.by_ref().take(2).collect();
                    bytes.push(u8::from_str_radix(&hex, 16).unwrap());
                }
                Some(other) => bytes.extend(other.to_string().bytes()),
                None => {}
            },
            (char, false) => bytes.extend(char.to_string().bytes()),
        }
    }
    bytes.repeat(times)
}

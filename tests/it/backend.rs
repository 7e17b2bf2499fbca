//! The gateway's backend in scenarios: it sends what a scenario says and shows the requests.

use std::collections::{BTreeMap, VecDeque};

use crate::os::{Network, OnConnect};
use crate::unique_keys;

/// Any number of connections. Lines of a scenario:
///
/// ```text
/// backend up | down | lost [ADDR]  connections (to it) are accepted, refused, or time out
/// backend names HOST IP,…         what a name resolves to; without addresses there is no such name
/// backend window 10               the newest connection reads 10 more bytes
/// backend refuse                  those that have not timed out yet are refused
/// backend 200 ["body" [| Field: value]…]   answers the oldest unanswered request
/// backend always 200 ["body"]     answers all further requests at once and hides them
/// backend raw "…", backend fin, backend reset   on the connection of that request
/// ```
#[derive(Debug, Default)]
pub(crate) struct Backend {
    input: BTreeMap<usize, Vec<u8>>,
    /// Connections whose request has no answer, the oldest first.
    pub(crate) open: VecDeque<usize>,
    always: Option<Vec<u8>>,
}

impl Backend {
    /// Executes a line.
    pub(crate) fn act(&mut self, net: &Network, what: &str, raw: fn(&str) -> Vec<u8>) {
        // The gateway has closed these connections.
        self.open.retain(|wire| net.end(*wire).is_none());
        let (verb, rest) = what.split_once(' ').unwrap_or((what, ""));
        match verb {
            "up" => connects(net, OnConnect::Accept, rest),
            "down" => connects(net, OnConnect::Refuse, rest),
            "lost" => connects(net, OnConnect::Drop, rest),
            "names" => {
                let (host, addresses) = rest.split_once(' ').unwrap_or((rest, ""));
                let addresses = addresses.split(',').filter(|ip| !ip.is_empty());
                let addresses = addresses.map(|ip| ip.parse().expect("an address")).collect();
                net.state().names.insert(host.to_owned(), addresses);
            }
            "window" => {
                let newest = *net.state().outgoing.last().expect("a connection");
                net.window(newest, rest.parse().expect("a number of bytes"));
            }
            "refuse" => net.refuse_unanswered(),
            "always" => self.always = Some(answer(rest, raw)),
            "raw" => net.send(self.open.pop_front().expect("a request"), &raw(rest)),
            "fin" => net.fin(self.open.pop_front().expect("a request")),
            "reset" => net.reset(self.open.pop_front().expect("a request")),
            _ => net.send(self.open.pop_front().expect("a request"), &answer(what, raw)),
        }
    }

    /// Requests since the last call.
    pub(crate) fn requests(&mut self, net: &Network) -> Vec<String> {
        let mut requests = Vec::new();
        let outgoing = net.state().outgoing.clone();
        for wire in outgoing {
            let fresh = net.take_output(wire);
            let input = self.input.entry(wire).or_default();
            input.extend(fresh);
            while let Some(request) = take_request(input) {
                if let Some(answer) = &self.always {
                    net.send(wire, answer);
                } else {
                    self.open.push_back(wire);
                    requests.push(request);
                }
            }
        }
        requests
    }
}

/// What becomes of connections: of all, or to one address.
fn connects(net: &Network, on_connect: OnConnect, address: &str) {
    match address {
        "" => net.state().on_connect = on_connect,
        address => {
            let address = address.parse().expect("an address and a port");
            net.state().on_connect_to.insert(address, on_connect);
        }
    }
}

/// `200 "body" | Field: value`
fn answer(text: &str, raw: fn(&str) -> Vec<u8>) -> Vec<u8> {
    let mut parts = text.split(" | ");
    let first = parts.next().unwrap_or_default();
    let (status, body) = first.split_once(' ').unwrap_or((first, "\"\""));
    let body = raw(body);
    let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
    for field in parts {
        head.push_str(field);
        head.push_str("\r\n");
    }
    [head.as_bytes(), b"\r\n", &body].concat()
}

/// Takes a complete request from the front, as a line without the fields that never change.
pub(crate) fn take_request(input: &mut Vec<u8>) -> Option<String> {
    let end = input.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(input[..end].to_vec()).unwrap();
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |length| length.parse().unwrap());
    if input.len() < end + length {
        return None;
    }
    let body: Vec<u8> = input.drain(..end + length).skip(end).collect();
    unique_keys::check(&body);
    let same = ["Host: ", "User-Agent: wspulse/", "Content-Length: "];
    let mut lines = head.lines().filter(|line| !line.is_empty());
    let line = lines.next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let fields = lines.filter(|line| !same.iter().any(|same| line.starts_with(same)));
    let mut shown: Vec<String> = [line].into_iter().chain(fields.map(str::to_owned)).collect();
    if body.len() > 2_000 {
        shown.push(format!("({} bytes)", body.len()));
    } else if !body.is_empty() {
        shown.push(body.escape_ascii().to_string().replace("\\\"", "\"").replace("\\'", "'"));
    }
    Some(shown.join(" | "))
}

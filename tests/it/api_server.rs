//! The Kubernetes API server in scenarios: it sends what a scenario says and shows the requests.

use crate::os::{Network, OnConnect};

/// One connection at a time. Lines of a scenario:
///
/// ```text
/// api up | api down             connections are accepted, or refused
/// api list 7 n/web=3,web:1@5 …  a list of version 7: namespace/name=replicas,image@version
/// api page 7 TOKEN n/web=…      the same with a continue token
/// api watch                     the head of a watch
/// api added n/web=3,web:1@8     an event of it; also modified, deleted, bookmark 9, gone
/// api listed 7                  the bookmark that ends the initial events of a streamed list
/// api end                       the end of the watch; also status 403, raw "…", fin, reset
/// ```
#[derive(Debug, Default)]
pub(crate) struct ApiServer {
    seen: usize,
    input: Vec<u8>,
}

impl ApiServer {
    /// Executes a line.
    pub(crate) fn act(net: &Network, what: &str, raw: fn(&str) -> Vec<u8>) {
        let (verb, rest) = what.split_once(' ').unwrap_or((what, ""));
        if verb == "up" || verb == "down" {
            let up = verb == "up";
            net.state().on_connect = if up { OnConnect::Accept } else { OnConnect::Refuse };
            return;
        }
        let wire = *net.state().outgoing.last().unwrap();
        let bytes = match verb {
            "fin" => return net.fin(wire),
            "reset" => return net.reset(wire),
            "list" => list(rest, ""),
            "page" => {
                let (version, rest) = rest.split_once(' ').unwrap();
                let (token, rest) = rest.split_once(' ').unwrap();
                list(&format!("{version} {rest}"), &format!(",\"continue\":\"{token}\""))
            }
            "watch" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            "bookmark" => line("BOOKMARK", &metadata(rest, "")),
            "listed" => line("BOOKMARK", &metadata(rest, LISTED)),
            "gone" => line("ERROR", "{\"code\":410}"),
            "end" => b"0\r\n\r\n".to_vec(),
            "status" => format!("HTTP/1.1 {rest} X\r\nContent-Length: 2\r\n\r\n{{}}").into_bytes(),
            "raw" => raw(rest),
            kind => line(&kind.to_ascii_uppercase(), &object(rest)),
        };
        net.send(wire, &bytes);
    }

    /// Requests since the last call.
    pub(crate) fn requests(&mut self, net: &Network) -> Vec<String> {
        let mut requests = Vec::new();
        let outgoing = net.state().outgoing.clone();
        for wire in outgoing.iter().skip(self.seen) {
            let fresh = net.take_output(*wire);
            self.input.extend(fresh);
            while let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.input.drain(..end + 4).collect();
                let head = String::from_utf8(head).unwrap();
                let lines = head
                    .lines()
                    .filter(|line| line.starts_with("GET ") || line.starts_with("Authorization"));
                requests.push(lines.collect::<Vec<_>>().join(" | "));
            }
        }
        self.seen = outgoing.len().saturating_sub(1);
        requests
    }
}

const LISTED: &str = ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}";

fn metadata(version: &str, more: &str) -> String {
    format!("{{\"metadata\":{{\"resourceVersion\":\"{version}\"{more}}}}}")
}

fn line(kind: &str, object: &str) -> Vec<u8> {
    let text = format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// `namespace/name=replicas,image@version`, and `#uid` for another object with that name.
fn object(text: &str) -> String {
    let (text, uid) = text.split_once('#').unwrap_or((text, "u"));
    let (name, rest) = text.split_once('=').unwrap();
    let (namespace, name) = name.split_once('/').unwrap();
    let (rest, version) = rest.split_once('@').unwrap();
    let (replicas, image) = rest.split_once(',').unwrap();
    format!(
        "{{\"metadata\":{{\"namespace\":\"{namespace}\",\"name\":\"{name}\",\"uid\":\"{uid}\",\
         \"resourceVersion\":\"{version}\"}},\"spec\":{{\"replicas\":{replicas},\"template\":\
         {{\"spec\":{{\"containers\":[{{\"image\":\"{image}\"}}]}}}}}}}}"
    )
}

fn list(rest: &str, more: &str) -> Vec<u8> {
    let mut words = rest.split(' ');
    let version = words.next().unwrap();
    let items: Vec<String> = words.map(object).collect();
    let body = format!(
        "{{\"metadata\":{{\"resourceVersion\":\"{version}\"{more}}},\"items\":[{}]}}",
        items.join(",")
    );
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

//! The whole server with viewers and a scripted API server: one watch for all viewers, slow viewers
//! without cost to others, and nothing left behind.

use crate::harness::Harness;
use crate::os::OnConnect;
use crate::peer::{self, Reader};
use wspulse::rng::Rng;

use super::random_api::{Api, Odds, Talk};
use super::scripted::{NO_STREAM, WATCH, chunk, list};

const KUBE: &[&str] = &["--kube", "http://127.0.0.1:8001", "--ping-interval", "0"];
const MEBIBYTE: usize = 1024 * 1024;

struct Viewer {
    wire: usize,
    reader: Reader,
}

impl Viewer {
    fn new(harness: &mut Harness, query: &str) -> Self {
        let wire = harness.connect();
        harness.send(wire, &peer::upgrade(&format!("/api/wds/logs{query}"), &[]));
        let mut viewer = Self { wire, reader: Reader::default() };
        assert!(viewer.read(harness)[0].starts_with("101"));
        viewer
    }

    fn read(&mut self, harness: &mut Harness) -> Vec<String> {
        self.reader.read(&harness.output(self.wire))
    }
}

fn object(name: &str, version: usize) -> String {
    format!(
        "{{\"metadata\":{{\"name\":\"{name}\",\"namespace\":\"shop\",\"uid\":\"{name}\",\
         \"resourceVersion\":\"{version}\"}},\"spec\":{{\"replicas\":{version},\"template\":\
         {{\"spec\":{{\"containers\":[{{\"image\":\"registry.example/{name}:{version}\"}}]}}}}}}}}"
    )
}

fn line(kind: &str, name: &str, version: usize) -> Vec<u8> {
    let object = object(name, version);
    chunk(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").as_bytes())
}

/// A server with this many Deployments, and its first viewer.
fn synced(deployments: usize, query: &str) -> (Harness, usize, Viewer) {
    let mut harness = Harness::new(KUBE);
    harness.net.state().on_connect = OnConnect::Accept;
    let viewer = Viewer::new(&mut harness, query);
    let streaming = harness.net.state().outgoing[0];
    harness.send(streaming, NO_STREAM);
    let api = harness.net.state().outgoing[1];
    let items: Vec<String> = (0..deployments).map(|at| object(&format!("d{at}"), 1)).collect();
    let body =
        format!("{{\"metadata\":{{\"resourceVersion\":\"1\"}},\"items\":[{}]}}", items.join(","));
    harness.send(api, &list(body.as_bytes()));
    harness.send(api, WATCH);
    harness.pass(1000);
    (harness, api, viewer)
}

#[test]
fn one_list_and_one_watch_for_all() {
    let (mut harness, api, mut first) = synced(3, "");
    let mut viewers: Vec<Viewer> = (0..200).map(|_| Viewer::new(&mut harness, "")).collect();
    assert_eq!(first.read(&mut harness).len(), 3);
    for viewer in &mut viewers {
        viewer.read(&mut harness);
    }
    harness.send(api, &line("ADDED", "new", 2));
    for viewer in &mut viewers {
        assert_eq!(viewer.read(&mut harness), ["text \"Successfully processed deployment: new\""]);
    }
    assert_eq!(harness.net.state().outgoing.len(), 2, "one is for the streamed list");
}

/// At most 2 KiB for each Deployment.
#[test]
fn five_thousand_deployments_are_ten_megabytes_at_most() {
    let (mut harness, _, mut viewer) = synced(5000, "?format=json");
    let mut received = 0;
    for _ in 0..1000 {
        harness.settle();
        received += viewer.read(&mut harness).len();
    }
    assert_eq!(received, 5001, "each Deployment, and `synced`");
    let cost = harness.driver.engine().memory();
    assert!(cost < 5000 * 2048, "{} bytes a Deployment", cost / 5000);
    assert!(cost > 5000 * 100, "Deployments are not accounted for");
}

/// A viewer that stops reading gets the last state of each object once it reads again.
#[test]
fn a_slow_viewer_gets_the_last_state_of_each() {
    let (mut harness, api, mut fast) = synced(20, "?format=json");
    let mut slow = Viewer::new(&mut harness, "?format=json");
    let mut text = Viewer::new(&mut harness, "");
    for viewer in [&mut fast, &mut slow, &mut text] {
        viewer.read(&mut harness);
    }
    for stopped in [slow.wire, text.wire] {
        harness.net.window(stopped, 0);
    }
    let mut output = 0;
    for version in 2..2000 {
        harness.send(api, &line("MODIFIED", &format!("d{}", version % 20), version));
        output += fast.read(&mut harness).len();
        let memory = harness.driver.engine().memory();
        assert!(memory < MEBIBYTE, "{memory} bytes for two viewers that do not read");
    }
    harness.send(api, &line("DELETED", "d7", 3000));
    harness.send(api, &line("DELETED", "d8", 3001));
    harness.send(api, &line("ADDED", "d8", 3002));
    assert_eq!(output + fast.read(&mut harness).len(), 1998 + 3, "the others get every change");
    let mut outputs = [Vec::new(), Vec::new()];
    for (viewer, lines) in [&mut slow, &mut text].into_iter().zip(&mut outputs) {
        harness.net.window(viewer.wire, usize::MAX);
        harness.settle();
        lines.extend(viewer.read(&mut harness));
    }
    let [json, text] = outputs;
    assert!(json.len() < 1500, "{} of 2001 changes", json.len());
    let ends = json.iter().filter(|line| line.contains("\\\"deleted\\\"")).count();
    assert_eq!(ends, 2, "each deletion is reported once");
    let last = |name: &str| {
        let name = format!("\\\"name\\\":\\\"{name}\\\"");
        json.iter().rev().find(|line| line.contains(&name)).unwrap()
    };
    assert!(last("d19").contains("\\\"resourceVersion\\\":\\\"1999\\\""), "{}", last("d19"));
    assert!(last("d8").contains("\\\"added\\\""), "{}", last("d8"));
    assert!(text.last().unwrap().contains("Successfully processed deployment: d8"));
    assert!(text.iter().filter(|line| line.contains("deployment: d3\"")).count() < 100);
}

/// Random histories through the whole server, the loop and the network.
#[test]
fn histories_through_the_whole_server() {
    for seed in 0..300 {
        let mut harness = Harness::seeded(KUBE, seed);
        let mut rng = Rng::new(seed);
        let mut api = Api::new(seed);
        api.odds =
            Odds { status: 50, cut: 50, end: 50, error: 20, compacted: 50, ..Odds::default() };
        let mut talks: Vec<(usize, Talk)> = Vec::new();
        let mut viewers =
            [Viewer::new(&mut harness, ""), Viewer::new(&mut harness, "?format=json")];
        for step in 0..60 {
            if step == 50 {
                api.odds = Odds::default();
                harness.net.state().on_connect = OnConnect::Accept;
            } else if step < 50 {
                let refuses = rng.below(4) == 0;
                harness.net.state().on_connect =
                    if refuses { OnConnect::Refuse } else { OnConnect::Accept };
                api.change(6);
            }
            harness.pass(if step >= 50 { 61_000 } else { rng.below(3000) });
            serve(&mut harness, &mut api, &mut talks);
            for viewer in &mut viewers {
                viewer.read(&mut harness);
            }
        }
        let wanted: Vec<_> = api
            .objects
            .values()
            .map(|one| (format!("n/{}", one.name), one.uid.clone(), one.version.to_string()))
            .collect();
        assert_eq!(harness.driver.engine().contents("informer"), wanted, "seed {seed}");
        for viewer in viewers {
            harness.net.reset(viewer.wire);
        }
        harness.pass(61_000);
        harness.pass(61_000);
        let server = harness.driver.engine();
        assert_eq!((server.connections(), server.timers()), (0, 0), "seed {seed}");
        assert_eq!(server.memory(), server.memory_counted(), "seed {seed}");
        assert!(server.memory() < 1024, "seed {seed} leaves {} bytes", server.memory());
        assert!(server.contents("informer").is_empty(), "seed {seed}");
    }
}

/// Runs the API server until nothing is left to send.
fn serve(harness: &mut Harness, api: &mut Api, talks: &mut Vec<(usize, Talk)>) {
    for _ in 0..100 {
        let outgoing = std::mem::take(&mut harness.net.state().outgoing);
        talks.extend(outgoing.into_iter().map(|wire| (wire, Talk::default())));
        talks.retain(|(wire, _)| harness.end(*wire).is_none());
        let mut busy = false;
        for (wire, talk) in talks.iter_mut() {
            let asked = harness.output(*wire);
            let mut bytes = api.receive(harness.now_ns(), talk, &asked);
            bytes.extend(api.stream(harness.now_ns(), talk));
            busy |= !asked.is_empty() || !bytes.is_empty();
            harness.send(*wire, &bytes);
            if talk.over {
                harness.net.reset(*wire);
                harness.settle();
            }
        }
        if !busy {
            return;
        }
    }
}

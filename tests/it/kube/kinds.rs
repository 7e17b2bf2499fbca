//! Several kinds of objects through the whole server, and viewers that come back.

use crate::harness::Harness;
use crate::os::OnConnect;
use crate::peer::{self, Reader};

use super::scripted::{WATCH, chunk};

const KINDS: [&str; 4] = ["deployments", "statefulsets", "daemonsets", "pods"];

struct Cluster {
    harness: Harness,
}

struct Viewer {
    wire: usize,
    reader: Reader,
}

impl Cluster {
    fn watching(resources: &str) -> Self {
        let kube = ["--kube", "http://127.0.0.1:8001", "--kube-resources", resources];
        let harness = Harness::new(&[&kube[..], &["--ping-interval", "0"]].concat());
        harness.net.state().on_connect = OnConnect::Accept;
        Self { harness }
    }

    /// The response to an upgrade, and a viewer if it was accepted.
    fn view(&mut self, query: &str) -> Viewer {
        let wire = self.harness.connect();
        self.harness.send(wire, &peer::upgrade(&format!("/api/wds/logs{query}"), &[]));
        Viewer { wire, reader: Reader::default() }
    }

    /// Frames of a viewer: their type, kind, name and version.
    fn news(&mut self, viewer: &mut Viewer) -> Vec<String> {
        let lines = viewer.reader.read(&self.harness.output(viewer.wire));
        let frames = lines.iter().filter_map(|line| line.strip_prefix("text "));
        let short = frames.map(|frame| {
            let json: String = serde_json::from_str(frame).unwrap();
            let frame: serde_json::Value = serde_json::from_str(&json).unwrap();
            let words = ["type", "kind", "name", "resourceVersion"];
            let words = words.iter().filter_map(|word| frame[word].as_str());
            words.collect::<Vec<_>>().join(" ")
        });
        short.collect()
    }

    /// The connections to the API server, and the kinds that they ask for.
    fn asked(&mut self) -> Vec<(usize, String)> {
        let wires = self.harness.net.state().outgoing.clone();
        let mut asked = Vec::new();
        for wire in wires {
            let request = String::from_utf8(self.harness.output(wire)).unwrap();
            if let Some(target) = request.split(' ').nth(1) {
                let path = target.split('?').next().unwrap();
                asked.push((wire, path.to_owned()));
            }
        }
        asked
    }

    fn say(&mut self, wire: usize, lines: &[(&str, &str, u32)]) {
        for (kind, name, version) in lines {
            let line = event(kind, name, *version);
            self.harness.send(wire, &chunk(line.as_bytes()));
        }
    }

    fn metric(&mut self, name: &str) -> Vec<String> {
        let wire = self.harness.net.connect(1);
        self.harness.send(wire, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        let page = String::from_utf8(self.harness.output(wire)).unwrap();
        let rows = page.lines().filter_map(|line| line.strip_prefix(name));
        rows.filter(|row| row.starts_with('{')).map(str::to_owned).collect()
    }
}

fn event(kind: &str, name: &str, version: u32) -> String {
    let end = if kind == "BOOKMARK" {
        ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}"
    } else {
        ""
    };
    format!(
        "{{\"type\":\"{kind}\",\"object\":{{\"metadata\":{{\"name\":\"{name}\",\
         \"namespace\":\"n\",\"uid\":\"{name}\",\"resourceVersion\":\"{version}\"{end}}}}}}}\n"
    )
}

/// A cluster with one synced kind: `a` and `b`, list version 7.
fn synced(query: &str) -> (Cluster, usize, Viewer) {
    let mut cluster = Cluster::watching("deployments");
    let mut viewer = cluster.view(query);
    let (api, _) = cluster.asked().remove(0);
    cluster.harness.send(api, WATCH);
    cluster.say(api, &[("ADDED", "a", 5), ("ADDED", "b", 6), ("BOOKMARK", "", 7)]);
    cluster.news(&mut viewer);
    (cluster, api, viewer)
}

#[test]
fn every_kind_has_its_list_and_watch() {
    let mut cluster = Cluster::watching(&KINDS.join(","));
    let mut all = cluster.view("?format=json&kind=*");
    let asked = cluster.asked();
    let paths: Vec<&str> = asked.iter().map(|(_, path)| &**path).collect();
    let wanted = [
        "/apis/apps/v1/deployments",
        "/apis/apps/v1/statefulsets",
        "/apis/apps/v1/daemonsets",
        "/api/v1/pods",
    ];
    assert_eq!(paths, wanted);
    let mut pods = cluster.view("?format=json&kind=pods");
    let mut some = cluster.view("?format=json&kind=pods,daemonsets&name=x");
    let mut text = cluster.view("?kind=pods");
    assert_eq!(cluster.asked(), [], "one list and one watch for all");
    for (at, (wire, _)) in asked.iter().enumerate() {
        cluster.harness.send(*wire, WATCH);
        cluster.say(*wire, &[("ADDED", "x", at as u32), ("BOOKMARK", "", 7)]);
    }
    let news = cluster.news(&mut all);
    for (at, kind) in KINDS.iter().enumerate() {
        assert_eq!(news[2 * at], format!("added {kind} x {at}"));
        assert_eq!(news[2 * at + 1], format!("synced {kind} 7"));
    }
    assert_eq!(cluster.news(&mut pods), ["added pods x 3", "synced pods 7"]);
    let both = ["added daemonsets x 2", "synced daemonsets 7", "added pods x 3", "synced pods 7"];
    assert_eq!(cluster.news(&mut some), both);
    cluster.say(asked[3].0, &[("DELETED", "x", 9)]);
    assert_eq!(cluster.news(&mut all), ["deleted pods x 9"]);
    let lines = text.reader.read(&cluster.harness.output(text.wire));
    let wanted = [
        "text \"Successfully processed pod: x\"",
        "text \"Pod x deleted\"",
        "text \"Pod n/x has been deleted\"",
    ];
    assert_eq!(lines[1..], wanted);
    assert_eq!(
        cluster.metric("informer_objects"),
        [
            "{kind=\"deployments\"} 1",
            "{kind=\"statefulsets\"} 1",
            "{kind=\"daemonsets\"} 1",
            "{kind=\"pods\"} 0"
        ]
    );
    cluster.harness.net.reset(asked[1].0);
    cluster.harness.settle();
    assert_eq!(cluster.metric("informer_synced")[1], "{kind=\"statefulsets\"} 0");
    assert_eq!(cluster.metric("informer_synced")[3], "{kind=\"pods\"} 1");
    assert_eq!(cluster.news(&mut all), ["stale statefulsets"], "the others go on");
    for viewer in [all, pods, some, text] {
        cluster.harness.net.reset(viewer.wire);
    }
    cluster.harness.pass(61_000);
    cluster.harness.pass(61_000);
    let server = cluster.harness.driver.engine();
    assert_eq!((server.connections(), server.memory()), (0, server.memory_counted()));
    assert!(server.memory() < 1024, "{} bytes are left", server.memory());
}

/// A kind without viewers is not asked for.
#[test]
fn only_the_kinds_that_are_viewed_are_watched() {
    let mut cluster = Cluster::watching("pods,daemonsets");
    cluster.view("?format=json&kind=daemonsets");
    let paths: Vec<String> = cluster.asked().into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["/apis/apps/v1/daemonsets"]);
    cluster.view("");
    let paths: Vec<String> = cluster.asked().into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, ["/api/v1/pods"], "without Deployments, the first kind is the default");
}

#[test]
fn refused_queries() {
    let mut cluster = Cluster::watching("deployments,pods");
    for (query, status, words) in [
        (
            "?kind=statefulsets",
            "404",
            "statefulsets are not watched: --kube-resources is deployments,pods",
        ),
        ("?kind=pods,daemonsets&format=json", "404", "daemonsets are not watched"),
        ("?kind=nodes", "400", "parameter kind: must be deployments, statefulsets"),
        ("?kind=", "400", "parameter kind"),
        ("?since=7", "400", "parameter since: needs format=json and one kind"),
        ("?since=7&format=json&kind=*", "400", "parameter since: needs"),
        ("?since=7%208&format=json", "400", "parameter since: must be a resourceVersion"),
    ] {
        let mut viewer = cluster.view(query);
        let lines = viewer.reader.read(&cluster.harness.output(viewer.wire));
        let first = &lines[0];
        assert!(first.starts_with(status) && first.contains(words), "{query}: {first}");
    }
    assert_eq!(cluster.asked(), [], "nobody views anything");
}

/// A viewer that comes back gets what it has missed, and nothing twice.
#[test]
fn a_viewer_that_comes_back_continues() {
    let (mut cluster, api, viewer) = synced("?format=json");
    let mut other = cluster.view("?format=json");
    cluster.say(api, &[("MODIFIED", "a", 8)]);
    cluster.harness.net.reset(viewer.wire);
    cluster.say(api, &[("MODIFIED", "b", 9), ("DELETED", "a", 10), ("ADDED", "c", 11)]);
    let mut back = cluster.view("?format=json&since=8");
    let missed = ["modified deployments b 9", "deleted deployments a 10", "added deployments c 11"];
    let news = cluster.news(&mut back);
    assert_eq!(news[..3], missed);
    assert_eq!(news[3..], ["synced deployments 11"]);
    // The version of the list, which `synced` had, and the newest one.
    let mut back = cluster.view("?format=json&since=7");
    let news = cluster.news(&mut back);
    assert_eq!((&*news[0], news.len()), ("modified deployments a 8", 5));
    let mut back = cluster.view("?format=json&since=11");
    assert_eq!(cluster.news(&mut back), ["synced deployments 11"]);
    // Versions are opaque: one that is not known is not between others.
    for since in ["6", "5", "10.5", "12", "x"] {
        let mut back = cluster.view(&format!("?format=json&since={since}"));
        let anew = [
            "gap deployments",
            "added deployments b 9",
            "added deployments c 11",
            "synced deployments 11",
        ];
        assert_eq!(cluster.news(&mut back), anew, "{since}");
    }
    assert_eq!(cluster.news(&mut other).len(), 3 + 4);
}

/// While there are no viewers, changes are kept up to a limit; beyond it there is a gap.
#[test]
fn the_changes_that_are_kept_are_bounded() {
    let (mut cluster, api, viewer) = synced("?format=json");
    cluster.harness.net.reset(viewer.wire);
    cluster.harness.settle();
    let before = cluster.harness.driver.engine().memory();
    for version in 100..1000 {
        cluster.say(api, &[("MODIFIED", "a", version)]);
    }
    let grown = cluster.harness.driver.engine().memory() - before;
    assert!((32 * 1024..66 * 1024).contains(&grown), "{grown} bytes");
    let mut late = cluster.view("?format=json&since=100");
    assert_eq!(cluster.news(&mut late)[0], "gap deployments");
    let mut back = cluster.view("?format=json&since=990");
    assert_eq!(cluster.news(&mut back).len(), 10, "9 changes and `synced`");
    // The memory of a feed that has ended is gone.
    for viewer in [late, back] {
        cluster.harness.net.reset(viewer.wire);
    }
    cluster.harness.pass(61_000);
    cluster.harness.pass(61_000);
    assert!(cluster.harness.driver.engine().memory() < 1024);
    let mut back = cluster.view("?format=json&since=999");
    assert_eq!(cluster.news(&mut back), ["gap deployments"], "at once");
}

//! Random histories: whatever happens to the cluster and its connections, viewers see a subsequence
//! of each object's history with one deletion, and finally the state of the API server; also those
//! that leave and come back.
//! `HISTORIES=1000000 cargo test --release histories` runs longer, `HISTORY=7` plays one.

use std::collections::BTreeMap;

use serde_json::Value;
use wspulse::engine::{HangUp, Id, Now};
use wspulse::options::proxies::Proxies;
use wspulse::parts::informer::access::Access;
use wspulse::parts::informer::{Encoded, Filter, Format, Informer, Plan, Resource, Step, Then};
use wspulse::rng::Rng;

use super::random_api::{Api, Object, Odds, Talk};

const SECOND_NS: u64 = 1_000_000_000;

/// A viewer and what it has been sent.
#[derive(Debug, Default)]
struct Viewer {
    objects: BTreeMap<String, Seen>,
    deleted: u64,
    synced: bool,
    lines: Vec<String>,
    /// The version of its last message, if it has been synced since it began anew.
    since: Option<String>,
    gaps: u64,
    resumed: u64,
}

#[derive(Clone, Debug)]
struct Seen {
    version: u64,
    replicas: u64,
    images: String,
}

impl Viewer {
    fn read(&mut self, json: &[u8], api: &Api) {
        let frame: Value = serde_json::from_slice(json).unwrap();
        assert_eq!(frame["kind"], api.resource.name());
        let kind = frame["type"].as_str().unwrap();
        if let (Some(version), true) = (frame["resourceVersion"].as_str(), self.can_resume(kind)) {
            self.since = Some(version.to_owned());
        }
        match kind {
            "synced" => self.synced = true,
            "stale" => self.synced = false,
            "gap" => {
                self.begin_anew();
                self.gaps += 1;
            }
            _ => self.object(kind, &frame, api),
        }
    }

    fn can_resume(&self, kind: &str) -> bool {
        kind == "synced" || self.since.is_some()
    }

    fn begin_anew(&mut self) {
        (self.since, self.synced) = (None, false);
        self.objects.clear();
    }

    fn object(&mut self, kind: &str, frame: &Value, api: &Api) {
        let name = frame["name"].as_str().unwrap().to_owned();
        let version: u64 = frame["resourceVersion"].as_str().unwrap().parse().unwrap();
        assert!(version <= api.version, "{name} has a version that does not exist yet");
        match (kind, self.objects.get(&name)) {
            ("added", None) => {}
            ("modified", Some(seen)) => {
                assert!(
                    version > seen.version,
                    "{name} goes from version {} to {version}",
                    seen.version
                );
            }
            ("deleted", Some(seen)) => {
                assert!(version >= seen.version, "{name} is deleted in an older version");
                self.deleted += 1;
                self.objects.remove(&name);
                return;
            }
            (kind, seen) => panic!("{name} is {kind}, and was {seen:?}"),
        }
        let replicas = match api.resource {
            Resource::Pods => &frame["restarts"],
            Resource::Deployments | Resource::StatefulSets | Resource::DaemonSets => {
                &frame["replicas"]["desired"]
            }
        };
        let replicas = replicas.as_u64().unwrap();
        let images = frame["images"].to_string();
        self.objects.insert(name, Seen { version, replicas, images });
    }

    /// A frame of the text format.
    fn line(&mut self, text: &[u8], resource: Resource) {
        let text = std::str::from_utf8(text).unwrap();
        self.lines.push(text.to_owned());
        let (singular, noun) = match resource {
            Resource::Deployments => ("deployment", "Deployment"),
            Resource::StatefulSets => ("statefulset", "StatefulSet"),
            Resource::DaemonSets => ("daemonset", "DaemonSet"),
            Resource::Pods => ("pod", "Pod"),
        };
        if let Some(name) = text.strip_prefix(&*format!("Successfully processed {singular}: ")) {
            self.objects
                .insert(name.to_owned(), Seen { version: 0, replicas: 0, images: String::new() });
        } else if let Some(name) =
            text.strip_prefix(noun).and_then(|rest| rest.strip_suffix(" deleted"))
            && let Some(name) = name.strip_prefix(' ')
            && !name.contains(' ')
        {
            assert!(self.objects.remove(name).is_some(), "{name} is deleted twice");
        }
    }
}

struct Run {
    informer: Informer,
    api: Api,
    rng: Rng,
    now_ns: u64,
    talk: Option<Talk>,
    /// JSON, JSON and slow, text, JSON that comes back.
    viewers: [Viewer; 4],
    /// How often each has come back, or `None` while it is away.
    visits: [Option<u32>; 4],
    away: [u32; 4],
}

const FORMATS: [Format; 4] = [Format::Json, Format::Json, Format::Text, Format::Json];
const RETURNING: usize = 3;

impl Run {
    fn new(seed: u64) -> Self {
        let access = Access::from_url("http://127.0.0.1:8001").unwrap();
        let (resource, namespace) = (Resource::ALL[seed as usize % 4], String::new());
        let (origin, proxies) = (None, Proxies::default());
        let plan = Plan { access, resource, namespace, always: false, origin, proxies };
        let informer = Informer::new(plan, seed);
        let mut rng = Rng::new(seed ^ 0x5eed);
        let mut api = Api::new(seed.wrapping_mul(31));
        let mut often = |most: u64| if rng.below(3) == 0 { rng.below(most) } else { 0 };
        api.resource = resource;
        api.odds = Odds {
            refused: often(600),
            status: often(300),
            cut: often(300),
            silent: often(50),
            end: often(300),
            error: often(100),
            compacted: often(300),
        };
        let (viewers, away) = Default::default();
        let visits = [None; 4];
        let mut run =
            Self { informer, api, rng, now_ns: SECOND_NS, talk: None, viewers, visits, away };
        for key in 0..4 {
            run.come(key);
        }
        run
    }

    fn come(&mut self, key: usize) {
        if self.visits[key].is_some() {
            return;
        }
        self.away[key] += 1;
        self.visits[key] = Some(self.away[key]);
        let id = Id { key: key as u32, generation: self.away[key] };
        let filter = Filter { format: FORMATS[key], ..Filter::default() };
        let viewer = &mut self.viewers[key];
        if key == RETURNING
            && let Some(version) = &viewer.since
        {
            viewer.resumed += 1;
            self.informer.feed.join_since(id, filter, version);
        } else {
            viewer.begin_anew();
            self.informer.feed.join(id, filter);
        }
    }

    fn leave(&mut self, key: usize) {
        if let Some(generation) = self.visits[key].take() {
            self.informer.feed.leave(Id { key: key as u32, generation });
        }
    }

    /// Viewers come and go, one of them often, all of them rarely.
    fn wander(&mut self) {
        let all = self.rng.below(4) == 0;
        for key in 0..4 {
            if key != RETURNING && !all {
                self.come(key);
            } else if self.rng.below(2) == 0 {
                self.leave(key);
            } else {
                self.come(key);
            }
        }
    }

    fn now(&self) -> Now {
        Now { mono_ns: self.now_ns, wall_ms: 1_795_230_000_000 }
    }

    /// Runs until nothing is left to do at this moment.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.informer.update_demand(self.now());
            let Some(step) = self.informer.poll() else {
                if self.pump() {
                    continue;
                }
                return;
            };
            match step {
                Step::Connect(_) if self.api.is_refused() => {
                    let mut out = Vec::new();
                    self.informer.connected(self.now(), Err(HangUp::Refused), &mut out);
                    assert!(out.is_empty(), "output without a connection");
                }
                Step::Connect(_) => {
                    assert!(self.talk.is_none(), "two connections at once");
                    self.talk = Some(Talk::default());
                    let mut out = Vec::new();
                    self.informer.connected(self.now(), Ok(()), &mut out);
                    self.say(&out);
                }
                Step::HangUp => self.talk = None,
                Step::Read(_) => panic!("there is nothing to read"),
            }
        }
        panic!("it does not come to rest");
    }

    /// Passes the informer's output to the API server, and the response back.
    fn say(&mut self, bytes: &[u8]) {
        let Some(talk) = &mut self.talk else { return };
        let answer = self.api.receive(self.now_ns, talk, bytes);
        self.hear(&answer);
    }

    /// Delivers more of a watch; false if there is nothing.
    fn pump(&mut self) -> bool {
        let Some(talk) = &mut self.talk else { return false };
        if talk.over {
            self.talk = None;
            let how = if self.rng.below(2) == 0 { HangUp::Eof } else { HangUp::Reset };
            self.informer.ended(self.now(), how);
            return true;
        }
        let bytes = self.api.stream(self.now_ns, talk);
        self.hear(&bytes);
        !bytes.is_empty()
    }

    /// Delivers bytes in random pieces.
    fn hear(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let most = if self.rng.below(4) == 0 { 7 } else { bytes.len() as u64 };
            let size = (1 + self.rng.below(most) as usize).min(bytes.len());
            let mut out = Vec::new();
            self.informer.received(self.now(), &bytes[..size], &mut out);
            bytes = &bytes[size..];
            if !out.is_empty() {
                assert!(bytes.is_empty(), "it sends a request before the response is complete");
                self.say(&out);
            }
        }
    }

    /// Viewers read, the slow one sometimes.
    fn look(&mut self, all: bool) {
        while let Some(viewer) = self.informer.feed.next_due() {
            let at = viewer.key as usize;
            if at == 1 && !all && self.rng.below(10) > 0 {
                continue;
            }
            let most = if all { usize::MAX } else { self.rng.below(6) as usize };
            let (now, Self { viewers, api, informer, .. }) = (self.now(), &mut *self);
            let mut sent = 0;
            let then = informer.feed.speak(now, viewer, &mut |encoded: &Encoded| {
                for payload in encoded.payloads() {
                    match at {
                        2 => viewers[at].line(payload, api.resource),
                        _ => viewers[at].read(payload, api),
                    }
                }
                sent += 1;
                most.saturating_sub(sent)
            });
            assert_eq!(then, Then::Wait, "no viewer is that slow");
            if !all {
                break;
            }
        }
    }

    fn pass(&mut self, ns: u64) {
        let until_ns = self.now_ns + ns;
        loop {
            let ends_ns = self.talk.as_ref().and_then(Talk::ends_ns);
            let due_ns = self.informer.next_deadline().into_iter().chain(ends_ns).min();
            let Some(due_ns) = due_ns.filter(|due_ns| *due_ns <= until_ns) else { break };
            self.now_ns = self.now_ns.max(due_ns);
            self.informer.fire(self.now());
            self.settle();
        }
        self.now_ns = until_ns;
        self.settle();
    }
}

fn play(seed: u64) -> Run {
    let mut run = Run::new(seed);
    let names = 1 + run.rng.below(8);
    for _ in 0..run.rng.below(6) {
        run.api.change(names);
    }
    for _ in 0..10 + run.rng.below(40) {
        let (ms, seconds) = (run.rng.below(2000), run.rng.below(700));
        match run.rng.below(12) {
            0..4 => run.api.change(names),
            4..6 => run.look(false),
            6 => run.pass(seconds * SECOND_NS),
            7 | 8 => run.wander(),
            _ => run.pass(ms * 1_000_000),
        }
        run.settle();
    }
    // No more faults from here on; a half-open connection is noticed after a while.
    run.api.odds = Odds::default();
    for key in 0..4 {
        run.come(key);
    }
    run.settle();
    run.pass(700 * SECOND_NS);
    run.pass(700 * SECOND_NS);
    // All viewers are woken, the slow one as well.
    for key in 0..4 {
        let mut payloads: Vec<Vec<u8>> = Vec::new();
        let now = run.now();
        let id = Id { key: key as u32, generation: run.away[key] };
        run.informer.feed.speak(now, id, &mut |encoded| {
            payloads.extend(encoded.payloads().map(<[u8]>::to_vec));
            1
        });
        for payload in payloads {
            match key {
                2 => run.viewers[key].line(&payload, run.api.resource),
                _ => run.viewers[key].read(&payload, &run.api),
            }
        }
    }
    run
}

fn judge(run: &Run) {
    let server: Vec<(String, String, String)> = run
        .api
        .objects
        .values()
        .map(|object| {
            (format!("n/{}", object.name), object.uid.clone(), object.version.to_string())
        })
        .collect();
    assert_eq!(run.informer.feed.contents(), server, "the cache differs from the server");
    for viewer in [0, 1, RETURNING].map(|key| &run.viewers[key]) {
        let seen = |(name, seen): (&String, &Seen)| {
            (name.clone(), seen.version, seen.replicas, seen.images.clone())
        };
        let shown: Vec<_> = viewer.objects.iter().map(seen).collect();
        let real = |object: &Object| {
            let images = format!("[\"i:{}\"]", object.image);
            (object.name.clone(), object.version, object.replicas, images)
        };
        let wanted: Vec<_> = run.api.objects.values().map(real).collect();
        assert_eq!(shown, wanted, "a viewer differs from the server");
        assert!(viewer.synced, "a viewer received no `synced`");
        assert!(viewer.deleted <= run.api.deletions, "more deletions than happened");
    }
    let names: Vec<&String> = run.viewers[2].objects.keys().collect();
    assert_eq!(names, run.api.objects.keys().collect::<Vec<_>>(), "the text viewer");
}

/// Mutations that this test has caught: a deletion lost at a new list, a partial line applied, a
/// duplicate addition.
#[test]
fn histories_end_with_the_state_of_the_server() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    if let Some(seed) = number("HISTORY") {
        return judge(&play(seed));
    }
    let (mut relists, mut errors, mut deletions, mut gaps, mut resumed) = (0, 0, 0, 0, 0);
    for seed in 0..number("HISTORIES").unwrap_or(10_000) {
        let done = std::panic::catch_unwind(|| {
            let run = play(seed);
            judge(&run);
            let Viewer { gaps, resumed, .. } = run.viewers[RETURNING];
            (run.informer.figures, run.viewers[0].deleted, gaps, resumed - gaps)
        });
        let Ok((figures, deleted, gap, resume)) = done else {
            panic!("HISTORY={seed} cargo test histories");
        };
        relists += figures.relists;
        errors += figures.watch_errors;
        deletions += deleted;
        gaps += gap;
        resumed += resume;
    }
    assert!(relists > 1000 && errors > 1000 && deletions > 1000, "too few faults");
    assert!(gaps > 10 && resumed > 500, "{gaps} gaps, {resumed} resumed");
}

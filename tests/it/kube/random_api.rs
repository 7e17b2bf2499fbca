//! A Kubernetes API server as an informer sees it: objects with versions, consistent paged lists,
//! watches with history, and random faults from a seed.

use std::collections::BTreeMap;

use wspulse::parts::informer::Resource;
use wspulse::rng::Rng;

/// An object of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) version: u64,
    pub(super) replicas: u64,
    pub(super) image: u64,
}

impl Object {
    /// What is called replicas here are the scheduled pods of daemonsets, the restarts of pods.
    pub(super) fn json(&self, resource: Resource) -> String {
        let Self { name, uid, version, replicas, image } = self;
        let spec = format!("{{\"containers\":[{{\"name\":\"c\",\"image\":\"i:{image}\"}}]}}");
        let (spec, status) = match resource {
            Resource::Deployments | Resource::StatefulSets => (
                format!("{{\"replicas\":{replicas},\"template\":{{\"spec\":{spec}}}}}"),
                "{\"readyReplicas\":1}".to_owned(),
            ),
            Resource::DaemonSets => (
                format!("{{\"template\":{{\"spec\":{spec}}}}}"),
                format!("{{\"desiredNumberScheduled\":{replicas},\"numberReady\":1}}"),
            ),
            Resource::Pods => (
                spec,
                format!(
                    "{{\"phase\":\"Running\",\"containerStatuses\":[{{\"ready\":true,\
                     \"restartCount\":{replicas},\"state\":{{\"running\":{{}}}}}}]}}"
                ),
            ),
        };
        format!(
            "{{\"kind\":\"K\",\"metadata\":{{\"name\":\"{name}\",\
             \"namespace\":\"n\",\"uid\":\"{uid}\",\"resourceVersion\":\"{version}\",\
             \"labels\":{{\"a\":\"}}]\\\"\"}}}},\"spec\":{spec},\"status\":{status}}}"
        )
    }
}

/// Faults per thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Odds {
    pub(super) refused: u64,
    /// An error status, or HTML.
    pub(super) status: u64,
    /// The response or the watch is cut.
    pub(super) cut: u64,
    /// Silence: nothing more is sent.
    pub(super) silent: u64,
    /// The watch ends.
    pub(super) end: u64,
    /// An ERROR event.
    pub(super) error: u64,
    /// The history is compacted.
    pub(super) compacted: u64,
}

/// What the server makes of a request for a streamed list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Streams {
    Offered,
    /// With this status.
    Refused(u16),
    /// It begins an ordinary watch, as servers before 1.19 do.
    Ignored,
}

/// A connection.
#[derive(Debug, Default)]
pub(super) struct Talk {
    input: Vec<u8>,
    watch: Option<Watch>,
    silent: bool,
    pub(super) over: bool,
}

#[derive(Debug)]
struct Watch {
    version: u64,
    until_ns: u64,
    /// The objects that a streamed list still has to send, and whether a bookmark ends them.
    initial: Option<(Vec<Object>, bool)>,
}

impl Talk {
    /// When a watch on it ends by itself.
    pub(super) fn ends_ns(&self) -> Option<u64> {
        self.watch.as_ref().filter(|_| !self.silent).map(|watch| watch.until_ns)
    }
}

/// The server.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) rng: Rng,
    pub(super) odds: Odds,
    pub(super) resource: Resource,
    pub(super) streams: Streams,
    pub(super) objects: BTreeMap<String, Object>,
    pub(super) version: u64,
    history: Vec<(u64, &'static str, Object)>,
    compacted: u64,
    lists: BTreeMap<u64, Vec<Object>>,
    uids: u64,
    /// Request lines received.
    pub(super) asked: Vec<String>,
    pub(super) deletions: u64,
}

impl Api {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let streams = match rng.below(4) {
            0 => Streams::Refused(422),
            1 => Streams::Refused(400),
            2 => Streams::Ignored,
            _ => Streams::Offered,
        };
        Self {
            rng,
            odds: Odds::default(),
            resource: Resource::Deployments,
            streams,
            objects: BTreeMap::new(),
            version: 100,
            history: Vec::new(),
            compacted: 0,
            lists: BTreeMap::new(),
            uids: 0,
            asked: Vec::new(),
            deletions: 0,
        }
    }

    fn happens(&mut self, odds: u64) -> bool {
        self.rng.below(1000) < odds
    }

    pub(super) fn is_refused(&mut self) -> bool {
        self.happens(self.odds.refused)
    }

    /// Creates, updates or deletes one of this many objects.
    pub(super) fn change(&mut self, names: u64) {
        let name = format!("d{}", self.rng.below(names));
        match self.objects.get(&name).cloned() {
            None => self.create(&name),
            Some(_) if self.happens(300) => self.delete(&name),
            Some(mut object) => {
                match self.rng.below(3) {
                    0 => object.replicas += 1,
                    1 => object.image += 1,
                    _ => {}
                }
                self.update(object);
            }
        }
        if self.happens(self.odds.compacted) {
            self.compact();
        }
    }

    pub(super) fn create(&mut self, name: &str) {
        self.uids += 1;
        self.version += 1 + self.rng.below(3);
        let object = Object {
            name: name.to_owned(),
            uid: format!("u{}", self.uids),
            version: self.version,
            replicas: 1,
            image: 1,
        };
        self.history.push((self.version, "ADDED", object.clone()));
        self.objects.insert(name.to_owned(), object);
    }

    pub(super) fn update(&mut self, mut object: Object) {
        self.version += 1 + self.rng.below(3);
        object.version = self.version;
        self.history.push((self.version, "MODIFIED", object.clone()));
        self.objects.insert(object.name.clone(), object);
    }

    pub(super) fn delete(&mut self, name: &str) {
        let Some(mut object) = self.objects.remove(name) else { return };
        self.version += 1 + self.rng.below(3);
        self.deletions += 1;
        object.version = self.version;
        self.history.push((self.version, "DELETED", object));
    }

    /// Watches from before this moment are expired.
    pub(super) fn compact(&mut self) {
        self.compacted = self.version;
        self.history.clear();
        self.lists.clear();
    }

    /// Receives bytes from the client; returns the response.
    pub(super) fn receive(&mut self, now_ns: u64, talk: &mut Talk, bytes: &[u8]) -> Vec<u8> {
        talk.input.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some(end) = talk.input.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = talk.input.drain(..end + 4).collect();
            let head = String::from_utf8(head).unwrap();
            let line = head.lines().next().unwrap().to_owned();
            assert!(!talk.over, "request on a closed connection: {line}");
            assert!(talk.watch.is_none(), "request during a watch: {line}");
            let answer = self.answer(now_ns, talk, &line);
            self.asked.push(line);
            self.damage(talk, answer, &mut out);
        }
        out
    }

    /// Adds bytes, perhaps cut.
    fn damage(&mut self, talk: &mut Talk, mut bytes: Vec<u8>, out: &mut Vec<u8>) {
        if bytes.is_empty() || talk.silent {
            return;
        }
        if self.happens(self.odds.silent) {
            talk.silent = true;
        }
        if talk.silent || self.happens(self.odds.cut) {
            let kept = self.rng.below(bytes.len() as u64) as usize;
            bytes.truncate(kept);
            talk.over = !talk.silent;
        }
        out.extend_from_slice(&bytes);
    }

    fn answer(&mut self, now_ns: u64, talk: &mut Talk, line: &str) -> Vec<u8> {
        if self.happens(self.odds.status) {
            let status = [401, 403, 404, 410, 429, 500, 503][self.rng.below(7) as usize];
            return match self.rng.below(4) {
                0 => b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>".to_vec(),
                1 => whole(status, "Retry-After: 3\r\n", "{}"),
                _ => whole(status, "", "{\"kind\":\"Status\"}"),
            };
        }
        let target = line.split(' ').nth(1).unwrap();
        let (path, query) = target.split_once('?').unwrap();
        let wanted = match self.resource {
            Resource::Deployments => "/apis/apps/v1/deployments",
            Resource::StatefulSets => "/apis/apps/v1/statefulsets",
            Resource::DaemonSets => "/apis/apps/v1/daemonsets",
            Resource::Pods => "/api/v1/pods",
        };
        assert_eq!(path, wanted);
        let query: BTreeMap<&str, &str> =
            query.split('&').map(|pair| pair.split_once('=').unwrap()).collect();
        if query.contains_key("watch") {
            return self.begin_watch(now_ns, talk, &query);
        }
        let limit = query.get("limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
        self.page(limit, query.get("continue").copied())
    }

    fn page(&mut self, limit: usize, more: Option<&str>) -> Vec<u8> {
        // Pages are so small that several are usual.
        let few = 1 + self.rng.below(4) as usize;
        let limit = if limit == usize::MAX { 1_000_000 } else { limit.min(few) };
        let (version, from) = match more {
            None => {
                self.lists.insert(self.version, self.objects.values().cloned().collect());
                (self.version, 0)
            }
            Some(token) => {
                let (version, from) = token.split_once('.').unwrap();
                (version.parse().unwrap(), from.parse().unwrap())
            }
        };
        let Some(list) = self.lists.get(&version) else {
            return whole(410, "", "{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\"}");
        };
        let page: Vec<String> =
            list.iter().skip(from).take(limit).map(|one| one.json(self.resource)).collect();
        let more = if from + limit < list.len() {
            format!(",\"continue\":\"{version}.{}\"", from + limit)
        } else {
            String::new()
        };
        let metadata = format!("\"metadata\":{{\"resourceVersion\":\"{version}\"{more}}}");
        let items = format!("\"items\":[{}]", page.join(", "));
        // JSON objects are unordered.
        let body = if self.happens(500) {
            format!("{{\"kind\":\"DeploymentList\",{metadata},{items}}}\n")
        } else {
            format!("{{{items},{metadata}}}")
        };
        whole(200, "", &body)
    }

    fn begin_watch(
        &mut self,
        now_ns: u64,
        talk: &mut Talk,
        query: &BTreeMap<&str, &str>,
    ) -> Vec<u8> {
        assert_eq!(query["allowWatchBookmarks"], "true");
        let seconds: u64 = query["timeoutSeconds"].parse().unwrap();
        assert!((300..=600).contains(&seconds), "{seconds}");
        let until_ns = now_ns + seconds * 1_000_000_000;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        if query.contains_key("sendInitialEvents") {
            assert_eq!(query["resourceVersionMatch"], "NotOlderThan");
            assert!(!query.contains_key("resourceVersion"));
            let objects: Vec<Object> = self.objects.values().cloned().collect();
            let ends = match self.streams {
                Streams::Refused(status) => return whole(status, "", "{\"kind\":\"Status\"}"),
                Streams::Ignored => false,
                Streams::Offered => true,
            };
            let initial = Some((objects, ends));
            talk.watch = Some(Watch { version: self.version, until_ns, initial });
            return head.as_bytes().to_vec();
        }
        let version: u64 = query["resourceVersion"].parse().unwrap();
        if version < self.compacted {
            if self.happens(500) {
                return whole(410, "", "{}");
            }
            let error = "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\
                         \"status\":\"Failure\",\"reason\":\"Expired\",\"code\":410}}\n";
            return [head.as_bytes(), &chunk(error), b"0\r\n\r\n"].concat();
        }
        talk.watch = Some(Watch { version, until_ns, initial: None });
        head.as_bytes().to_vec()
    }

    /// Watch events for a connection.
    pub(super) fn stream(&mut self, now_ns: u64, talk: &mut Talk) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(watch) = &mut talk.watch else { return out };
        if talk.over || talk.silent {
            return out;
        }
        let mut lines = Vec::new();
        let from = watch.version;
        watch.version = self.version;
        let ends = watch.until_ns <= now_ns;
        if let Some((objects, ends)) = watch.initial.take() {
            for object in objects {
                let object = object.json(self.resource);
                lines.push(format!("{{\"type\":\"ADDED\",\"object\":{object}}}\n"));
            }
            if ends {
                lines.push(format!(
                    "{{\"type\":\"BOOKMARK\",\"object\":{{\"metadata\":{{\"resourceVersion\":\
                     \"{from}\",\"annotations\":{{\"k8s.io/initial-events-end\":\"true\"}}}}}}}}\n",
                ));
            }
        }
        for (version, what, object) in &self.history {
            if *version > from {
                let object = object.json(self.resource);
                lines.push(format!("{{\"type\":\"{what}\",\"object\":{object}}}\n"));
            }
        }
        if self.happens(100) {
            lines.push(format!(
                "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":\"Deployment\",\"metadata\":\
                 {{\"resourceVersion\":\"{}\"}},\"spec\":{{\"template\":{{\"spec\":\
                 {{\"containers\":null}}}}}}}}}}\n",
                self.version
            ));
        }
        if from < self.compacted {
            // The events that it has missed are compacted.
            lines = vec!["{\"type\":\"ERROR\",\"object\":{\"code\":410}}\n".to_owned()];
        }
        if self.happens(self.odds.error) {
            let code = [410, 500, 0][self.rng.below(3) as usize];
            lines.push(format!("{{\"type\":\"ERROR\",\"object\":{{\"code\":{code}}}}}\n"));
        }
        let mut bytes = Vec::new();
        let lines = lines.concat();
        let mut rest = lines.as_str();
        while !rest.is_empty() {
            let size = 1 + self.rng.below(rest.len() as u64) as usize;
            bytes.extend_from_slice(&chunk(&rest[..size]));
            rest = &rest[size..];
        }
        if ends || self.happens(self.odds.end) {
            bytes.extend_from_slice(b"0\r\n\r\n");
            talk.watch = None;
        }
        self.damage(talk, bytes, &mut out);
        out
    }
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

pub(super) fn whole(status: u16, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

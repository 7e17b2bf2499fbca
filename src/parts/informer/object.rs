//! The fields of an object that viewers see. The parser skips all others without allocating.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::limits;
use super::resource::Resource;
use crate::heap;
use crate::units::prefix;

/// Namespace and name. One string, since names cannot contain a slash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    text: Box<str>,
    namespace: u16,
}

impl Key {
    fn new(namespace: &str, name: &str) -> Option<Self> {
        let valid = |part: &str, most: usize| {
            !part.is_empty() && part.len() <= most && part.bytes().all(is_name_byte)
        };
        let fits = valid(namespace, limits::NAME_BYTES) && valid(name, limits::NAME_BYTES);
        let length = u16::try_from(namespace.len()).ok()?;
        fits.then(|| Self { text: format!("{namespace}/{name}").into(), namespace: length })
    }

    pub(super) fn namespace(&self) -> &str {
        &self.text[..usize::from(self.namespace)]
    }

    pub(super) fn name(&self) -> &str {
        &self.text[usize::from(self.namespace) + 1..]
    }

    /// `namespace/name`.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Accepts more than Kubernetes does, but nothing that JSON would escape.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'/' | b'"' | b'\\')
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Replicas {
    pub(super) desired: u32,
    pub(super) ready: u32,
    pub(super) updated: u32,
    pub(super) available: u32,
}

/// The last state of an object, as far as viewers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) uid: Box<str>,
    pub(super) version: Box<str>,
    pub(super) images: Images,
    pub(super) fields: Fields,
}

/// What depends on the kind of object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fields {
    Workload(Replicas),
    Pod(Box<Pod>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) phase: Box<str>,
    /// Why it is not running, as `kubectl get pods` shows it; empty if it is.
    pub(super) reason: Box<str>,
    pub(super) node: Box<str>,
    pub(super) ready: u32,
    pub(super) containers: u32,
    pub(super) restarts: u32,
}

/// The images of the containers, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Images {
    pub(super) shown: Box<[Box<str>]>,
    /// A digest of those beyond the limit, so that their changes are noticed.
    pub(super) rest: Option<u64>,
}

impl Object {
    pub(super) fn cost(&self) -> usize {
        let shown = &self.images.shown;
        let images: usize = shown.iter().map(|image| heap::cost(image.len())).sum();
        let fields = match &self.fields {
            Fields::Workload(_) => 0,
            Fields::Pod(pod) => {
                let Pod { phase, reason, node, .. } = &**pod;
                let texts = [phase, reason, node].map(|text| heap::cost(text.len()));
                heap::cost(size_of::<Pod>()) + texts.iter().sum::<usize>()
            }
        };
        heap::cost(size_of_val(&**shown))
            + heap::cost(self.uid.len())
            + heap::cost(self.version.len())
            + images
            + fields
    }

    /// The image that text messages show.
    pub(super) fn first_image(&self) -> &str {
        self.images.shown.first().map_or("", |image| image)
    }
}

/// An API object of any kind: each has only some of the fields.
#[derive(Deserialize)]
struct ApiObject<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    spec: Option<Spec<'a>>,
    #[serde(borrow, default)]
    status: Option<Status<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, rename = "resourceVersion")]
    version: Cow<'a, str>,
    #[serde(borrow, default, rename = "deletionTimestamp")]
    deleted: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
struct Spec<'a> {
    #[serde(default)]
    replicas: Option<u32>,
    #[serde(borrow, default)]
    template: Option<Template<'a>>,
    #[serde(borrow, default, rename = "nodeName")]
    node: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    containers: Option<Vec<Container<'a>>>,
}

#[derive(Deserialize)]
struct Template<'a> {
    #[serde(borrow, default)]
    spec: Option<PodSpec<'a>>,
}

#[derive(Deserialize)]
struct PodSpec<'a> {
    #[serde(borrow, default)]
    containers: Option<Vec<Container<'a>>>,
}

#[derive(Deserialize)]
struct Container<'a> {
    #[serde(borrow, default)]
    image: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status<'a> {
    ready_replicas: Option<u32>,
    updated_replicas: Option<u32>,
    available_replicas: Option<u32>,
    desired_number_scheduled: Option<u32>,
    number_ready: Option<u32>,
    updated_number_scheduled: Option<u32>,
    number_available: Option<u32>,
    #[serde(borrow)]
    phase: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    init_container_statuses: Option<Vec<ContainerStatus<'a>>>,
    #[serde(borrow)]
    container_statuses: Option<Vec<ContainerStatus<'a>>>,
    #[serde(borrow)]
    conditions: Option<Vec<Condition<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStatus<'a> {
    #[serde(default)]
    ready: bool,
    #[serde(default)]
    restart_count: u32,
    #[serde(borrow, default)]
    state: ContainerState<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerState<'a> {
    #[serde(borrow)]
    waiting: Option<Cause<'a>>,
    #[serde(borrow)]
    terminated: Option<Cause<'a>>,
}

#[derive(Deserialize)]
struct Cause<'a> {
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Condition<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
}

/// Parses an API object; `None` if it is invalid or its names are too long.
pub(super) fn read(resource: Resource, json: &[u8]) -> Option<(Key, Object)> {
    let ApiObject { metadata, spec, status } = serde_json::from_slice(json).ok()?;
    let key = Key::new(&metadata.namespace, &metadata.name)?;
    if metadata.uid.len() > limits::VERSION_BYTES || !is_version(&metadata.version) {
        return None;
    }
    let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
    let fields = match resource {
        Resource::Deployments | Resource::StatefulSets => Fields::Workload(Replicas {
            // The API's default is 1.
            desired: spec.replicas.unwrap_or(1),
            ready: status.ready_replicas.unwrap_or(0),
            updated: status.updated_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
        }),
        Resource::DaemonSets => Fields::Workload(Replicas {
            desired: status.desired_number_scheduled.unwrap_or(0),
            ready: status.number_ready.unwrap_or(0),
            updated: status.updated_number_scheduled.unwrap_or(0),
            available: status.number_available.unwrap_or(0),
        }),
        Resource::Pods => Fields::Pod(Box::new(pod(&metadata, &spec, &status))),
    };
    let containers = match resource {
        Resource::Pods => spec.containers,
        _ => spec.template.and_then(|template| template.spec).and_then(|spec| spec.containers),
    };
    let containers = containers.unwrap_or_default();
    let images = images(containers.iter().map(|one| one.image.as_deref().unwrap_or("")));
    let (uid, version) = (metadata.uid[..].into(), metadata.version[..].into());
    Some((key, Object { uid, version, images, fields }))
}

fn pod(metadata: &Metadata<'_>, spec: &Spec<'_>, status: &Status<'_>) -> Pod {
    let statuses = || status.container_statuses.iter().flatten();
    let ready = statuses().filter(|one| one.ready).count();
    let restarts = statuses().fold(0, |sum: u32, one| sum.saturating_add(one.restart_count));
    let reason = if metadata.deleted.is_some() { "Terminating" } else { reason(status) };
    let text = |text: &str| prefix(text, limits::NAME_BYTES).into();
    Pod {
        phase: text(status.phase.as_deref().unwrap_or("")),
        reason: text(reason),
        node: text(spec.node.as_deref().unwrap_or("")),
        ready: u32::try_from(ready).unwrap_or(u32::MAX),
        containers: u32::try_from(spec.containers.as_ref().map_or(0, Vec::len)).unwrap_or(u32::MAX),
        restarts,
    }
}

/// What keeps a pod from running: its own reason, or that of its first container with one, or why
/// it has no node.
fn reason<'s>(status: &'s Status<'_>) -> &'s str {
    let cause = |one: &'s ContainerStatus<'_>| {
        let ContainerState { waiting, terminated } = &one.state;
        let mut causes = [waiting, terminated].into_iter().flatten();
        causes.find_map(|cause| cause.reason.as_deref())
    };
    let inits = status.init_container_statuses.iter().flatten().filter_map(cause);
    // An init container that has completed holds up nothing.
    let mut inits = inits.filter(|reason| *reason != "Completed");
    let mut containers = status.container_statuses.iter().flatten().filter_map(cause);
    let mut conditions = status.conditions.iter().flatten();
    let unscheduled = || {
        let found = conditions.find(|one| one.r#type == "PodScheduled" && one.status == "False")?;
        found.reason.as_deref()
    };
    let own = status.reason.as_deref();
    own.or_else(|| inits.next()).or_else(|| containers.next()).or_else(unscheduled).unwrap_or("")
}

/// The first images, as many as fit into the limit, and of a longer one its beginning.
fn images<'a>(all: impl Iterator<Item = &'a str>) -> Images {
    let mut left = limits::IMAGES_BYTES;
    let mut shown: Vec<Box<str>> = Vec::new();
    let mut rest: Option<DefaultHasher> = None;
    for image in all {
        let size = image.len() + size_of::<Box<str>>();
        if rest.is_none() && size <= left {
            left -= size;
            shown.push(image.into());
            continue;
        }
        if shown.is_empty() {
            shown.push(prefix(image, left).into());
        }
        image.hash(rest.get_or_insert_default());
    }
    Images { shown: shown.into(), rest: rest.map(|digest| digest.finish()) }
}

/// Resource versions are opaque, but must be printable, since they are sent back.
pub(super) fn is_version(version: &str) -> bool {
    !version.is_empty()
        && version.len() <= limits::VERSION_BYTES
        && version.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &[u8]) -> Option<(Key, Object)> {
        super::read(Resource::Deployments, json)
    }

    fn replicas(object: &Object) -> Replicas {
        let Fields::Workload(replicas) = object.fields else { panic!("{object:?}") };
        replicas
    }

    #[test]
    fn fields_are_parsed() {
        let json = br#"{"metadata":{"name":"a","namespace":"b","uid":"u","resourceVersion":"7",
            "labels":{"x":"y"}},"spec":{"replicas":3,"template":{"spec":{"containers":[
            {"name":"x","image":"one:1"},{"image":"two"}]}}},
            "status":{"readyReplicas":2,"updatedReplicas":1}}"#;
        let (key, object) = read(json).unwrap();
        assert_eq!((key.namespace(), key.name(), key.text()), ("b", "a", "b/a"));
        assert_eq!(replicas(&object), Replicas { desired: 3, ready: 2, updated: 1, available: 0 });
        assert_eq!(object.first_image(), "one:1");
        assert_eq!(object.images.shown.len(), 2);
    }

    #[test]
    fn replicas_default_to_one() {
        let json = br#"{"metadata":{"name":"a","namespace":"b","resourceVersion":"7"},
            "spec":{"replicas":null}}"#;
        assert_eq!(replicas(&read(json).unwrap().1).desired, 1);
    }

    #[test]
    fn daemonsets_count_nodes() {
        let json = br#"{"metadata":{"name":"a","namespace":"b","resourceVersion":"7"},
            "spec":{"template":{"spec":{"containers":[{"image":"i"}]}}},
            "status":{"desiredNumberScheduled":4,"numberReady":3,"updatedNumberScheduled":2,
            "numberAvailable":1,"readyReplicas":9}}"#;
        let (_, object) = super::read(Resource::DaemonSets, json).unwrap();
        let wanted = Replicas { desired: 4, ready: 3, updated: 2, available: 1 };
        assert_eq!((replicas(&object), object.first_image()), (wanted, "i"));
    }

    #[test]
    fn pods_have_the_reason_that_kubectl_shows() {
        let read = |deleted: &str, status: &str| {
            let json = format!(
                r#"{{"metadata":{{"name":"a","namespace":"b","resourceVersion":"7"{deleted}}},
                "spec":{{"nodeName":"n1","containers":[{{"image":"x"}},{{"image":"y"}}]}},
                "status":{{"phase":"P",{status}}}}}"#
            );
            let (_, object) = super::read(Resource::Pods, json.as_bytes()).unwrap();
            let Fields::Pod(pod) = object.fields else { panic!() };
            assert_eq!((&*pod.node, &*pod.phase, object.images.shown.len()), ("n1", "P", 2));
            (pod.ready, pod.containers, pod.restarts, pod.reason.into_string())
        };
        let crash = r#""containerStatuses":[{"ready":true,"restartCount":2,"state":{"running":{}}},
            {"ready":false,"restartCount":5,"state":{"waiting":{"reason":"CrashLoopBackOff"}}}]"#;
        assert_eq!(read("", crash), (1, 2, 7, "CrashLoopBackOff".to_owned()));
        let gone = r#","deletionTimestamp":"2026-11-21T03:00:00Z""#;
        assert_eq!(read(gone, crash).3, "Terminating");
        for (status, reason) in [
            (r#""reason":"Evicted""#, "Evicted"),
            (
                r#""containerStatuses":[{"state":{"terminated":{"reason":"OOMKilled"}}}]"#,
                "OOMKilled",
            ),
            (
                r#""initContainerStatuses":[{"state":{"terminated":{"reason":"Completed"}}}],
                "containerStatuses":[{"ready":true,"state":{"running":{}}}]"#,
                "",
            ),
            (
                r#""initContainerStatuses":[{"state":{"waiting":{"reason":"ImagePullBackOff"}}}],
                "containerStatuses":[{"state":{"waiting":{"reason":"PodInitializing"}}}]"#,
                "ImagePullBackOff",
            ),
            (
                r#""conditions":[{"type":"Ready","status":"False","reason":"x"},
                {"type":"PodScheduled","status":"False","reason":"Unschedulable"}]"#,
                "Unschedulable",
            ),
            (r#""conditions":null,"containerStatuses":null"#, ""),
        ] {
            assert_eq!(read("", status).3, reason, "{status}");
        }
    }

    /// Before, a change of an image beyond the limit was none.
    #[test]
    fn images_beyond_the_limit_count() {
        let with = |last: &str| {
            let mut all = vec!["i".repeat(100); 12];
            all.push(last.to_owned());
            images(all.iter().map(String::as_str))
        };
        let (one, other) = (with("a:1"), with("a:2"));
        assert_eq!((one.shown.len(), &one.shown), (8, &other.shown));
        assert!(one.rest.is_some() && one != other);
        let few = images(["a", "b"].into_iter());
        assert_eq!((few.shown.len(), few.rest), (2, None));
        let long = "é".repeat(2000);
        let long = images([&*long].into_iter());
        assert!(long.shown[0].starts_with("éé") && long.rest.is_some());
    }

    #[test]
    fn invalid_objects() {
        let deep = format!(
            "{{\"metadata\":{{\"name\":\"a\",\"namespace\":\"b\",\"resourceVersion\":\"7\"}},\
             \"spec\":{{\"template\":{}{}}}}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        let valid = r#""metadata":{"name":"a","namespace":"b","resourceVersion":"7"}"#;
        let spec = |spec: &str| format!("{{{valid},\"spec\":{spec}}}");
        let long = format!(
            r#"{{"metadata":{{"name":"{}","namespace":"b","resourceVersion":"7"}}}}"#,
            "a".repeat(254)
        );
        for json in [
            "",
            "null",
            "[]",
            "<html>",
            r#"{"metadata":null}"#,
            r#"{"metadata":{"name":"a","namespace":"b"}}"#,
            r#"{"metadata":{"name":"a","namespace":"b","resourceVersion":""}}"#,
            r#"{"metadata":{"name":"a","namespace":"b","resourceVersion":7}}"#,
            r#"{"metadata":{"name":7,"namespace":"b","resourceVersion":"7"}}"#,
            r#"{"metadata":{"name":"a/b","namespace":"b","resourceVersion":"7"}}"#,
            r#"{"metadata":{"name":"a","namespace":"b","resourceVersion":"7 8"}}"#,
            &spec(r#"{"replicas":"x"}"#),
            &spec(r#"{"replicas":1e99}"#),
            &spec(r#"{"replicas":-1}"#),
            &deep,
            &long,
        ] {
            assert!(read(json.as_bytes()).is_none(), "{}", &json[..json.len().min(200)]);
        }
    }

    /// Times the number of objects, this is the memory of the store.
    #[test]
    fn an_object_stays_small() {
        let images: Vec<String> =
            (0..100).map(|i| format!("{{\"image\":\"{i:0>200}\"}}")).collect();
        let json = format!(
            r#"{{"metadata":{{"name":"{0}","namespace":"{0}","uid":"{0}","resourceVersion":"{1}"}},
            "spec":{{"template":{{"spec":{{"containers":[{2}]}}}}}}}}"#,
            "a".repeat(63),
            "1".repeat(64),
            images.join(",")
        );
        let (key, object) = read(json.as_bytes()).unwrap();
        let cost = object.cost() + key.text().len();
        assert!(cost < 1400, "{cost} bytes");
    }
}

//! The fields of a Deployment that viewers see. The parser skips all others without allocating.

use std::borrow::Cow;

use serde::Deserialize;

use crate::heap;

use super::limits;

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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Replicas {
    pub(super) desired: u32,
    pub(super) ready: u32,
    pub(super) updated: u32,
    pub(super) available: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deployment {
    pub(super) uid: Box<str>,
    pub(super) version: Box<str>,
    pub(super) replicas: Replicas,
    /// In the order of the containers.
    pub(super) images: Box<[Box<str>]>,
}

impl Deployment {
    pub(super) fn cost(&self) -> usize {
        let images: usize = self.images.iter().map(|image| heap::cost(image.len())).sum();
        heap::cost(size_of_val(&*self.images))
            + heap::cost(self.uid.len())
            + heap::cost(self.version.len())
            + images
    }

    /// The image that text messages show.
    pub(super) fn first_image(&self) -> &str {
        self.images.first().map_or("", |image| image)
    }
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    spec: Option<Spec<'a>>,
    #[serde(default)]
    status: Option<Status>,
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
}

#[derive(Deserialize)]
struct Spec<'a> {
    #[serde(default)]
    replicas: Option<u32>,
    #[serde(borrow, default)]
    template: Option<Template<'a>>,
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

#[derive(Clone, Copy, Default, Deserialize)]
struct Status {
    #[serde(default, rename = "readyReplicas")]
    ready: Option<u32>,
    #[serde(default, rename = "updatedReplicas")]
    updated: Option<u32>,
    #[serde(default, rename = "availableReplicas")]
    available: Option<u32>,
}

/// Parses an API object; `None` if it is invalid or its names are too long.
pub(super) fn read(json: &[u8]) -> Option<(Key, Deployment)> {
    let object: Object<'_> = serde_json::from_slice(json).ok()?;
    let key = Key::new(&object.metadata.namespace, &object.metadata.name)?;
    let (uid, version) = (&object.metadata.uid, &object.metadata.version);
    if uid.len() > limits::VERSION_BYTES || !is_version(version) {
        return None;
    }
    let (desired, containers) = match object.spec {
        Some(spec) => (spec.replicas, spec.template.and_then(|template| template.spec)),
        None => (None, None),
    };
    let status = object.status.unwrap_or_default();
    let replicas = Replicas {
        // The API's default is 1.
        desired: desired.unwrap_or(1),
        ready: status.ready.unwrap_or(0),
        updated: status.updated.unwrap_or(0),
        available: status.available.unwrap_or(0),
    };
    let containers = containers.and_then(|spec| spec.containers).unwrap_or_default();
    let images = images(containers.iter().map(|one| one.image.as_deref().unwrap_or("")));
    Some((key, Deployment { uid: uid[..].into(), version: version[..].into(), replicas, images }))
}

/// The first images, as many as fit into the limit.
fn images<'a>(all: impl Iterator<Item = &'a str>) -> Box<[Box<str>]> {
    let mut left = limits::IMAGES_BYTES;
    let fitting = all.map_while(|image| {
        left = left.checked_sub(image.len() + size_of::<Box<str>>())?;
        Some(image.into())
    });
    fitting.collect()
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

    #[test]
    fn fields_are_parsed() {
        let json = br#"{"metadata":{"name":"a","namespace":"b","uid":"u","resourceVersion":"7",
            "labels":{"x":"y"}},"spec":{"replicas":3,"template":{"spec":{"containers":[
            {"name":"x","image":"one:1"},{"image":"two"}]}}},
            "status":{"readyReplicas":2,"updatedReplicas":1}}"#;
        let (key, deployment) = read(json).unwrap();
        assert_eq!((key.namespace(), key.name(), key.text()), ("b", "a", "b/a"));
        assert_eq!(
            deployment.replicas,
            Replicas { desired: 3, ready: 2, updated: 1, available: 0 }
        );
        assert_eq!(deployment.first_image(), "one:1");
        assert_eq!(deployment.images.len(), 2);
    }

    #[test]
    fn replicas_default_to_one() {
        let json = br#"{"metadata":{"name":"a","namespace":"b","resourceVersion":"7"},
            "spec":{"replicas":null}}"#;
        assert_eq!(read(json).unwrap().1.replicas.desired, 1);
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

    /// docs/FIGURES.md states 2 KiB per Deployment.
    #[test]
    fn a_deployment_stays_small() {
        let images: Vec<String> =
            (0..100).map(|i| format!("{{\"image\":\"{i:0>200}\"}}")).collect();
        let json = format!(
            r#"{{"metadata":{{"name":"{0}","namespace":"{0}","uid":"{0}","resourceVersion":"{1}"}},
            "spec":{{"template":{{"spec":{{"containers":[{2}]}}}}}}}}"#,
            "a".repeat(63),
            "1".repeat(64),
            images.join(",")
        );
        let (key, deployment) = read(json.as_bytes()).unwrap();
        let cost = deployment.cost() + key.text().len();
        assert!(cost < 1400, "{cost} bytes");
    }
}

//! The flags of the informer, and the search for an API server.

use std::borrow::Cow;

use super::part::{self, BEHAVIOUR};
use super::{Kube, Resource, access::Access};
use crate::engine::File;
use crate::options::flags::{named, set, visible};
use crate::options::proxies::Proxies;
use crate::options::read::Environment;
use crate::options::serve::Draft;
use crate::options::table::{Fallback, Flag, Group, Takes};
use crate::options::{Reach, values};
use crate::parts::Plan;
use crate::server::part::Part;

pub(super) const GROUPS: &[Group<Draft>] = &[
    Group { title: "Objects of a cluster", flags: &[WHERE], brief: false },
    Group { title: "", flags: HOW, brief: true },
];

const WHERE: Flag<Draft> = Flag {
    name: "kube",
    takes: Takes::One("WHERE"),
    fallback: Fallback::Is("auto"),
    help: "API server: auto, off, in-cluster, kubeconfig or a URL",
    take: |d, v| set(&mut d.parts.informer.choice, choice(v)),
    show: |d| show(&d.parts.informer.choice),
};

const HOW: &[Flag<Draft>] = &[
    Flag {
        name: "kube-context",
        takes: Takes::One("NAME"),
        fallback: Fallback::From { text: "current-context", source: "the kubeconfig" },
        help: "kubeconfig context",
        take: |d, v| set(&mut d.parts.informer.context, Ok(v.to_owned())),
        show: |d| visible(&d.parts.informer.context),
    },
    Flag {
        name: "kube-namespace",
        takes: Takes::One("NAME"),
        fallback: Fallback::From { text: "all", source: "nothing" },
        help: "watch only this namespace",
        take: |d, v| set(&mut d.parts.informer.namespace, namespace(v)),
        show: |d| visible(&d.parts.informer.namespace),
    },
    Flag {
        name: "kube-resources",
        takes: Takes::One("LIST"),
        fallback: Fallback::Is("deployments"),
        help: "kinds: deployments, statefulsets, daemonsets, pods",
        take: |d, v| set(&mut d.parts.informer.resources, resources(v)),
        show: |d| Resource::names(&d.parts.informer.resources),
    },
    Flag {
        name: "kube-watch",
        takes: Takes::One("WHEN"),
        fallback: Fallback::Is("viewers"),
        help: "viewers: while any are connected, plus 60 s; or always",
        take: |d, v| set(&mut d.parts.informer.always, values::word(v, WATCHES)),
        show: |d| named(WATCHES, d.parts.informer.always),
    },
];

const WATCHES: &[(&str, bool)] = &[("viewers", false), ("always", true)];

/// Sent to viewers if no cluster is configured.
const NOTHING: &str = "no API server is configured: see --kube";
const OPEN: &str = "there is a kubeconfig, which is not used since other machines can connect to \
                    --listen: --kube kubeconfig uses it";

/// Where to look for the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// In-cluster; else a kubeconfig, if only this machine can connect to the server; else none.
    #[default]
    Auto,
    /// The mounts are removed.
    Off,
    /// The cluster of this pod.
    InCluster,
    /// A kubeconfig.
    Kubeconfig,
    /// This URL.
    Url(String),
}

/// Flags and environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where to look for the API server.
    pub choice: Choice,
    /// The kubeconfig context; empty: the current one.
    pub context: String,
    /// The namespace; empty: all.
    pub namespace: String,
    /// What to watch.
    pub resources: Vec<Resource>,
    /// Whether to watch even without viewers.
    pub always: bool,
    /// Host and port of the API server, from the environment of a pod.
    pub in_cluster: Option<(String, String)>,
    /// Kubeconfig paths, in order of precedence.
    pub files: Vec<String>,
    /// How API servers are reached.
    pub proxies: Proxies,
}

/// The service account of a pod.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

type Read<T> = Result<T, Cow<'static, str>>;

fn choice(text: &str) -> Read<Choice> {
    match text {
        "auto" => Ok(Choice::Auto),
        "off" => Ok(Choice::Off),
        "in-cluster" => Ok(Choice::InCluster),
        "kubeconfig" => Ok(Choice::Kubeconfig),
        url if url.contains("://") => {
            let access = Access::from_url(url);
            access?;
            Ok(Choice::Url(url.to_owned()))
        }
        _ => Err("must be auto, off, in-cluster, kubeconfig or a URL such as \
                  http://127.0.0.1:8001"
            .into()),
    }
}

fn show(choice: &Choice) -> String {
    match choice {
        Choice::Auto => "auto",
        Choice::Off => "off",
        Choice::InCluster => "in-cluster",
        Choice::Kubeconfig => "kubeconfig",
        Choice::Url(url) => url,
    }
    .to_owned()
}

fn resources(text: &str) -> Read<Vec<Resource>> {
    Resource::list(text).ok_or_else(|| {
        let all = Resource::names(&Resource::ALL);
        format!("must be some of {all}").into()
    })
}

/// An empty namespace means all.
fn namespace(text: &str) -> Read<String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if text.len() <= 63 && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("must be a namespace: at most 63 of a to z, 0 to 9 and -".into())
    }
}

/// Adds the environment, and resolves what needs no file.
pub(super) fn settle(draft: &mut Draft, env: &Environment) {
    let settings = &mut draft.parts.informer;
    settings.proxies = Proxies::new(env);
    let in_cluster =
        ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"].map(|name| env.filled(name));
    if let [Some(host), Some(port)] = in_cluster {
        settings.in_cluster = Some((host.to_owned(), port.to_owned()));
    }
    settings.files = match (env.filled("KUBECONFIG"), env.filled("HOME")) {
        (Some(list), _) => {
            list.split(':').filter(|path| !path.is_empty()).map(Into::into).collect()
        }
        (None, Some(home)) => vec![format!("{}/.kube/config", home.trim_end_matches('/'))],
        (None, None) => Vec::new(),
    };
    let kube = match &settings.choice {
        Choice::Off => {
            draft.serve.server.mounts.retain(|mount| mount.entry.name != BEHAVIOUR.name);
            return;
        }
        Choice::Url(url) => at(url, settings),
        Choice::Auto | Choice::InCluster | Choice::Kubeconfig => Kube::Nothing(NOTHING.to_owned()),
    };
    draft.serve.parts.push(Box::new(Setup { settings: settings.clone(), kube }));
}

/// The plan, completed by [`Plan::resolve`] when the files have been read.
#[derive(Debug)]
struct Setup {
    settings: Settings,
    kube: Kube,
}

impl Plan for Setup {
    fn build(self: Box<Self>, seed: u64) -> Box<dyn Part> {
        part::new(self.kube, seed)
    }

    fn paths(&self) -> Vec<String> {
        self.settings.paths()
    }

    fn resolve(&mut self, files: &[File], reach: Reach) -> Result<(), String> {
        if self.settings.paths().is_empty() {
            return Ok(());
        }
        let found = self.settings.resolve(files, reach).map_err(|why| format!("--kube: {why}"))?;
        if let Kube::Nothing(why) = &found
            && why != NOTHING
        {
            log::warn!(target: "kube", error = why.as_str(); "cannot watch the cluster");
        }
        self.kube = found;
        Ok(())
    }

    fn check(&mut self, files: &[File], reach: Reach) -> Result<(), String> {
        if self.settings.choice == Choice::InCluster {
            return Ok(());
        }
        self.resolve(files, reach)
    }
}

fn at(url: &str, settings: &Settings) -> Kube {
    match Access::from_url(url) {
        Ok(access) => settings.watch(access, Vec::new()).unwrap_or_else(Kube::Nothing),
        Err(bad) => Kube::Nothing(bad.to_owned()),
    }
}

impl Settings {
    /// Files to read before `resolve`.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        match self.choice {
            Choice::Off | Choice::Url(_) => Vec::new(),
            Choice::Auto | Choice::InCluster | Choice::Kubeconfig => {
                let mut paths = self.files.clone();
                paths.push(format!("{ACCOUNT}/token"));
                paths
            }
        }
    }
}

impl Settings {
    /// Finds the API server; `files` are those of [`Settings::paths`] that exist.
    ///
    /// # Errors
    /// Why an explicit choice cannot be used.
    fn resolve(&self, files: &[File], reach: Reach) -> Result<Kube, String> {
        let account = format!("{ACCOUNT}/token");
        let in_pod = self.in_cluster.is_some() && files.iter().any(|file| file.name == account);
        let others = files.iter().filter(|file| file.name != account);
        let configs: Vec<_> = others.map(|file| (file.name.clone(), file.bytes.clone())).collect();
        let watch = |access, from| self.watch(access, from);
        match (&self.choice, self.account()) {
            (Choice::InCluster, Some(access)) => watch(access, Vec::new()),
            (Choice::InCluster, None) => Err("in-cluster, but not in a pod: \
             KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set"
                .to_owned()),
            (Choice::Auto, Some(access)) if in_pod => watch(access, Vec::new()),
            (Choice::Auto, _) if configs.is_empty() => Ok(Kube::Nothing(NOTHING.to_owned())),
            // Do not share the developer's access with the network unless a flag requests it.
            (Choice::Auto, _) if reach == Reach::Open => Ok(Kube::Nothing(OPEN.to_owned())),
            (_, _) if configs.is_empty() => Err(format!(
                "no kubeconfig found: looked for {}",
                if self.files.is_empty() { "$KUBECONFIG".into() } else { self.files.join(", ") }
            )),
            (choice, _) => match super::kubeconfig::read(&configs, &self.context) {
                Ok(access) => watch(access, self.files.clone()),
                // Not an error: the kubeconfig was not requested explicitly.
                Err(why) if *choice == Choice::Auto => Ok(Kube::Nothing(why.to_string())),
                Err(why) => Err(why.to_string()),
            },
        }
    }

    /// The API server of this pod's cluster, with its service account.
    fn account(&self) -> Option<Access> {
        use super::access::{Pem, Tls, Token};
        use crate::proto::url::HostPort;
        let (host, port) = self.in_cluster.as_ref()?;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let place = HostPort::read(&format!("{host}:{port}"), None).ok()?;
        let authority = Pem::File(format!("{ACCOUNT}/ca.crt"));
        let tls = Some(Tls { authority, ..Tls::default() });
        let token = Token::File(format!("{ACCOUNT}/token"));
        Some(Access { place, prefix: String::new(), tls, token })
    }

    /// As [`Settings::plans`], unless its proxy is invalid.
    fn watch(&self, access: Access, files: Vec<String>) -> Result<Kube, String> {
        let route = self.proxies.route(&access.place, access.scheme());
        route.map_err(|why| why.to_string())?;
        Ok(Kube::Watch(self.plans(access, files)))
    }

    /// The plans for this API server; `files` are the kubeconfigs that it came from.
    fn plans(&self, access: Access, files: Vec<String>) -> Vec<super::Plan> {
        let kubeconfig = super::Kubeconfig { files, context: self.context.clone() };
        let origin = Some(kubeconfig).filter(|kubeconfig| !kubeconfig.files.is_empty());
        let (namespace, always) = (self.namespace.clone(), self.always);
        let resource = Resource::Deployments;
        let proxies = self.proxies.clone();
        let plan = super::Plan { access, resource, namespace, always, origin, proxies };
        let of = |resource: &Resource| super::Plan { resource: *resource, ..plan.clone() };
        self.resources.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::File;

    #[test]
    fn auto_uses_a_kubeconfig_only_on_loopback() {
        let config = "apiVersion: v1\ncurrent-context: c\nclusters:\n- name: k\n  cluster:\n    \
                      server: http://127.0.0.1:1\ncontexts:\n- name: c\n  context:\n    \
                      cluster: k\n";
        let file = |name: &str, text: &str| File {
            name: name.to_owned(),
            bytes: text.as_bytes().to_vec(),
            modified_ms: 0,
            prepared: None,
        };
        let files = || vec!["c".to_owned()];
        let settings = |choice| Settings { choice, files: files(), ..Settings::default() };
        let watches = |settings: &Settings, reach| {
            let files = vec![file("c", config), file(&format!("{ACCOUNT}/token"), "t")];
            matches!(settings.resolve(&files, reach), Ok(Kube::Watch(_)))
        };
        assert!(watches(&settings(Choice::Auto), Reach::Local));
        assert!(!watches(&settings(Choice::Auto), Reach::Open));
        assert!(watches(&settings(Choice::Kubeconfig), Reach::Open));
        // The service account belongs to the pod, so it is used on any listener.
        let in_cluster = Some(("10.96.0.1".to_owned(), "443".to_owned()));
        assert!(watches(&Settings { in_cluster, ..settings(Choice::Auto) }, Reach::Open));
    }
}

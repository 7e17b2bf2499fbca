//! The kinds of objects that can be watched, and their names. Their fields are in `object`, what
//! viewers see of them in `encode`.

/// A kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Replica counts and images.
    Deployments,
    /// The same.
    StatefulSets,
    /// The same; the desired count is the number of nodes.
    DaemonSets,
    /// Phase, ready containers, restarts, node and reason.
    Pods,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Deployments, Self::StatefulSets, Self::DaemonSets, Self::Pods];

    /// As in paths, roles, `--kube-resources` and `?kind=`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deployments => "deployments",
            Self::StatefulSets => "statefulsets",
            Self::DaemonSets => "daemonsets",
            Self::Pods => "pods",
        }
    }

    /// One of them, within a sentence.
    pub(super) fn singular(self) -> &'static str {
        &self.name()[..self.name().len() - 1]
    }

    /// One of them, as `kind` of its JSON.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Deployments => "Deployment",
            Self::StatefulSets => "StatefulSet",
            Self::DaemonSets => "DaemonSet",
            Self::Pods => "Pod",
        }
    }

    /// The path of its API.
    pub(super) fn api(self) -> &'static str {
        match self {
            Self::Deployments | Self::StatefulSets | Self::DaemonSets => "/apis/apps/v1",
            Self::Pods => "/api/v1",
        }
    }

    /// Reads names separated by commas; `None` if one is unknown.
    #[must_use]
    pub fn list(text: &str) -> Option<Vec<Self>> {
        let mut list = Vec::new();
        for name in text.split(',') {
            let resource = Self::ALL.into_iter().find(|one| one.name() == name.trim())?;
            if !list.contains(&resource) {
                list.push(resource);
            }
        }
        Some(list)
    }

    /// The opposite of [`Resource::list`].
    #[must_use]
    pub fn names(list: &[Self]) -> String {
        list.iter().map(|one| one.name()).collect::<Vec<_>>().join(",")
    }
}

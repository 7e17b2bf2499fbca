//! A path and what a WebSocket says there, as `--mount` gives it.

use super::{Entry, Params, Source};

/// The behaviours that there are, and where they are mounted unless `--mount` says otherwise.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// The behaviours.
    pub entries: Vec<&'static Entry>,
    /// The default mounts, as `--mount` would give them.
    pub mounts: Vec<&'static str>,
}

/// A path, what it says, and how.
#[derive(Clone, Debug)]
pub struct Mount {
    /// The path, without the base path.
    pub path: String,
    /// The text that it was made from.
    pub text: String,
    /// What it says.
    pub entry: &'static Entry,
    /// How it says it, unless the URL's query asks otherwise.
    pub params: Params,
    /// Whether it is there because `--mount` did not replace it.
    pub is_default: bool,
}

impl Mount {
    /// Reads `PATH=BEHAVIOUR[?PARAMS]`.
    ///
    /// # Errors
    /// A sentence that says what would be right.
    pub fn parse(text: &str, catalogue: &Catalogue) -> Result<Self, String> {
        let (path, rest) = text.split_once('=').ok_or_else(|| {
            "must be PATH=BEHAVIOUR[?PARAMS], such as /chat=echo?every=5s".to_owned()
        })?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
        if !path.starts_with('/') || path.starts_with("//") || !path.bytes().all(plain) {
            return Err(format!(
                "path {path:?} must begin with one / and have only letters, digits and -._~"
            ));
        }
        let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
        let entry = catalogue.entries.iter().find(|entry| entry.name == name).ok_or_else(|| {
            let names: Vec<&str> = catalogue.entries.iter().map(|entry| entry.name).collect();
            format!("behaviour {name:?} is unknown; there are: {}", names.join(", "))
        })?;
        if let Some((name, known)) = Params::unknown(query, entry.params) {
            return Err(format!("parameter {name:?} is unknown; there are: {}", known.join(", ")));
        }
        let mut params = Params::default();
        params.take(query, Source::Trusted, entry.params).map_err(|bad| bad.to_string())?;
        let (path, text) = (path.to_owned(), text.to_owned());
        Ok(Self { path, text, entry, params, is_default: false })
    }

    /// The mounts that are there unless `--mount` replaces them.
    #[must_use]
    pub fn defaults(catalogue: &Catalogue) -> Vec<Self> {
        let mounts = catalogue.mounts.iter().filter_map(|text| Self::parse(text, catalogue).ok());
        mounts.map(|mount| Self { is_default: true, ..mount }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviours;

    #[test]
    fn every_default_mount_is_one() {
        let own = behaviours::catalogue();
        assert_eq!(Mount::defaults(&own).len(), own.mounts.len());
    }

    #[test]
    fn bad_mounts_say_what_would_be_right() {
        for (text, hint) in [
            ("/x", "PATH=BEHAVIOUR"),
            ("x=echo", "must begin with one /"),
            ("//x=echo", "must begin with one /"),
            ("/x=shout", "there are: echo, reverse"),
            ("/x=echo?every=soon", "parameter every"),
            ("/x=echo?dellay=1s", "parameter \"dellay\" is unknown; there are: delay, "),
        ] {
            let said = Mount::parse(text, &behaviours::catalogue()).unwrap_err();
            assert!(said.contains(hint), "{text}: {said}");
        }
    }
}

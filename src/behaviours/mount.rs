//! A mount: a path and its behaviour, as given to `--mount`.

use super::{Entry, Params, Source};

/// The behaviours of this build and the default mounts.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// Known behaviours.
    pub entries: Vec<&'static Entry>,
    /// Default mounts, in the syntax of `--mount`.
    pub mounts: Vec<&'static str>,
}

/// A path, its behaviour and parameters.
#[derive(Clone, Debug)]
pub struct Mount {
    /// The path, without the base path.
    pub path: String,
    /// The argument of `--mount`.
    pub text: String,
    /// The behaviour.
    pub entry: &'static Entry,
    /// Defaults for parameters that the URL's query does not set.
    pub params: Params,
    /// Whether this is a default mount.
    pub is_default: bool,
}

impl Mount {
    /// Parses `PATH=BEHAVIOUR[?PARAMS]`.
    ///
    /// # Errors
    /// A message that names the expected syntax or values.
    pub fn parse(text: &str, catalogue: &Catalogue) -> Result<Self, String> {
        let (path, rest) = text.split_once('=').ok_or_else(|| {
            "must be PATH=BEHAVIOUR[?PARAMS], such as /chat=echo?every=5s".to_owned()
        })?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
        if !path.starts_with('/') || path.starts_with("//") || !path.bytes().all(plain) {
            return Err(format!(
                "path {path:?} must begin with a single / and contain only letters, digits, -._~/"
            ));
        }
        let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
        let entry = catalogue.entries.iter().find(|entry| entry.name == name).ok_or_else(|| {
            let names: Vec<&str> = catalogue.entries.iter().map(|entry| entry.name).collect();
            format!("unknown behaviour {name:?}, expected one of: {}", names.join(", "))
        })?;
        if let Some((name, known)) = Params::unknown(query, entry.params) {
            return Err(format!("unknown parameter {name:?}, expected: {}", known.join(", ")));
        }
        let mut params = Params::default();
        params.take(query, Source::Trusted, entry.params).map_err(|bad| bad.to_string())?;
        let (path, text) = (path.to_owned(), text.to_owned());
        Ok(Self { path, text, entry, params, is_default: false })
    }

    /// The default mounts.
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
    fn default_mounts_are_valid() {
        let own = behaviours::catalogue();
        assert_eq!(Mount::defaults(&own).len(), own.mounts.len());
    }

    #[test]
    fn errors_name_the_expected_values() {
        for (text, hint) in [
            ("/x", "PATH=BEHAVIOUR"),
            ("x=echo", "must begin with a single /"),
            ("//x=echo", "must begin with a single /"),
            ("/x=shout", "expected one of: echo, reverse"),
            ("/x=echo?every=soon", "parameter every"),
            ("/x=echo?dellay=1s", "unknown parameter \"dellay\", expected: delay, "),
        ] {
            let said = Mount::parse(text, &behaviours::catalogue()).unwrap_err();
            assert!(said.contains(hint), "{text}: {said}");
        }
    }
}

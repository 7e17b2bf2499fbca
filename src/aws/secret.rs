//! Credentials, with secrets that are never shown in logs.

use core::fmt;

/// Text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// AWS credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The key's id, which is not secret.
    pub access_key: String,
    /// The key that signs.
    pub secret_key: Secret,
    /// Sent with temporary credentials.
    pub session_token: Option<Secret>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let credentials = Credentials {
            access_key: "AKID".to_owned(),
            secret_key: Secret::new("hush"),
            session_token: Some(Secret::new("mum")),
        };
        let seen = format!("{credentials:?} {credentials:#?}");
        assert!(seen.contains("AKID") && !seen.contains("hush") && !seen.contains("mum"));
    }
}

//! Who we are to AWS. What must stay secret shows its name in logs, never its value.

use core::fmt;

/// Text that nobody may see.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Shows it to whoever computes with it.
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

/// Who signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Names the key; everybody may know it.
    pub access_key: String,
    /// The key.
    pub secret_key: Secret,
    /// Goes with a key that is good for a while only.
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

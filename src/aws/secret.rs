//! Credentials, with secrets that are never shown in logs.

pub use crate::secret::Secret;

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

//! The `traceparent` of a callback (W3C Trace Context): forwarded to the replica that owns the
//! connection, and logged by both.

/// Length of version 00.
pub(super) const TRACEPARENT_BYTES: usize = 55;

/// A valid field value: it is safe to log and to forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent([u8; TRACEPARENT_BYTES]);

impl Traceparent {
    /// Parses `00-TRACE-PARENT-FLAGS`. Unknown versions are dropped, as an invalid one must be.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let bytes = <[u8; TRACEPARENT_BYTES]>::try_from(value).ok()?;
        let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_id = |id: &[u8]| id.iter().all(is_hex) && id.iter().any(|byte| *byte != b'0');
        let dashes = [bytes[2], bytes[35], bytes[52]];
        let is_valid = bytes.starts_with(b"00")
            && dashes == *b"---"
            && is_id(&bytes[3..35])
            && is_id(&bytes[36..52])
            && bytes[53..].iter().all(is_hex);
        is_valid.then_some(Self(bytes))
    }

    /// The value, in ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_and_invalid_values() {
        let value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(Traceparent::parse(value.as_bytes()).unwrap().as_str(), value);
        for invalid in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-\r\n",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Traceparent::parse(invalid.as_bytes()), None, "{invalid}");
        }
    }
}

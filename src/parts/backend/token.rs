//! The bearer token for the gateway. Its file is re-read periodically and when the gateway rejects
//! the token; until the gateway has read a new one too, the previous one is tried again.

use crate::aws::secret::Secret;
use crate::engine::Now;
use crate::time;

/// Interval for re-reading it.
const REREAD_MS: u64 = 60_000;
/// Minimum interval for re-reading one that was rejected.
const REREAD_REJECTED_MS: u64 = 1_000;
/// How long gateways accept a token after it was replaced.
const PREVIOUS_MS: u64 = 300_000;
/// Maximum length of a token.
const BYTES_MAX: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct GatewayToken {
    path: String,
    /// The last valid token.
    current: Option<Secret>,
    /// The one before, and until when it is tried.
    previous: Option<(Secret, u64)>,
    /// How often it was replaced.
    version: u64,
    read_ns: Option<u64>,
    is_reading: bool,
}

/// What to do about a rejected token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Send this token.
    Send(Which),
    /// Read the file, then ask again.
    Read,
    /// The file is being read.
    Wait,
    /// There is no other token.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Current,
    Previous,
}

impl GatewayToken {
    pub(super) fn new(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            current: None,
            previous: None,
            version: 0,
            read_ns: None,
            is_reading: false,
        }
    }

    pub(super) fn get(&self, which: Which) -> Option<&Secret> {
        match which {
            Which::Current => self.current.as_ref(),
            Which::Previous => self.previous.as_ref().map(|(token, _)| token),
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Whether the file is to be read now; [`GatewayToken::read`] follows.
    pub(super) fn begin_reading(&mut self, now: Now) -> bool {
        self.begin_reading_after(now, REREAD_MS)
    }

    pub(super) fn was_read(&self) -> bool {
        self.read_ns.is_some()
    }

    fn begin_reading_after(&mut self, now: Now, age_ms: u64) -> bool {
        let is_due = self.read_ns.is_none_or(|read_ns| now.mono_ns >= read_ns + time::ms(age_ms));
        if is_due {
            self.read_ns = Some(now.mono_ns);
            self.is_reading = true;
        }
        is_due
    }

    /// The file was read. An empty or invalid token, as in a half-written file, does not replace
    /// the old one.
    pub(super) fn fetched(&mut self, now: Now, path: &str, bytes: &[u8]) {
        let token = std::str::from_utf8(bytes).map(str::trim).unwrap_or_default();
        let is_valid = (1..=BYTES_MAX).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        if path != self.path || !is_valid {
            return;
        }
        let known = self.current.as_ref().map_or("", Secret::reveal);
        if known == token {
            return;
        }
        // Half of a token would replace the previous one.
        let is_half = token.starts_with(known);
        self.version += 1;
        let replaced = self.current.replace(Secret::new(token));
        if let Some(replaced) = replaced.filter(|_| !is_half) {
            self.previous = Some((replaced, now.mono_ns + time::ms(PREVIOUS_MS)));
        }
    }

    /// Reading is over.
    pub(super) fn read(&mut self, now: Now) {
        self.is_reading = false;
        if self.previous.as_ref().is_some_and(|(_, until_ns)| *until_ns <= now.mono_ns) {
            self.previous = None;
        }
    }

    /// The gateway rejected the token of this version.
    pub(super) fn rejected(&mut self, now: Now, version: u64) -> Remedy {
        if version != self.version {
            Remedy::Send(Which::Current)
        } else if self.is_reading {
            Remedy::Wait
        } else if self.begin_reading_after(now, REREAD_REJECTED_MS) {
            Remedy::Read
        } else {
            self.fallback(version)
        }
    }

    /// What is left for a message whose token of this version was rejected.
    pub(super) fn fallback(&self, version: u64) -> Remedy {
        if version != self.version {
            Remedy::Send(Which::Current)
        } else if self.previous.is_some() {
            Remedy::Send(Which::Previous)
        } else {
            Remedy::None
        }
    }
}

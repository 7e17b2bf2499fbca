//! Negotiation of permessage-deflate (RFC 7692 §7.1): selects an offer and formats the response.
//! Its input is already split into names and values.

use core::fmt::Write;

use super::{Agreed, BUILT, Level, WINDOW_BITS_MAX, WINDOW_BITS_MIN};

const NAME: &str = "permessage-deflate";

/// The parameters of an accepted offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The limit for our window, in bits.
    pub server_bits: Option<u8>,
    /// The client's window, in bits.
    pub client_bits: Option<u8>,
}

impl Terms {
    /// The parameters that messages depend on, at this level.
    #[must_use]
    pub fn agree(self, level: Level) -> Agreed {
        Agreed::new(level, self.server_bits.unwrap_or(WINDOW_BITS_MAX))
    }

    /// The value of the response field. It always disables context takeover for both sides, which
    /// is allowed whatever the client offered (RFC 7692 §7.1.1).
    #[must_use]
    pub fn answer(self) -> String {
        let mut answer = format!("{NAME}; server_no_context_takeover; client_no_context_takeover");
        let bits = [("server", self.server_bits), ("client", self.client_bits)];
        for (side, bits) in bits.iter().filter_map(|(side, bits)| Some((side, (*bits)?))) {
            // Writing to a String cannot fail.
            let _ = write!(answer, "; {side}_max_window_bits={bits}");
        }
        answer
    }
}

/// Selects the first acceptable offer.
#[derive(Debug, Default)]
pub struct Offers {
    first: Option<Terms>,
    /// The current offer, unless it is declined.
    current: Option<Draft>,
}

#[derive(Debug, Default)]
struct Draft {
    terms: Terms,
    /// Parameters seen, as bits by index in [`PARAMETERS`].
    seen: u8,
}

/// Stores a value; returns false to decline it.
type Take = fn(&mut Terms, Option<&str>) -> bool;

const PARAMETERS: [(&str, Take); 4] = [
    ("server_no_context_takeover", |_, value| value.is_none()),
    ("client_no_context_takeover", |_, value| value.is_none()),
    ("server_max_window_bits", |terms, value| {
        terms.server_bits = value.and_then(window_bits);
        terms.server_bits.is_some()
    }),
    ("client_max_window_bits", |terms, value| {
        // Without a value the client leaves the choice to the server.
        terms.client_bits = value.and_then(window_bits);
        value.is_none() || terms.client_bits.is_some()
    }),
];

impl Offers {
    /// Starts the next offer; an empty name, from an empty list item, is none.
    pub fn offer(&mut self, name: &str) {
        self.end();
        self.current = (BUILT && name == NAME).then(Draft::default);
    }

    /// Adds a parameter to the current offer. An unknown, invalid or repeated one declines only
    /// this offer (RFC 7692 §5.1).
    pub fn parameter(&mut self, name: &str, value: Option<&str>) {
        self.current = self.current.take().and_then(|draft| draft.with(name, value));
    }

    fn end(&mut self) {
        if let Some(draft) = self.current.take() {
            self.first.get_or_insert(draft.terms);
        }
    }

    /// The selected offer, once all are read.
    #[must_use]
    pub fn first(mut self) -> Option<Terms> {
        self.end();
        self.first
    }
}

impl Draft {
    fn with(mut self, name: &str, value: Option<&str>) -> Option<Self> {
        let at = PARAMETERS.iter().position(|(known, _)| *known == name)?;
        let bit = 1 << at;
        let fine = self.seen & bit == 0 && PARAMETERS[at].1(&mut self.terms, value);
        self.seen |= bit;
        fine.then_some(self)
    }
}

/// RFC 7692 §7.1.2.1: a number without leading zeros, perhaps quoted (RFC 6455 §9.1).
fn window_bits(value: &str) -> Option<u8> {
    let inside = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let number: String = match inside {
        None => value.to_owned(),
        Some(inside) => {
            let mut escaped = false;
            let plain = inside.chars().filter(|c| {
                escaped = *c == '\\' && !escaped;
                !escaped
            });
            plain.collect()
        }
    };
    (WINDOW_BITS_MIN..=WINDOW_BITS_MAX).find(|bits| bits.to_string() == number)
}

#[cfg(all(test, feature = "deflate"))]
mod tests {
    use super::*;

    fn first(list: &str) -> Option<Terms> {
        let mut offers = Offers::default();
        for offer in list.split(',') {
            let mut parts = offer.split(';').map(str::trim);
            offers.offer(parts.next().unwrap_or_default());
            for part in parts {
                match part.split_once('=') {
                    Some((name, value)) => offers.parameter(name, Some(value)),
                    None => offers.parameter(part, None),
                }
            }
        }
        offers.first()
    }

    #[test]
    fn accepted_offers() {
        let terms = |server_bits, client_bits| Some(Terms { server_bits, client_bits });
        for (list, want) in [
            ("permessage-deflate", terms(None, None)),
            ("permessage-deflate; client_max_window_bits", terms(None, None)),
            ("permessage-deflate; client_max_window_bits=9", terms(None, Some(9))),
            ("permessage-deflate; server_max_window_bits=15", terms(Some(15), None)),
            ("permessage-deflate; server_max_window_bits=\"10\"", terms(Some(10), None)),
            ("permessage-deflate; server_max_window_bits=\"1\\0\"", terms(Some(10), None)),
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                 server_max_window_bits=9; client_max_window_bits=15",
                terms(Some(9), Some(15)),
            ),
            ("x-webkit-deflate-frame, permessage-deflate", terms(None, None)),
            ("permessage-deflate; mux, permessage-deflate", terms(None, None)),
            (
                "permessage-deflate; server_max_window_bits=8, \
                 permessage-deflate; server_max_window_bits=12, permessage-deflate",
                terms(Some(12), None),
            ),
        ] {
            assert_eq!(first(list), want, "{list}");
        }
    }

    #[test]
    fn declined_offers() {
        for parameters in [
            "unknown",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "server_no_context_takeover; server_no_context_takeover",
            "server_max_window_bits",
            "server_max_window_bits=8",
            "server_max_window_bits=16",
            "server_max_window_bits=09",
            "server_max_window_bits=+9",
            "server_max_window_bits=9.0",
            "server_max_window_bits=\"\"",
            "server_max_window_bits=\" 9\"",
            "server_max_window_bits=10; server_max_window_bits=10",
            "client_max_window_bits=8",
            "client_max_window_bits=16",
            "client_max_window_bits; client_max_window_bits=10",
            "SERVER_MAX_WINDOW_BITS=10",
        ] {
            assert_eq!(first(&format!("permessage-deflate; {parameters}")), None, "{parameters}");
        }
        assert_eq!(first("permessage-bzip2, deflate, Permessage-Deflate"), None);
    }
}

//! Rejects JSON with a duplicate key. `serde_json` takes the last of two and other parsers take the
//! first, so a document with both has two meanings.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Parses JSON; panics on invalid JSON and on duplicate keys.
pub(crate) fn read(text: &str) -> Value {
    check(text.as_bytes());
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

/// Panics on a duplicate key. Text that is not JSON passes.
pub(crate) fn check(bytes: &[u8]) {
    if let Err(why) = serde_json::from_slice::<Once>(bytes) {
        assert!(!why.is_data(), "{why}: {}", String::from_utf8_lossy(bytes));
    }
}

/// Any value; only its keys are checked.
struct Once;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OnceVisitor)
    }
}

struct OnceVisitor;

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Once;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Once>()?;
            if let Some(key) = seen.replace(key) {
                return Err(A::Error::custom(format!("duplicate key {key:?}")));
            }
        }
        Ok(Once)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Once, A::Error> {
        while list.next_element::<Once>()?.is_some() {}
        Ok(Once)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Once, E> {
        Ok(Once)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Once, E> {
        Ok(Once)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Once, E> {
        Ok(Once)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Once, E> {
        Ok(Once)
    }

    fn visit_str<E>(self, _: &str) -> Result<Once, E> {
        Ok(Once)
    }

    fn visit_unit<E>(self) -> Result<Once, E> {
        Ok(Once)
    }
}

#[test]
fn duplicate_keys_are_found() {
    check(b"{\"a\":{\"b\":[{\"c\":null},{\"c\":1.5}]},\"b\":true} ");
    check(b"{\"a\":1,\"a\" no JSON");
    for twice in ["{\"a\":1,\"a\":1}", "[0,{\"b\":{\"a\":-1,\"\\u0061\":\"x\"}}]"] {
        assert!(std::panic::catch_unwind(|| check(twice.as_bytes())).is_err(), "{twice}");
    }
}

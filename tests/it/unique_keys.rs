//! JSON in which no key stands twice in an object. `serde_json` alone takes the last of two, and
//! others take the first: whoever writes both says something else to everybody.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Reads JSON that must be sound.
pub(crate) fn read(text: &str) -> Value {
    check(text.as_bytes());
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

/// Fails on a key that stands twice; what is no JSON is somebody else's business.
pub(crate) fn check(bytes: &[u8]) {
    if let Err(why) = serde_json::from_slice::<Once>(bytes) {
        assert!(!why.is_data(), "{why}: {}", String::from_utf8_lossy(bytes));
    }
}

/// Any value, of which only the keys are looked at.
struct Once;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Looker)
    }
}

struct Looker;

impl<'de> Visitor<'de> for Looker {
    type Value = Once;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Once>()?;
            if let Some(key) = seen.replace(key) {
                return Err(A::Error::custom(format!("the key {key:?} stands twice")));
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
fn a_key_that_stands_twice_is_found() {
    check(b"{\"a\":{\"b\":[{\"c\":null},{\"c\":1.5}]},\"b\":true} ");
    check(b"{\"a\":1,\"a\" no JSON");
    for twice in ["{\"a\":1,\"a\":1}", "[0,{\"b\":{\"a\":-1,\"\\u0061\":\"x\"}}]"] {
        assert!(std::panic::catch_unwind(|| check(twice.as_bytes())).is_err(), "{twice}");
    }
}

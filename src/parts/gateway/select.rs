//! Route selection expressions such as `$request.body.action`.

use std::borrow::Cow;

use serde_json::{Value, json};

/// The path of a JSON member: names from the outermost object inwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(Vec<String>);

impl Expression {
    /// Parses `$request.body.a.b` or `${request.body.a.b}`.
    ///
    /// # Errors
    /// What the expression must look like.
    pub fn parse(text: &str) -> Result<Self, Cow<'static, str>> {
        const WANT: &str = "must be $request.body.NAME, such as $request.body.action";
        let inner = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        let path = inner.or_else(|| text.strip_prefix('$')).ok_or(WANT)?;
        let path = path.strip_prefix("request.body.").ok_or(WANT)?;
        let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
        let valid = |part: &String| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if parts.len() <= 8 && parts.iter().all(valid) { Ok(Self(parts)) } else { Err(WANT.into()) }
    }

    /// A message that selects `key`.
    #[must_use]
    pub fn example(&self, key: &str) -> String {
        let nest = |inner, part: &String| json!({ part: inner });
        self.0.iter().rev().fold(Value::from(key), nest).to_string()
    }

    /// The value in a message; `None` if it is not JSON or the value cannot be a key.
    pub(super) fn select(&self, body: &[u8]) -> Option<String> {
        let whole: Value = serde_json::from_slice(body).ok()?;
        let found = self.0.iter().try_fold(&whole, |value, part| value.get(part.as_str()))?;
        match found {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(yes) => Some(yes.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_select_a_key() {
        let action = Expression::parse("$request.body.action").unwrap();
        assert_eq!(Expression::parse("${request.body.action}").as_ref(), Ok(&action));
        let deep = Expression::parse("$request.body.a.b").unwrap();
        let nested = "[".repeat(10_000);
        for (expression, body, key) in [
            (&action, r#"{"action":"join"}"#, Some("join")),
            (&action, r#"{"action":7}"#, Some("7")),
            (&action, r#"{"action":true}"#, Some("true")),
            (&action, r#"{"action":"a","action":"b"}"#, Some("b")),
            (&action, r#"{"action":{"x":1}}"#, None),
            (&action, r#"{"action":null}"#, None),
            (&action, "join", None),
            (&action, "[]", None),
            (&action, "", None),
            (&action, &nested, None),
            (&deep, r#"{"a":{"b":"c"}}"#, Some("c")),
            (&deep, r#"{"a":"b"}"#, None),
        ] {
            assert_eq!(expression.select(body.as_bytes()).as_deref(), key, "{body:.40}");
        }
        for key in ["join", "a \"quoted\" ☃", "7"] {
            for expression in [&action, &deep] {
                let example = expression.example(key);
                assert_eq!(expression.select(example.as_bytes()).as_deref(), Some(key));
            }
        }
        assert_eq!(deep.example("c"), r#"{"a":{"b":"c"}}"#);
        for bad in [
            "",
            "action",
            "$request.body",
            "$request.body.",
            "$request.header.a",
            "$request.body.a b",
            "$request.body.a..b",
        ] {
            assert!(Expression::parse(bad).is_err(), "{bad}");
        }
    }
}

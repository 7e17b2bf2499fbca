//! Which hops the path has, for the report.

use super::Plan;
use super::facts::{Facts, shown};
use super::habits;

/// A station of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// `you`, `hop` or `server`.
    pub role: &'static str,
    /// Its name.
    pub name: String,
    /// Further facts.
    pub detail: String,
}

/// The stations of the path, as far as they are known.
pub(super) fn stations(facts: &Facts, plan: &Plan) -> Vec<Hop> {
    let mut path = vec![Hop { role: "you", name: "you".to_owned(), detail: String::new() }];
    let mut hops: Vec<Hop> = habits::seen(facts)
        .into_iter()
        .map(|habit| Hop {
            role: "hop",
            name: habit.name.to_owned(),
            detail: if habit.is_guess(facts) {
                "probably, or a Node.js proxy: both write field names in lower case".to_owned()
            } else {
                String::new()
            },
        })
        .collect();
    if let Some(tls) = &facts.tls {
        let mut detail = tls.version.to_owned();
        if tls.alpn.as_deref() == Some("h2") {
            detail.push_str(", offers h2");
        }
        match hops.first_mut() {
            Some(first) if first.detail.is_empty() => first.detail = detail,
            Some(first) => first.detail = format!("{detail}, {}", first.detail),
            None => hops.push(Hop { role: "hop", name: "TLS".to_owned(), detail }),
        }
    }
    if hops.is_empty() && facts.hello.as_ref().is_some_and(|hello| !hello.added(plan).is_empty()) {
        let name = "a hop that does not name itself".to_owned();
        hops.push(Hop { role: "hop", name, detail: String::new() });
    }
    path.append(&mut hops);
    if facts.opens {
        let name = match (&facts.hello, facts.response.field("x-served-by")) {
            (Some(hello), _) => format!("wspulse {}", shown(&hello.pod)),
            (None, Some(name)) => shown(name),
            (None, None) => "server".to_owned(),
        };
        path.push(Hop { role: "server", name, detail: String::new() });
    }
    path
}

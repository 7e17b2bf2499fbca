//! Reference parser for offers of permessage-deflate, from the grammar of RFC 6455 §9.1 and the
//! rules of RFC 7692 §7.1: the terms that should be accepted.

/// Window bits of the server and of the client.
type Terms = (Option<u8>, Option<u8>);

/// The first acceptable offer of these fields.
pub fn first<'b>(fields: impl Iterator<Item = &'b [u8]>) -> Option<Terms> {
    let fields = fields.filter_map(|field| std::str::from_utf8(field).ok());
    fields.filter_map(offers).flatten().find_map(|offer| agreed(&offer))
}

/// The items of a list; `None` if a quote is not closed.
fn offers(field: &str) -> Option<Vec<String>> {
    let mut items = vec![String::new()];
    let mut rest = field.chars();
    while let Some(c) = rest.next() {
        match c {
            ',' => items.push(String::new()),
            '"' => items.last_mut()?.push_str(&quoted(&mut rest)?),
            other => items.last_mut()?.push(other),
        }
    }
    Some(items)
}

/// The rest of a quoted string, with both quotes and its escapes.
fn quoted(rest: &mut std::str::Chars<'_>) -> Option<String> {
    let mut text = String::from('"');
    loop {
        let c = rest.next()?;
        text.push(c);
        match c {
            '"' => return Some(text),
            '\\' => text.push(rest.next()?),
            _ => {}
        }
    }
}

fn agreed(offer: &str) -> Option<Terms> {
    let mut parts = offer.split(';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let mut seen: Vec<&str> = Vec::new();
    let mut terms = (None, None);
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(plain(value.trim())?)),
            None => (part, None),
        };
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            (
                "server_no_context_takeover"
                | "client_no_context_takeover"
                | "client_max_window_bits",
                None,
            ) => {}
            ("server_max_window_bits", Some(value)) => terms.0 = Some(bits(&value)?),
            ("client_max_window_bits", Some(value)) => terms.1 = Some(bits(&value)?),
            _ => return None,
        }
    }
    Some(terms)
}

/// A value without its quotes; `None` for anything but one token or one quoted string.
fn plain(value: &str) -> Option<String> {
    let Some(inside) = value.strip_prefix('"') else { return Some(value.to_owned()) };
    let mut text = String::new();
    let mut rest = inside.chars();
    loop {
        match rest.next()? {
            '"' => return rest.as_str().is_empty().then_some(text),
            '\\' => text.push(rest.next()?),
            other => text.push(other),
        }
    }
}

fn bits(value: &str) -> Option<u8> {
    ["9", "10", "11", "12", "13", "14", "15"].contains(&value).then(|| value.parse().ok())?
}

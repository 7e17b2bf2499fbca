//! What `load` and `connect` can be told about the upgrade: the same flags for both.

use std::borrow::Cow;
use std::marker::PhantomData;

use super::Usage;
use super::goal::{self, Doubting, Doubts, Goal, Proof};
use super::table::{Fallback, Flag, Taken, Takes};
use super::values::{self, Origin};
use crate::engine::Target;
use crate::proto::http::{is_host, is_token, visible_ascii};
use crate::proto::upgrade::Ask;
use crate::proto::url::{HostPort, Scheme, Url};

/// Fields that the upgrade itself is made of.
const OURS: [&str; 4] = ["connection", "upgrade", "content-length", "transfer-encoding"];

/// What the flags are written into.
#[derive(Default)]
pub(super) struct Asked {
    fields: Vec<(String, String)>,
    host: Option<String>,
    origin: Option<String>,
    subprotocols: Vec<String>,
    connect_to: Option<HostPort>,
    doubts: Doubts,
}

/// A draft that has such a part.
pub(super) trait Asks {
    fn asked(&mut self) -> &mut Asked;
}

impl<D: Asks> Doubting for D {
    fn doubts(&mut self) -> &mut Doubts {
        &mut self.asked().doubts
    }
}

/// The flags, for a draft of type `D`.
pub(super) struct Flags<D>(PhantomData<D>);

impl<D: Asks + 'static> Flags<D> {
    pub(super) const ALL: &'static [Flag<D>] = &[
        row("header", Takes::Many("NAME:VALUE"), Fallback::Off, HEADER, |d, v| {
            header(d.asked(), v)
        }),
        row("origin", Takes::One("ORIGIN"), Fallback::Off, ORIGIN, |d, v| origin(d.asked(), v)),
        row("subprotocol", Takes::Many("NAME"), Fallback::Off, SUBPROTOCOL, |d, v| {
            subprotocol(d.asked(), v)
        }),
        row("connect-to", Takes::One("HOST:PORT"), Fallback::Off, CONNECT_TO, |d, v| {
            const FORM: &str = "must be HOST:PORT, such as 10.0.0.7:8080 or [::1]:8080";
            d.asked().connect_to = Some(HostPort::read(v, None).map_err(|_| FORM)?);
            Ok(())
        }),
        row("insecure", Takes::Nothing, Fallback::Off, goal::INSECURE, goal::insecure),
        row("ca-file", Takes::One("FILE"), Fallback::Off, goal::CA_FILE, goal::ca_file),
    ];
}

const HEADER: &str = "a further field of the request, also -H; repeatable";
const ORIGIN: &str = "the page that asks, such as https://app.example";
const SUBPROTOCOL: &str = "what to speak, the preferred one first; repeatable";
const CONNECT_TO: &str = "connect there, whatever the URL says: past a proxy, to one pod";

/// A row whose value `--print-config` does not show, since there is no such flag beside it.
pub(super) const fn row<D>(
    name: &'static str,
    takes: Takes,
    fallback: Fallback<D>,
    help: &'static str,
    take: fn(&mut D, &str) -> Taken,
) -> Flag<D> {
    Flag { name, takes, fallback, help, take, show: |_| String::new() }
}

fn header(asked: &mut Asked, text: &str) -> Taken {
    let (name, value) = text.split_once(':').ok_or("must be NAME: VALUE")?;
    let (name, value) = (name.trim(), value.trim());
    if !is_token(name.as_bytes()) || visible_ascii(value.as_bytes()).is_none() {
        return Err("must be NAME: VALUE, in visible ASCII".into());
    }
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "host" if is_host(value) && !value.is_empty() => asked.host = Some(value.to_owned()),
        "host" => return Err("must have a host, and perhaps a port".into()),
        "origin" => asked.origin = Some(value.to_owned()),
        "sec-websocket-protocol" => return Err("has a flag of its own: --subprotocol".into()),
        _ if OURS.contains(&lower.as_str()) || lower.starts_with("sec-websocket-") => {
            return Err("is part of the upgrade itself and cannot be changed".into());
        }
        _ => asked.fields.push((name.to_owned(), value.to_owned())),
    }
    Ok(())
}

/// The variable is the server's as well: there it may list several, or say `same` or `any`.
fn origin(asked: &mut Asked, text: &str) -> Taken {
    let first = text.split_whitespace().next().unwrap_or_default();
    asked.origin = match first {
        "null" => Some("null".to_owned()),
        _ => match values::origin(first)? {
            Origin::Same | Origin::Any => None,
            Origin::Listed(origin) => Some(origin),
        },
    };
    Ok(())
}

fn subprotocol(asked: &mut Asked, text: &str) -> Taken {
    if !is_token(text.as_bytes()) {
        return Err("must be a name without spaces or commas, such as chat.v2".into());
    }
    if asked.subprotocols.iter().any(|known| known == text) {
        return Err("is asked for twice: leave one out".into());
    }
    asked.subprotocols.push(text.to_owned());
    Ok(())
}

impl Asked {
    /// With a URL it is complete.
    pub(super) fn settle(self, url: &str) -> Result<(Url, Goal, Ask), Usage> {
        let url = Url::parse(url).map_err(|why| bad_url(url, why.into()))?;
        let mut fields = self.fields;
        if let Some(origin) = self.origin {
            fields.push(("Origin".to_owned(), origin));
        }
        let ask = Ask {
            host: self.host.unwrap_or_else(|| url.host.clone()),
            path: url.path.clone(),
            fields,
            subprotocols: self.subprotocols,
            extensions: String::new(),
        };
        let proof = match url.scheme {
            Scheme::Plain => None,
            Scheme::Secured => {
                Some(Proof { name: url.server.name.clone(), voucher: self.doubts.settle()? })
            }
        };
        let place = self.connect_to.as_ref().unwrap_or(&url.server);
        let targets = vec![Target::host(&place.name, place.port)];
        Ok((url, Goal { targets, proof }, ask))
    }
}

fn bad_url(url: &str, why: Cow<'static, str>) -> Usage {
    Usage::BadValue { name: "URL".to_owned(), value: url.to_owned(), why: why.into() }
}

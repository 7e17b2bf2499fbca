//! The flags that `load` and `connect` share: the upgrade request, its destination, and TLS trust.

use std::borrow::Cow;
use std::marker::PhantomData;

use super::Usage;
use super::destination::{self, Goal, HasTrustFlags, Tls, TrustFlags};
use super::proxies::Proxies;
use super::read::Environment;
use super::table::{Fallback, Flag, Taken, Takes, row};
use super::values::{self, Origin};
use crate::proto::http::{is_host, is_token, visible_ascii};
use crate::proto::upgrade::Ask;
use crate::proto::url::{HostPort, Scheme, Url};

/// Header fields of the upgrade that the user cannot set.
const RESERVED: [&str; 4] = ["connection", "upgrade", "content-length", "transfer-encoding"];

/// The values of the flags.
#[derive(Default)]
pub(super) struct UpgradeFlags {
    fields: Vec<(String, String)>,
    host: Option<String>,
    origin: Option<String>,
    subprotocols: Vec<String>,
    connect_to: Option<HostPort>,
    trust: TrustFlags,
}

pub(super) trait HasUpgradeFlags {
    fn upgrade(&mut self) -> &mut UpgradeFlags;
}

impl<D: HasUpgradeFlags> HasTrustFlags for D {
    fn trust(&mut self) -> &mut TrustFlags {
        &mut self.upgrade().trust
    }
}

/// The rows of these flags in the table of a command with the draft `D`.
pub(super) struct Flags<D>(PhantomData<D>);

impl<D: HasUpgradeFlags + 'static> Flags<D> {
    pub(super) const ALL: &'static [Flag<D>] = &[
        row("header", Takes::Lines("NAME:VALUE"), Fallback::Off, HEADER, |d, v| {
            header(d.upgrade(), v)
        }),
        row("origin", Takes::One("ORIGIN"), Fallback::Off, ORIGIN, |d, v| origin(d.upgrade(), v)),
        row("subprotocol", Takes::Many("NAME"), Fallback::Off, SUBPROTOCOL, |d, v| {
            subprotocol(d.upgrade(), v)
        }),
        row("connect-to", Takes::One("HOST:PORT"), Fallback::Off, CONNECT_TO, |d, v| {
            const FORM: &str = "must be HOST:PORT, such as 10.0.0.7:8080 or [::1]:8080";
            d.upgrade().connect_to = Some(HostPort::read(v, None).map_err(|_| FORM)?);
            Ok(())
        }),
        destination::insecure_flag(),
        destination::ca_file_flag(),
    ];
}

const HEADER: &str = "additional request header, also -H; repeatable";
const ORIGIN: &str = "value of the Origin header, such as https://app.example";
const SUBPROTOCOL: &str = "subprotocol to offer, most preferred first; repeatable";
const CONNECT_TO: &str = "connect to this address instead of the URL's: past a proxy, to one pod";

fn header(flags: &mut UpgradeFlags, text: &str) -> Taken {
    let (name, value) = text.split_once(':').ok_or("must be NAME: VALUE")?;
    let (name, value) = (name.trim(), value.trim());
    if !is_token(name.as_bytes()) || visible_ascii(value.as_bytes()).is_none() {
        return Err("must be NAME: VALUE, in visible ASCII".into());
    }
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "host" if is_host(value) && !value.is_empty() => flags.host = Some(value.to_owned()),
        "host" => return Err("must be a host, with or without a port".into()),
        "origin" => flags.origin = Some(value.to_owned()),
        "sec-websocket-protocol" => return Err("is set by --subprotocol".into()),
        _ if RESERVED.contains(&lower.as_str()) || lower.starts_with("sec-websocket-") => {
            return Err("is set by the upgrade and cannot be changed".into());
        }
        _ => flags.fields.push((name.to_owned(), value.to_owned())),
    }
    Ok(())
}

/// `WSPULSE_ORIGIN` is also the server's variable, where it may list several origins, or hold
/// `same` or `any`.
fn origin(flags: &mut UpgradeFlags, text: &str) -> Taken {
    let first = text.split_whitespace().next().unwrap_or_default();
    flags.origin = match first {
        "null" => Some("null".to_owned()),
        _ => match values::origin(first)? {
            Origin::Same | Origin::Any => None,
            Origin::Listed(origin) => Some(origin),
        },
    };
    Ok(())
}

fn subprotocol(flags: &mut UpgradeFlags, text: &str) -> Taken {
    if !is_token(text.as_bytes()) {
        return Err("must be a name without spaces or commas, such as chat.v2".into());
    }
    if flags.subprotocols.iter().any(|known| known == text) {
        return Err("is given twice: leave one out".into());
    }
    flags.subprotocols.push(text.to_owned());
    Ok(())
}

impl UpgradeFlags {
    pub(super) fn settle(self, url: &str, env: &Environment) -> Result<(Url, Goal, Ask), Usage> {
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
        let tls = match url.scheme {
            Scheme::Plain => None,
            Scheme::Secured => {
                Some(Tls { name: url.server.name.clone(), roots: self.trust.settle()? })
            }
        };
        let place = self.connect_to.as_ref().unwrap_or(&url.server);
        let targets = vec![Proxies::new(env).route(place, url.scheme)?];
        Ok((url, Goal { targets, tls }, ask))
    }
}

fn bad_url(url: &str, why: Cow<'static, str>) -> Usage {
    Usage::BadValue { name: "URL".to_owned(), value: url.to_owned(), why: why.into() }
}

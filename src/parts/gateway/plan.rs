//! The configuration of the gateway: backend, routes, request format, access to callbacks.

use core::net::{IpAddr, SocketAddr};
use std::borrow::Cow;

use super::peers::Setup;
use super::peers::keys::PeerKeys;
use super::peers::outgoing::OWNERS_MAX;
use super::peers::sealed_id::Owner;
use super::select::Expression;
use super::{LIFE_MS, TIMEOUT_MS, WAITING_MESSAGES, part};
use crate::calls::RULES;
use crate::calls::pool::Rules;
use crate::engine::File;
use crate::limits;
use crate::listen::Listen;
use crate::options::Reach;
use crate::parts::{self, DrawId};
use crate::proto::http::is_host;
use crate::proto::url::{Parts, Protocol};
use crate::server::part::Part;
use crate::target::Target;

/// Maximum length of a route key.
const KEY_BYTES: usize = 128;
const ROUTES_MAX: usize = 64;
/// Connections for as many addresses with all their requests in flight.
const FULL_ADDRESSES: usize = 4;
/// The server waits a little longer than the gateway.
const VERDICT_EXTRA_MS: u64 = 2_000;

type Read<T> = Result<T, Cow<'static, str>>;

/// The configuration of the gateway.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The default backend.
    pub backend: Backend,
    /// The stage name.
    pub stage: String,
    /// Selects the route of a message.
    pub expression: Option<Expression>,
    /// Route keys; `None`: the default backend.
    pub routes: Vec<(String, Option<Backend>)>,
    /// The format of requests.
    pub format: Format,
    /// The domain name sent to backends.
    pub domain: Domain,
    /// The address of this pod, from `POD_IP`.
    pub pod_ip: Option<IpAddr>,
    /// Configuration for several replicas, if there are several.
    pub peers: Option<PeerPlan>,
    /// How many messages of a client are sent at the same time.
    pub order: Order,
    /// Whether response bodies are sent to the client.
    pub reply: bool,
    /// Whether binary messages are accepted.
    pub binary: bool,
    /// Divides [`IDLE_MS`](super::IDLE_MS) and [`LIFE_MS`].
    pub time_scale: u64,
    /// Whether callbacks from any machine are accepted without authentication.
    pub open: bool,
    /// File with the authorities that backends' certificates are checked against; empty: Mozilla's.
    pub ca_file: String,
    /// File with the token for callbacks; empty: none.
    pub token_file: String,
    /// File with the access keys for signed callbacks; empty: none.
    pub credentials_file: String,
    /// How long messages wait for a backend that cannot be reached.
    pub hold_ms: u64,
    /// Maximum requests in flight to one address of a backend.
    pub in_flight: usize,
    /// Maximum connections to backends.
    pub connections_max: usize,
    /// Draws connection ids.
    pub draw: DrawId,
}

/// Configuration for several replicas.
#[derive(Clone, Debug)]
pub struct PeerPlan {
    /// The file with the peer keys.
    pub key_file: String,
    /// Address of the peer listener.
    pub listen: Listen,
    /// Address for other replicas; by default `POD_IP`, or the address that is bound.
    pub advertise: Option<SocketAddr>,
    /// The keys of the file.
    pub keys: Option<PeerKeys>,
    /// This process and its first nonce, once the listener is bound.
    pub identity: Option<(Owner, u64)>,
}

/// The route of a request; a key is an index into [`Plan::routes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Route {
    Connect,
    Default,
    Disconnect,
    Key(usize),
}

impl Route {
    pub(super) fn label(self, plan: &Plan) -> &str {
        match self {
            Self::Connect => "$connect",
            Self::Disconnect => "$disconnect",
            Self::Default => "$default",
            Self::Key(at) => plan.routes.get(at).map_or("$default", |(key, _)| key),
        }
    }
}

impl Plan {
    /// The setup of peers, if there are several replicas.
    pub(super) fn setup(&self) -> Option<Setup> {
        let peers = self.peers.as_ref()?;
        let (owner, start) = peers.identity?;
        Some(Setup {
            keys: peers.keys.clone()?,
            key_file: peers.key_file.clone(),
            owner,
            start,
            stage: self.stage.clone(),
            life_ms: LIFE_MS / self.time_scale.max(1),
            draw: self.draw,
        })
    }

    /// Maximum requests of one connection in flight.
    pub(super) fn in_flight_of_one(&self) -> usize {
        match self.order {
            Order::Kept => 1,
            Order::Any => WAITING_MESSAGES,
        }
    }

    /// Limits of the requests to backends.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            // Messages, and `$connect` and `$disconnect`.
            per_address: [self.in_flight, (self.in_flight / 4).max(1)],
            connections: self.connections(),
            hold_ms: self.hold_ms,
            ..RULES
        }
    }

    /// How long an upgrade waits for the backend's decision: for a connection, then for the answer.
    pub(super) fn verdict_ms(&self) -> u64 {
        self.hold_ms + 2 * TIMEOUT_MS + VERDICT_EXTRA_MS
    }

    fn connections(&self) -> usize {
        self.connections_max.min(FULL_ADDRESSES * self.in_flight)
    }

    /// Descriptors for anything but requests to backends.
    fn other_descriptors(&self) -> usize {
        let peers = self.peers.as_ref().map_or(0, |_| limits::PART_CONNECTIONS + OWNERS_MAX);
        limits::CALLBACK_CONNECTIONS + peers
    }

    /// The default backend, then those of the routes.
    pub(super) fn backends(&self) -> impl Iterator<Item = &Backend> {
        [&self.backend].into_iter().chain(self.routes.iter().filter_map(|(_, own)| own.as_ref()))
    }

    /// The backend of a route, as an index into [`Self::backends`].
    pub(super) fn backend(&self, route: &Route) -> usize {
        match route {
            Route::Key(at) if self.routes.get(*at).is_some_and(|(_, own)| own.is_some()) => {
                1 + self.routes[..*at].iter().filter(|(_, own)| own.is_some()).count()
            }
            Route::Connect | Route::Disconnect | Route::Default | Route::Key(_) => 0,
        }
    }
}

impl parts::Plan for Plan {
    fn build(self: Box<Self>, seed: u64) -> Box<dyn Part> {
        part::new(*self, seed)
    }

    /// Callers must be authenticated unless the operator opts out. The caller's address is no
    /// substitute: behind the sidecar of a service mesh all callers have 127.0.0.6.
    fn check_admin(&self, address: &str) -> Result<(), String> {
        if self.open || !self.token_file.is_empty() || !self.credentials_file.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{address} accepts gateway callbacks from other machines: use --gateway-token-file or \
             --gateway-credentials-file, or --gateway-open to accept them without authentication"
        ))
    }

    fn paths(&self) -> Vec<String> {
        let keys = self.peers.iter().map(|peers| &peers.key_file);
        let authorities = Some(&self.ca_file).filter(|file| !file.is_empty());
        keys.chain(authorities).cloned().collect()
    }

    fn resolve(&mut self, files: &[File], _: Reach) -> Result<(), String> {
        if !self.ca_file.is_empty() {
            let trust = parts::authorities(files, &self.ca_file, "--gateway-ca-file")?;
            let of_routes = self.routes.iter_mut().filter_map(|(_, own)| own.as_mut());
            for backend in [&mut self.backend].into_iter().chain(of_routes) {
                backend.target.set_trust(trust.clone());
            }
        }
        let Some(peers) = &mut self.peers else { return Ok(()) };
        let refused = |why: String| format!("--gateway-peer-key-file: {} {why}", peers.key_file);
        let file = files.iter().find(|file| file.name == peers.key_file);
        let file = file.ok_or_else(|| refused("cannot be read".to_owned()))?;
        let keys = PeerKeys::parse(&file.bytes).map_err(|why| refused(why.to_string()))?;
        peers.keys = Some(keys);
        Ok(())
    }

    fn listener(&self) -> Option<(&'static str, Listen)> {
        self.peers.as_ref().map(|peers| ("--gateway-peer-listen", peers.listen.clone()))
    }

    fn bound(&mut self, own: Option<&str>, admin: Option<&str>) -> Result<(), String> {
        let own = own.and_then(|own| own.parse::<SocketAddr>().ok());
        let own_ip = match (&mut self.peers, own) {
            (Some(peers), Some(own)) => {
                let address = advertised(peers.advertise, self.pod_ip, own)?;
                let random = (self.draw)(0).ok_or("the kernel has no randomness")?;
                let (boot, start) = Setup::identity(random);
                peers.identity = Some((Owner { address, boot }, start));
                Some(address.ip())
            }
            (Some(_), None) => {
                return Err("--gateway-peer-listen must be an IP address and a port".to_owned());
            }
            (None, _) => self.pod_ip,
        };
        if self.domain == Domain::OwnAdmin {
            self.domain = Domain::Named(own_admin(own_ip, admin)?.to_string());
        }
        Ok(())
    }

    fn draw_from(&mut self, draw: DrawId) {
        self.draw = draw;
    }

    fn descriptors(&self) -> usize {
        self.connections() + self.other_descriptors()
    }

    fn granted(&mut self, descriptors: usize) {
        let most = descriptors.saturating_sub(self.other_descriptors()).max(descriptors / 2);
        self.connections_max = self.connections().min(most).max(2);
        // With `Rules::per_address`, so that both shares of one address fit.
        let in_flight = self.in_flight.min(self.connections_max * 4 / 5).max(1);
        if in_flight < self.in_flight {
            log::warn!(
                target: "limits", asked = self.in_flight, in_flight, descriptors;
                "--gateway-in-flight: capped to what descriptors allow"
            );
            self.in_flight = in_flight;
        }
    }
}

/// The address for other replicas: as configured, the pod's, or the one that is bound.
fn advertised(
    given: Option<SocketAddr>,
    pod_ip: Option<IpAddr>,
    own: SocketAddr,
) -> Result<SocketAddr, String> {
    let own_ip = own.ip().to_canonical();
    let address = given.unwrap_or_else(|| SocketAddr::new(pod_ip.unwrap_or(own_ip), own.port()));
    if address.ip().is_unspecified() {
        return Err(format!(
            "other replicas cannot connect to --gateway-peer-listen {own}: use --gateway-advertise \
             IP:PORT, or the variable POD_IP"
        ));
    }
    Ok(address)
}

/// The address of the admin listener for backends.
fn own_admin(ip: Option<IpAddr>, admin: Option<&str>) -> Result<SocketAddr, String> {
    let refused = |why: &str| Err(format!("--gateway-domain self: {why}"));
    let Some(admin) = admin.and_then(|admin| admin.parse::<SocketAddr>().ok()) else {
        return refused("callbacks need an IP address and a port, see --admin-listen");
    };
    let bound = admin.ip().to_canonical();
    if bound.is_loopback() {
        return refused("backends cannot reach --admin-listen on a loopback address");
    }
    let ip = if bound.is_unspecified() { ip } else { Some(bound) };
    match ip.filter(|ip| !ip.is_unspecified()) {
        Some(ip) => Ok(SocketAddr::new(ip, admin.port())),
        None => refused("the address of this process is not known, set the variable POD_IP"),
    }
}

/// The domain name sent to backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Domain {
    /// `Host` of the upgrade request.
    #[default]
    Host,
    /// This name.
    Named(String),
    /// The address of the admin listener, once it is bound.
    OwnAdmin,
}

impl Domain {
    /// The configured name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Host | Self::OwnAdmin => None,
        }
    }
}

/// Whether the messages of a client are answered in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Each is sent after the answer to the one before.
    #[default]
    Kept,
    /// Several are sent at once, and their answers may overtake each other.
    Any,
}

/// The format of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A JSON object with connection id, message, domain and stage.
    #[default]
    Template,
    /// The message as is; the connection id in a header field.
    Proxy,
    /// The event that AWS sends to Lambda functions.
    Event,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The URL as given.
    pub url: String,
    /// Value of the `Host` field.
    pub host: String,
    /// The address to connect to.
    pub target: Target,
    /// Path and query.
    pub path: String,
}

impl Backend {
    /// Parses `http(s)://HOST[:PORT][/PATH][?QUERY]`.
    ///
    /// # Errors
    /// What the URL must look like.
    pub fn parse(url: &str) -> Read<Self> {
        const FORM: &str = "must be http://HOST[:PORT][/PATH] or https://…, such as \
                            http://127.0.0.1:8501";
        let parts = Parts::read(url, Protocol::Http).map_err(|flaw| flaw.clause(FORM))?;
        if parts.path.bytes().any(|b| b"\\\"<>^`{|}".contains(&b)) || parts.path.starts_with("//") {
            return Err("must have a percent-encoded path that does not begin with //".into());
        }
        let target = Target::public(&parts.server, parts.scheme);
        let (host, path) = (parts.host.to_owned(), parts.target());
        Ok(Self { url: url.to_owned(), host, target, path })
    }

    /// The path for `$connect` and `$disconnect`.
    pub(super) fn connect_path(&self) -> String {
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}/connect{mark}{query}", path.trim_end_matches('/'))
    }
}

/// Parses a stage name, as in AWS; it becomes part of paths.
///
/// # Errors
/// What the name must look like.
pub fn stage(text: &str) -> Read<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("must be a name of letters, digits, - and _, such as prod".into())
    }
}

/// Parses a host with an optional port.
///
/// # Errors
/// What the host must look like.
pub fn domain(text: &str) -> Read<String> {
    if !text.is_empty() && text.len() <= 253 && is_host(text) {
        Ok(text.to_owned())
    } else {
        Err("must be a host with an optional port, such as ws.example.com".into())
    }
}

/// Parses `KEY=URL,…`, or `KEY` alone for the default backend.
///
/// # Errors
/// The first invalid route.
pub fn routes(text: &str) -> Read<Vec<(String, Option<Backend>)>> {
    let mut routes: Vec<(String, Option<Backend>)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (key, url) = match part.split_once('=') {
            Some((key, url)) => (key, Some(url)),
            None => (part, None),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:".contains(&b);
        if !(1..=KEY_BYTES).contains(&key.len()) || !key.bytes().all(plain) {
            return Err(format!(
                "invalid route key {key:?}: must be letters, digits and -_./: such as join"
            )
            .into());
        }
        if routes.iter().any(|(known, _)| known == key) {
            return Err(format!("duplicate route key {key:?}").into());
        }
        let backend = url.map(Backend::parse).transpose();
        let backend = backend.map_err(|why| format!("the URL of {key:?} {why}"))?;
        routes.push((key.to_owned(), backend));
    }
    if (1..=ROUTES_MAX).contains(&routes.len()) {
        Ok(routes)
    } else {
        Err("must be 1 to 64 routes: KEY=URL,KEY=URL or KEY,KEY".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends() {
        for (url, host, path, connect) in [
            ("http://127.0.0.1:8501", "127.0.0.1:8501", "/", "/connect"),
            ("http://api/", "api", "/", "/connect"),
            ("http://api/a/b", "api", "/a/b", "/a/b/connect"),
            ("https://api:8443/a/?k=v", "api:8443", "/a/?k=v", "/a/connect?k=v"),
            ("http://[::1]:8501/x", "[::1]:8501", "/x", "/x/connect"),
        ] {
            if url.starts_with("https") && cfg!(not(feature = "tls")) {
                assert!(Backend::parse(url).unwrap_err().starts_with("needs TLS"));
                continue;
            }
            let backend = Backend::parse(url).unwrap();
            assert_eq!((&*backend.host, &*backend.path), (host, path));
            assert_eq!(backend.connect_path(), connect);
        }
        for bad in [
            "",
            "127.0.0.1:80",
            "ws://x",
            "http://",
            "http://u@h",
            "http://h:0",
            "http://h:x",
            "http://h/a b",
            "http://h/\r\n",
            "http://h//x",
            "http://h/#a",
            "http://:80",
        ] {
            assert!(Backend::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_for_other_replicas() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let (bound, own) = (at("[::]:8082"), at("10.0.0.7:8082"));
        assert_eq!(advertised(Some(at("10.0.0.9:1")), ip("10.0.0.8"), own), Ok(at("10.0.0.9:1")));
        assert_eq!(advertised(None, ip("10.0.0.8"), bound), Ok(at("10.0.0.8:8082")));
        assert_eq!(advertised(None, None, own), Ok(own));
        assert!(advertised(None, None, bound).unwrap_err().contains("--gateway-advertise"));
        assert!(advertised(None, ip("0.0.0.0"), own).is_err());
        // The admin side, for --gateway-domain self.
        let admin = |ip, text| own_admin(ip, Some(text)).map(|address| address.to_string());
        assert_eq!(admin(ip("10.0.0.8"), "[::]:8081").as_deref(), Ok("10.0.0.8:8081"));
        assert_eq!(admin(None, "10.0.0.7:8081").as_deref(), Ok("10.0.0.7:8081"));
        for refused in ["127.0.0.1:8081", "[::1]:8081", "[::]:8081", "unix:/run/x"] {
            assert!(admin(None, refused).unwrap_err().starts_with("--gateway-domain self: "));
        }
        assert!(own_admin(None, None).is_err());
    }

    #[test]
    fn route_lists() {
        let read = routes("join=http://a/j, leave").unwrap();
        assert_eq!((&*read[0].0, &*read[1].0), ("join", "leave"));
        assert!(read[0].1.is_some() && read[1].1.is_none());
        for bad in ["", "$default=http://a", "a b", "a,a", "a=b", "☃"] {
            assert!(routes(bad).is_err(), "{bad}");
        }
        assert!(stage("prod").is_ok() && stage("a/b").is_err() && stage("").is_err());
        assert!(domain("h:80").is_ok() && domain("h/x").is_err() && domain("").is_err());
    }
}

//! The options of `wspulse serve`: the draft that its flags fill, and the settings made of it.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;

use super::help::Page;
use super::read::{self, Environment, Given};
use super::values::{self, Origin};
use super::{Command, Surroundings, Usage, every_flag, flags, help, show};
use crate::behaviours::Mount;
use crate::limits::{DRAIN_CLOSE_WAIT_MS, REFUSED_CONNECTIONS};
pub use crate::listen::Listen;
use crate::parts;
use crate::proto::deflate::Compression;
use crate::server::config::{
    Config, DrainPlan, DrainReady, Identity, Limits, MaxAge, MemoryPlan, Origins, Surface,
};

pub(crate) const PAGE: Page = Page {
    about: "a small WebSocket server for testing proxies, rollouts and clients",
    synopsis: "usage: wspulse [serve] [OPTIONS]   run the server (serve may be left out)
       wspulse healthcheck [URL]   check whether a server is healthy
       wspulse load URL            load-test a WebSocket server
       wspulse connect URL         interactive WebSocket client
       wspulse probe URL           find out what a path does to WebSockets
       wspulse help [COMMAND]      print this help, or that of a command",
    foot: "TIME is 250ms, 10s or 2h; SIZE is 64KiB or 1MiB. Every flag has an environment \
           variable:\n--drain-window is WSPULSE_DRAIN_WINDOW. The flag wins. PORT sets \
           the port of the default --listen.\n",
};

/// The options of `wspulse serve`.
#[derive(Debug)]
pub struct Serve {
    /// Addresses of the main listeners; at least one.
    pub listen: Vec<Listen>,
    /// Address of the admin listener; `None` is `off`.
    pub admin: Option<Listen>,
    /// Share the main port with other processes (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Whether trusted proxies name clients by the PROXY protocol.
    pub proxy_protocol: bool,
    /// A directory to serve instead of the built-in page.
    pub assets: Option<PathBuf>,
    /// The main listener's certificate; `None` is plain HTTP.
    pub tls: Option<TlsFiles>,
    /// The source of the drain's default times.
    pub profile: Profile,
    /// Log level and format.
    pub log: LogStyle,
    /// The settings of the parts.
    pub parts: Vec<Box<dyn parts::Plan>>,
    /// The settings of the server itself.
    pub server: Config,
}

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its intermediates, in PEM.
    pub cert: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
}

/// The environment whose grace period the drain must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// 30 s; load balancers need seconds to remove a pod's endpoint.
    Kubernetes,
    /// Docker's 10 s; there is no load balancer to wait for.
    Plain,
}

/// Log level and format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStyle {
    /// A level, or a filter in the syntax of `RUST_LOG`.
    pub filter: String,
    /// The format of a line.
    pub format: LogFormat,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Readable text.
    Text,
    /// One JSON object per line.
    Json,
}

pub(crate) struct Draft {
    pub(crate) serve: Serve,
    pub(crate) mode: Mode,
    pub(crate) origins: Vec<Origin>,
    #[allow(dead_code, reason = "a build may have no parts")]
    pub(crate) parts: parts::Drafts,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    /// `None` is `auto`.
    pub(crate) profile: Option<Profile>,
    pub(crate) delay_ms: Option<u64>,
    pub(crate) window_ms: Option<u64>,
    pub(crate) timeout_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Serve,
    Check,
    Print,
}

/// `wspulse --help`, which also lists the commands of parts.
pub(crate) fn screen() -> String {
    let mut synopsis = PAGE.synopsis.to_owned();
    for parts::Command { verb, page, .. } in parts::commands() {
        let _ = write!(synopsis, "\n       wspulse {:18}  {}", verb.name, page.about);
    }
    help::screen_with(&PAGE, &synopsis, flags::SERVE)
}

/// Parses the arguments after `wspulse [serve]`.
pub(crate) fn parse(
    args: Vec<OsString>,
    env: &Environment,
    surroundings: &Surroundings,
) -> Result<Command, Usage> {
    let given = match read::args(&read::known(flags::SERVE), args, 0)? {
        Given::Help => return Ok(Command::Print(screen())),
        Given::Version => return Ok(Command::Print(help::version())),
        Given::Values { flags, .. } => flags,
    };
    env.check(&every_flag())?;
    let mut filled = read::fill(flags::SERVE, given, env, blank())?;
    settle(&mut filled.draft, env, surroundings)?;
    parts::settle(&mut filled, env)?;
    Ok(match filled.draft.mode {
        Mode::Serve => Command::Serve(Box::new(filled.draft.serve)),
        Mode::Check => Command::Check(Box::new(filled.draft.serve)),
        Mode::Print => Command::Print(show::screen(flags::SERVE, &filled)),
    })
}

/// The draft before any flag. The zeros are placeholders: `read::fill` sets every field that has a
/// default in `flags.rs`.
pub(crate) fn blank() -> Draft {
    let limits = Limits {
        max_message: 0,
        max_connections: 0,
        refused_connections: REFUSED_CONNECTIONS,
        head_timeout_ms: 0,
        keepalive_timeout_ms: 0,
        send_timeout_ms: 0,
        ping_interval_ms: 0,
        pong_timeout_ms: 0,
    };
    let drain = DrainPlan {
        delay_ms: 0,
        window_ms: 0,
        timeout_ms: 0,
        code: 0,
        reason: String::new(),
        ready: DrainReady::Fail,
        leaves_early: false,
    };
    let server = Config {
        mounts: Mount::defaults(&parts::catalogue()),
        origins: Origins::Same,
        admin_hosts: Vec::new(),
        trusted_proxies: Vec::new(),
        faults: false,
        base_path: String::new(),
        deflate: Compression::DEFAULT,
        log_payloads: false,
        identity: Identity::default(),
        max_age: MaxAge::default(),
        memory: MemoryPlan::default(),
        limits,
        drain,
        surface: Surface::Full,
    };
    let serve = Serve {
        listen: Vec::new(),
        admin: None,
        reuse_port: false,
        proxy_protocol: false,
        assets: None,
        tls: None,
        profile: Profile::Plain,
        log: LogStyle { filter: "info".to_owned(), format: LogFormat::Auto },
        parts: Vec::new(),
        server,
    };
    Draft {
        serve,
        mode: Mode::Serve,
        origins: Vec::new(),
        parts: parts::Drafts::default(),
        tls_cert: None,
        tls_key: None,
        profile: None,
        delay_ms: None,
        window_ms: None,
        timeout_ms: None,
    }
}

/// Settings that depend on several flags, or on the surroundings.
pub(crate) fn settle(
    draft: &mut Draft,
    env: &Environment,
    around: &Surroundings,
) -> Result<(), Usage> {
    if draft.serve.listen.is_empty() {
        draft.serve.listen.push(Listen::Default { port: 8080 });
    }
    draft.serve.tls = match (draft.tls_cert.take(), draft.tls_key.take()) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
        (None, None) => None,
        (Some(_), None) => return Err(Usage::HalfTls { given: "tls-cert", missing: "tls-key" }),
        (None, Some(_)) => return Err(Usage::HalfTls { given: "tls-key", missing: "tls-cert" }),
    };
    if draft.serve.proxy_protocol && draft.serve.server.trusted_proxies.is_empty() {
        return Err(Usage::Conflict("--proxy-protocol needs --trusted-proxies CIDR,…"));
    }
    draft.serve.server.origins = settled_origins(&draft.origins)?;
    draft.serve.server.identity = identity(env, around);
    check_faults(&draft.serve.server)?;
    settle_drain(draft, env)
}

/// Mounts that can harm the process also need `--faults`.
fn check_faults(server: &Config) -> Result<(), Usage> {
    let harmful = server.mounts.iter().find_map(|mount| {
        let parameter = mount.params.needs_faults()?;
        Some(Usage::NeedsFaults { mount: mount.text.clone(), parameter })
    });
    match harmful {
        Some(usage) if !server.faults => Err(usage),
        _ => Ok(()),
    }
}

fn settled_origins(given: &[Origin]) -> Result<Origins, Usage> {
    if given.contains(&Origin::Any) {
        let alone = given.iter().all(|origin| *origin == Origin::Any);
        return if alone { Ok(Origins::Any) } else { Err(Usage::OriginsBesideAny) };
    }
    let mut listed: Vec<String> = Vec::new();
    for origin in given {
        if let Origin::Listed(text) = origin
            && !listed.contains(text)
        {
            listed.push(text.clone());
        }
    }
    Ok(if listed.is_empty() { Origins::Same } else { Origins::Listed(listed) })
}

fn identity(env: &Environment, around: &Surroundings) -> Identity {
    let named = |variable| env.filled(variable).map(values::name).filter(|name| !name.is_empty());
    Identity {
        pod: named("POD_NAME").unwrap_or_else(|| values::name(&around.host_name)),
        namespace: named("POD_NAMESPACE"),
        node: named("NODE_NAME"),
        zone: named("ZONE"),
    }
}

fn settle_drain(draft: &mut Draft, env: &Environment) -> Result<(), Usage> {
    let found = match env.filled("KUBERNETES_SERVICE_HOST") {
        Some(_) => Profile::Kubernetes,
        None => Profile::Plain,
    };
    let profile = draft.profile.unwrap_or(found);
    let (delay_ms, window_ms, timeout_ms) = match profile {
        Profile::Kubernetes => (5_000, 15_000, 25_000),
        Profile::Plain => (0, 3_000, 8_000),
    };
    let drain = &mut draft.serve.server.drain;
    drain.delay_ms = draft.delay_ms.unwrap_or(delay_ms);
    drain.window_ms = draft.window_ms.unwrap_or(window_ms);
    drain.timeout_ms = draft.timeout_ms.unwrap_or(timeout_ms);
    drain.leaves_early = profile == Profile::Plain;
    draft.serve.profile = profile;
    if drain.delay_ms + drain.window_ms + DRAIN_CLOSE_WAIT_MS > drain.timeout_ms {
        return Err(Usage::DrainTooLong {
            delay_ms: drain.delay_ms,
            window_ms: drain.window_ms,
            close_wait_ms: DRAIN_CLOSE_WAIT_MS,
            timeout_ms: drain.timeout_ms,
        });
    }
    Ok(())
}

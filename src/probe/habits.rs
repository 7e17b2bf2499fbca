//! The table of habits: which hop cuts or changes what, how it can be recognized, and what to set.
//! Facts from each product's documentation or source; the address stands beside the row. Rows whose
//! sources contradict each other say so to the user.

use super::facts::{Facts, How, shown_ns};
use super::wire::Response;

/// Why a hop is only guessed.
const GUESS: &str = "or a Node.js proxy: both write field names in lower case";
/// A habit that explains how and when a socket was cut.
const FIT_MAX: u32 = 3;
/// The default of `--ping-interval`; sockets of a probe are not pinged.
const PING_S: u64 = 20;
/// Added for a hop that was recognized on the path.
const ON_PATH: u32 = 4;
/// Suspects that are named, at most.
const SUSPECTS_MAX: usize = 4;

/// What a finding is about, which decides which settings matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nothing needs to change.
    None,
    Network,
    Address,
    Upgrade,
    /// HTTP/1.0.
    Version,
    Headers,
    Subprotocol,
    Origin,
    /// A hop removes or changes it.
    OriginLost,
    Host,
    Path,
    /// `%2F` or `//` in it.
    Slashes,
    Client,
    Credentials,
    Upstream,
    /// The far end has no room.
    Busy,
    Buffering,
    Frames,
    Size,
    Close,
    HalfClose,
    Spread,
    Sockets,
    Head,
    Certificate,
    /// Intermediate certificates are missing.
    Chain,
    ExtendedConnect,
    Drain,
    Idle {
        how: How,
        after_ns: u64,
    },
    Age {
        how: How,
        after_ns: u64,
    },
}

/// How a hop can be recognized.
#[derive(Debug)]
enum Tell {
    /// A field of the response, whose value contains this.
    Response(&'static str, &'static str),
    /// A field of the request as the far end received it.
    Request(&'static str, &'static str),
    /// All names of fields are in lower case there, and nothing else tells why.
    Lowercase,
    /// The page of an error.
    Page(&'static str),
}

use Tell::{Lowercase, Page, Request, Response as Reply};

/// A kind of hop.
#[derive(Debug)]
pub(super) struct Habit {
    pub(super) name: &'static str,
    tells: &'static [Tell],
    /// Its default for idle sockets, in seconds, and how it ends them; 0: it has none.
    idle: (u32, &'static [Kind]),
    /// The same for the age of a socket.
    age: (u32, &'static [Kind]),
    /// What to set for idle sockets; empty: it never cuts them.
    idle_setting: &'static str,
    age_setting: &'static str,
    /// A doubt to pass on to the user.
    doubt: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fin,
    Rst,
    Hole,
    Close,
}

use Kind::{Close, Fin, Hole, Rst};

const PLAIN: Habit = Habit {
    name: "",
    tells: &[],
    idle: (0, &[]),
    age: (0, &[]),
    idle_setting: "",
    age_setting: "",
    doubt: "",
};

const HABITS: &[Habit] = &[
    // docs.nginx.com, websocket.html; ngx_http_upstream.c: traffic of either side restarts it.
    // ngx_cycle.c: the reload cuts after worker_shutdown_timeout.
    Habit {
        name: "nginx",
        tells: &[Reply("server", "nginx")],
        idle: (60, &[Fin]),
        age: (0, &[Fin]),
        idle_setting: "proxy_read_timeout 3600s; proxy_send_timeout 3600s;",
        age_setting: "worker_shutdown_timeout 24h;  (it cuts sockets after a reload)",
        ..PLAIN
    },
    // kubernetes/ingress-nginx: nginx-configuration/configmap.md, miscellaneous.md, nginx.tmpl.
    Habit {
        name: "ingress-nginx",
        tells: &[Request("x-scheme", ""), Request("x-forwarded-scheme", "")],
        idle: (60, &[Fin]),
        age: (240, &[Fin]),
        idle_setting: "nginx.ingress.kubernetes.io/proxy-read-timeout: \"3600\"
nginx.ingress.kubernetes.io/proxy-send-timeout: \"3600\"",
        age_setting: "ConfigMap: worker-shutdown-timeout: \"24h\"  (it cuts sockets after a \
            reload)",
        ..PLAIN
    },
    // haproxy doc/configuration.txt: timeout tunnel, timeout client. Field names are sent in lower
    // case (h1-case-adjust). Debian's configuration: 50 s.
    Habit {
        name: "HAProxy",
        tells: &[Lowercase, Page("<html><body><h1>50")],
        idle: (50, &[Fin, Rst]),
        idle_setting: "timeout tunnel 1h  (and: timeout client-fin 30s)",
        age_setting: "hard-stop-after 24h  (it cuts sockets after a reload)",
        age: (0, &[Fin, Rst]),
        ..PLAIN
    },
    // envoyproxy/envoy: http_connection_manager.proto, faq/configuration/timeouts.rst.
    Habit {
        name: "Envoy",
        tells: &[
            Reply("server", "envoy"),
            Reply("x-envoy-upstream-service-time", ""),
            Request("x-envoy-expected-rq-timeout-ms", ""),
            Request("x-envoy-external-address", ""),
            Request("x-envoy-internal", ""),
        ],
        idle: (300, &[Fin, Rst]),
        age: (0, &[Fin, Rst]),
        idle_setting: "stream_idle_timeout: 3600s  (or on the route: idle_timeout: 3600s)
Gateway API with Envoy Gateway: ClientTrafficPolicy timeout.http.streamIdleTimeout: 1h",
        age_setting: "max_stream_duration: 0s; max_connection_duration: 0s",
        ..PLAIN
    },
    // istio/api#1665, istio/istio#30067: routes have no idle timeout, ports without a protocol do.
    Habit {
        name: "Istio",
        tells: &[Reply("server", "istio-envoy"), Request("x-envoy-attempt-count", "")],
        idle: (3_600, &[Fin]),
        age: (0, &[Fin, Rst]),
        idle_setting: "name the Service's port http-…, or DestinationRule
trafficPolicy: {connectionPool: {tcp: {idleTimeout: 0s}}}",
        age_setting: "max_stream_duration: 0s, by an EnvoyFilter",
        ..PLAIN
    },
    // traefik CHANGELOG.md, server_entrypoint_tcp.go: 2.11.1 and 3.0.0-rc4 cut after 2 s. Its
    // timeouts do not cut WebSockets (measured with 3.7).
    Habit {
        name: "Traefik",
        tells: &[
            Request("x-forwarded-server", ""),
            Page("no available server"),
            Page("Bad Gateway"),
        ],
        age: (2, &[Fin]),
        age_setting: "update Traefik: 2.11.1 and 3.0.0-rc4 cut after 2 s
--entryPoints.NAME.transport.lifeCycle.graceTimeOut=60s",
        ..PLAIN
    },
    // caddyserver/website reverse_proxy.md, streaming.go.
    Habit {
        name: "Caddy",
        tells: &[Reply("server", "Caddy"), Reply("via", "Caddy"), Request("via", "Caddy")],
        idle: (0, &[Fin, Close]),
        age: (0, &[Fin, Close]),
        idle_setting: "reverse_proxy: remove read_timeout and write_timeout of transport http, \
                       and stream_timeout",
        age_setting: "stream_timeout 24h  (and: stream_close_delay 1h, for reloads)",
        ..PLAIN
    },
    // httpd.apache.org, mod_proxy_wstunnel.
    Habit {
        name: "Apache httpd",
        tells: &[Reply("server", "Apache")],
        idle: (60, &[Fin]),
        idle_setting: "ProxyPass \"/\" \"http://HOST:PORT/\" upgrade=websocket timeout=3600",
        ..PLAIN
    },
    // docs.aws.amazon.com, edit-load-balancer-attributes.html; duration measured by users.
    Habit {
        name: "AWS ALB",
        tells: &[Reply("server", "awselb"), Request("x-amzn-trace-id", "")],
        idle: (60, &[Fin, Rst]),
        idle_setting: "alb.ingress.kubernetes.io/load-balancer-attributes: \
                       idle_timeout.timeout_seconds=3600",
        ..PLAIN
    },
    // docs.aws.amazon.com, update-idle-timeout.html; API_ConnectionTrackingConfiguration.html.
    Habit {
        name: "AWS NLB",
        idle: (350, &[Hole, Rst]),
        idle_setting: "aws elbv2 modify-listener-attributes --listener-arn ARN --attributes \
                       Key=tcp.idle_timeout.seconds,Value=6000",
        doubt: "or NAT gateway, or a Nitro v6 instance: keep sockets busy",
        ..PLAIN
    },
    // docs.aws.amazon.com, API Gateway quotas.
    Habit {
        name: "AWS API Gateway",
        tells: &[Reply("x-amzn-requestid", ""), Reply("x-amz-apigw-id", "")],
        idle: (600, &[Close, Fin]),
        age: (7_200, &[Close, Fin]),
        idle_setting: "no setting: clients must send a message every 9 minutes",
        age_setting: "no setting: clients must reconnect",
        ..PLAIN
    },
    Habit {
        name: "AWS CloudFront",
        tells: &[Reply("via", "cloudfront"), Reply("x-amz-cf-id", "")],
        idle: (600, &[Fin, Rst]),
        idle_setting: "no setting: the server must send something every 9 minutes",
        ..PLAIN
    },
    // cloud.google.com, ingress-xlb: the timeout is the lifetime.
    Habit {
        name: "Google Cloud load balancer",
        tells: &[Reply("via", "1.1 google"), Request("via", "1.1 google")],
        age: (30, &[Fin, Rst]),
        age_setting: "BackendConfig spec: {timeoutSec: 86400}
Gateway API: GCPBackendPolicy spec: {default: {timeoutSec: 86400}}",
        ..PLAIN
    },
    // cloud.google.com/run, request-timeout.
    Habit {
        name: "Google Cloud Run",
        tells: &[Reply("server", "Google Frontend")],
        age: (300, &[Fin, Rst]),
        age_setting: "gcloud run services update NAME --timeout=3600",
        ..PLAIN
    },
    // MicrosoftDocs/azure-docs: load-balancer-tcp-reset.md; cloud-provider-azure: loadbalancer.md.
    Habit {
        name: "Azure Load Balancer",
        idle: (240, &[Hole, Rst]),
        idle_setting: "service.beta.kubernetes.io/azure-load-balancer-tcp-idle-timeout: \"30\"",
        ..PLAIN
    },
    // MicrosoftDocs/azure-docs: frontdoor/standard-premium/websocket.md.
    Habit {
        name: "Azure Front Door",
        tells: &[Reply("x-azure-ref", ""), Request("x-azure-fdid", "")],
        idle: (300, &[Fin, Rst]),
        age: (14_400, &[Fin, Rst]),
        idle_setting: "no setting: keep sockets busy",
        age_setting: "no setting: clients must reconnect",
        ..PLAIN
    },
    // MicrosoftDocs/azure-docs: application-gateway-websocket.md; AGIC issues 491 and 1277.
    Habit {
        name: "Azure Application Gateway",
        tells: &[Reply("server", "Microsoft-Azure-Application"), Request("x-appgw-trace-id", "")],
        idle: (20, &[Fin, Rst]),
        age: (20, &[Fin, Rst]),
        idle_setting: "appgw.ingress.kubernetes.io/request-timeout: \"3600\"",
        age_setting: "appgw.ingress.kubernetes.io/request-timeout: \"3600\"",
        doubt: "reports contradict each other",
    },
    // developers.cloudflare.com, websockets: no duration is documented, and measurements differ.
    Habit {
        name: "Cloudflare",
        tells: &[Reply("server", "cloudflare"), Reply("cf-ray", ""), Request("cf-ray", "")],
        idle: (100, &[Fin, Rst]),
        age: (0, &[Fin, Rst, Close]),
        idle_setting: "no setting: keep sockets busy, and let clients reconnect",
        age_setting: "no setting: clients must reconnect",
        doubt: "told by users, not documented",
    },
    // devcenter.heroku.com, heroku-labs-websockets.
    Habit {
        name: "Heroku",
        tells: &[Reply("via", "vegur"), Reply("via", "heroku"), Reply("server", "Heroku")],
        idle: (55, &[Fin, Rst]),
        idle_setting: "no setting: keep sockets busy",
        ..PLAIN
    },
    // fly.io: told by users.
    Habit {
        name: "Fly.io",
        tells: &[Reply("server", "Fly/"), Reply("fly-request-id", "")],
        idle: (60, &[Fin, Rst]),
        idle_setting: "fly.toml: [http_service.http_options] idle_timeout = 3600",
        doubt: "told by users",
        ..PLAIN
    },
    // Kong/kong#2036: 60 000 ms.
    Habit {
        name: "Kong",
        tells: &[Reply("via", "kong"), Reply("x-kong-proxy-latency", "")],
        idle: (60, &[Fin]),
        idle_setting: "konghq.com/read-timeout: \"3600000\"
konghq.com/write-timeout: \"3600000\"",
        ..PLAIN
    },
    // dotnet/yarp#1764.
    Habit {
        name: "YARP",
        idle: (100, &[Fin, Rst]),
        idle_setting: "cluster \"HttpRequest\": {\"ActivityTimeout\": \"01:00:00\"}",
        ..PLAIN
    },
    // torvalds/linux: nf_conntrack-sysctl.rst; kube-proxy sets a day.
    Habit {
        name: "conntrack or NAT",
        idle: (86_400, &[Hole, Rst]),
        idle_setting: "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=432000",
        ..PLAIN
    },
];

/// What to set in which product, for other causes than idle time and age.
const SETTINGS: &[(&str, Cause, &str)] = &[
    (
        "nginx",
        Cause::Upgrade,
        "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
         proxy_set_header Connection \"upgrade\";",
    ),
    (
        "nginx",
        Cause::Version,
        "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
         proxy_set_header Connection \"upgrade\";",
    ),
    ("nginx", Cause::Subprotocol, "remove: proxy_set_header Sec-WebSocket-Protocol …;"),
    ("HAProxy", Cause::Subprotocol, "remove: http-request del-header Sec-WebSocket-Protocol"),
    ("Envoy", Cause::Subprotocol, "remove sec-websocket-protocol from request_headers_to_remove"),
    ("Caddy", Cause::Subprotocol, "remove: header_up -Sec-WebSocket-Protocol"),
    ("nginx", Cause::OriginLost, "remove: proxy_set_header Origin …;"),
    ("HAProxy", Cause::OriginLost, "remove: http-request del-header Origin, or set-header Origin"),
    ("Envoy", Cause::OriginLost, "remove origin from request_headers_to_remove and _to_add"),
    ("Caddy", Cause::OriginLost, "remove: header_up -Origin, or header_up Origin"),
    ("nginx", Cause::Sockets, "limit_conn and worker_connections"),
    ("HAProxy", Cause::Sockets, "maxconn 20000"),
    (
        "Envoy",
        Cause::Sockets,
        "circuit_breakers: thresholds: [{max_connections: 20000, max_requests: 20000}]",
    ),
    ("Traefik", Cause::Sockets, "middleware inFlightReq: amount"),
    ("Apache httpd", Cause::Upgrade, "ProxyPass \"/\" \"http://HOST:PORT/\" upgrade=websocket"),
    ("Envoy", Cause::Upgrade, "upgrade_configs: [{upgrade_type: websocket}]"),
    ("Envoy", Cause::Origin, "upgrade_configs: [{upgrade_type: websocket}]  (403 without it)"),
    ("Azure Front Door", Cause::Upgrade, "turn caching off for this route"),
    ("AWS CloudFront", Cause::Upgrade, "origin request policy: AllViewer"),
    ("Cloudflare", Cause::Upgrade, "Network > WebSockets: on"),
    ("nginx", Cause::Headers, "remove: proxy_set_header Sec-WebSocket-Extensions \"\";"),
    ("HAProxy", Cause::Headers, "remove: http-request del-header Sec-WebSocket-Extensions"),
    ("Envoy", Cause::Headers, "remove sec-websocket-extensions from request_headers_to_remove"),
    ("Caddy", Cause::Headers, "remove: header_up -Sec-WebSocket-Extensions"),
    ("Traefik", Cause::Headers, "remove it from customRequestHeaders of the headers middleware"),
    ("AWS CloudFront", Cause::Headers, "origin request policy: AllViewer"),
    ("nginx", Cause::Host, "proxy_set_header Host $http_host;"),
    ("HAProxy", Cause::Host, "remove: http-request set-header Host"),
    ("Envoy", Cause::Host, "remove host_rewrite_literal and auto_host_rewrite from the route"),
    ("Apache httpd", Cause::Host, "ProxyPreserveHost On"),
    ("Traefik", Cause::Host, "service loadBalancer: passHostHeader: true"),
    ("Caddy", Cause::Host, "remove: header_up Host"),
    ("nginx", Cause::Path, "proxy_pass http://NAME:PORT;  (without a path behind the port)"),
    ("Caddy", Cause::Path, "handle /path/* instead of handle_path"),
    ("nginx", Cause::Slashes, "proxy_pass http://NAME:PORT;  (without a path behind the port)"),
    (
        "Envoy",
        Cause::Slashes,
        "merge_slashes: false; path_with_escaped_slashes_action: KEEP_UNCHANGED",
    ),
    ("Traefik", Cause::Slashes, "--entryPoints.NAME.http.sanitizePath=false"),
    ("nginx", Cause::Head, "large_client_header_buffers 4 32k;"),
    ("ingress-nginx", Cause::Head, "ConfigMap: large-client-header-buffers: \"4 32k\""),
    ("HAProxy", Cause::Head, "tune.bufsize 65536"),
    ("Envoy", Cause::Head, "max_request_headers_kb: 96"),
    ("Traefik", Cause::Head, "--entryPoints.NAME.http.maxHeaderBytes=1048576"),
    ("Apache httpd", Cause::Head, "LimitRequestFieldSize 32768"),
    ("nginx", Cause::Client, "proxy_set_header X-Forwarded-For $remote_addr;"),
    ("HAProxy", Cause::Client, "option forwardfor"),
    ("Envoy", Cause::Client, "use_remote_address: true"),
    ("Envoy", Cause::Close, "delayed_close_timeout: 0s"),
    ("Istio", Cause::Close, "delayed_close_timeout: 0s, by an EnvoyFilter"),
    (
        "HAProxy",
        Cause::ExtendedConnect,
        "global: h2-workaround-bogus-websocket-clients; server: ws h1",
    ),
    (
        "Envoy",
        Cause::ExtendedConnect,
        "upgrade_configs: [{upgrade_type: websocket}], or allow_connect: false",
    ),
    (
        "Traefik",
        Cause::ExtendedConnect,
        "update to 2.11.18, 3.2.5 or 3.3.1; or GODEBUG=http2xconnect=0",
    ),
    ("nginx", Cause::Spread, "upstream: least_conn;  (without ip_hash)"),
    ("HAProxy", Cause::Spread, "balance leastconn  (without cookie … insert)"),
    ("Envoy", Cause::Spread, "lb_policy: LEAST_REQUEST"),
    (
        "Envoy",
        Cause::Buffering,
        "exclude the buffer filter: upgrade_configs: [{upgrade_type: websocket, filters: \
            […router]}]",
    ),
    ("nginx", Cause::Buffering, "tcp_nodelay on;"),
];

/// What to do where no hop is known that does it.
fn general(cause: Cause) -> &'static str {
    match cause {
        Cause::None | Cause::Idle { .. } | Cause::Age { .. } => "",
        Cause::Network => "check the address, the port, the firewall, and that the server listens",
        Cause::Address => {
            "remove this address from DNS, or repair the server or load balancer behind it"
        }
        Cause::Upgrade => {
            "each hop must speak HTTP/1.1 and pass on Upgrade: websocket and Connection: Upgrade"
        }
        Cause::Version => "let each hop speak HTTP/1.1 to the next",
        Cause::Headers => "let each hop pass on Sec-WebSocket-Extensions",
        Cause::Subprotocol => "let each hop pass on Sec-WebSocket-Protocol",
        Cause::Origin => {
            "set at the server which origins may open WebSockets (wspulse: --origin \
                https://app.example)"
        }
        Cause::OriginLost => "let each hop pass on Origin as it is",
        Cause::Host => "let each hop pass on Host as it is",
        Cause::Path => {
            "compare the path with the routes of each hop and with the mounts of the server"
        }
        Cause::Slashes => "let each hop pass on the path as it is",
        Cause::Client => "let the hop add X-Forwarded-For",
        Cause::Credentials => "pass what the server requires: -H 'Authorization: Bearer …'",
        Cause::Upstream => {
            "point the hop at the server's port with plain HTTP/1.1; its health check is /readyz"
        }
        Cause::Busy => "try again when the server has room; what it says is no fault of the path",
        Cause::Buffering => {
            "look for a hop that inspects or optimizes traffic, and exclude WebSockets from it"
        }
        Cause::Frames => {
            "look for a hop that ends WebSockets instead of tunnelling them: an API gateway, a \
             firewall that inspects messages"
        }
        Cause::Size => {
            "raise the message limit of the server (wspulse: --max-message) or of the hop that \
                inspects messages"
        }
        Cause::Close => {
            "look for a hop that ends WebSockets, or closes both sides when one side closes"
        }
        Cause::HalfClose => {
            "browsers wait for the server's Close; other clients must do so before they end the \
                connection"
        }
        Cause::Spread => {
            "balance by the fewest connections, and without stickiness unless it is needed"
        }
        Cause::Sockets => {
            "raise the limit of connections of the hop or the server (wspulse: --max-connections)"
        }
        Cause::Head => "raise the limit of the request head at the hop",
        Cause::Certificate => {
            "renew the certificate for this name, with its intermediates: openssl s_client \
                -connect HOST:PORT -servername HOST"
        }
        Cause::Chain => {
            "send the full chain: nginx ssl_certificate fullchain.pem; HAProxy crt, a file with \
                certificate, chain and key; Traefik certFile: fullchain.pem; wspulse --tls-cert"
        }
        Cause::ExtendedConnect => {
            "disable extended CONNECT (RFC 8441) at the hop that ends TLS, or update it"
        }
        Cause::Drain => {
            "give the pod time to drain: terminationGracePeriodSeconds above --drain-timeout, \
                and a preStop hook"
        }
    }
}

/// The hops that can be recognized, in the order of the table.
pub(super) fn seen(facts: &Facts) -> Vec<&'static Habit> {
    let mut seen: Vec<&Habit> = HABITS.iter().filter(|habit| habit.is_seen(facts)).collect();
    // They are built from others, and show the same.
    let has = |seen: &[&Habit], name: &str| seen.iter().any(|habit| habit.name == name);
    for (product, part) in [("Istio", "Envoy"), ("ingress-nginx", "nginx"), ("Kong", "nginx")] {
        if has(&seen, product) {
            seen.retain(|habit| habit.name != part);
        }
    }
    seen
}

impl Habit {
    /// Whether it is only inferred from how fields are written, which others may do as well.
    pub(super) fn is_guess(&self, facts: &Facts) -> bool {
        let certain = |tell: &Tell| !matches!(tell, Lowercase) && tell.is_seen(facts);
        !self.tells.iter().any(certain)
    }

    /// The name, with what the user should know before changing its settings.
    fn doubtful_name(&self, facts: &Facts) -> String {
        let is_guess = self.is_seen(facts) && self.is_guess(facts);
        match if is_guess { GUESS } else { self.doubt } {
            "" => self.name.to_owned(),
            doubt => format!("{} ({doubt})", self.name),
        }
    }

    fn is_seen(&self, facts: &Facts) -> bool {
        self.tells.iter().any(|tell| tell.is_seen(facts))
    }

    /// How well it explains a cut; 0: not at all.
    fn fits((seconds, kinds): (u32, &[Kind]), setting: &str, how: How, after_ns: u64) -> u32 {
        let kind = match how {
            How::Fin => Fin,
            How::Rst => Rst,
            How::Hole => Hole,
            How::Close(_) => Close,
        };
        let default_ns = u64::from(seconds) * 1_000_000_000;
        let same_time = seconds > 0 && after_ns.abs_diff(default_ns) <= default_ns / 10;
        let same_kind = kinds.contains(&kind);
        if setting.is_empty() || !same_kind {
            return 0;
        }
        if same_time { FIT_MAX } else { 1 }
    }
}

impl Tell {
    fn is_seen(&self, facts: &Facts) -> bool {
        let holds = |value: Option<&str>, part: &str| {
            value.is_some_and(|value| {
                value.to_ascii_lowercase().contains(&part.to_ascii_lowercase())
            })
        };
        let hello = facts.hello.as_ref();
        match self {
            Reply(name, part) => holds(facts.response.field(name), part),
            Request(name, part) => holds(hello.and_then(|hello| hello.field(name)), part),
            Lowercase => hello.is_some_and(|hello| {
                let lower = |name: &str| !name.bytes().any(|b| b.is_ascii_uppercase());
                !hello.fields.is_empty()
                    && hello.fields.iter().all(|(name, _)| lower(name))
                    && !hello.fields.iter().any(|(name, _)| name.starts_with("x-envoy"))
                    && !holds(facts.response.field("server"), "envoy")
            }),
            Page(part) => is_page(&facts.response, part),
        }
    }
}

/// Whether an error page begins like this, from a server that does not name itself.
fn is_page(response: &Response, part: &str) -> bool {
    response.field("server").is_none() && response.body.starts_with(part.as_bytes())
}

/// A hop on the path that would cut silence only later than that, by default, and when.
pub(super) fn cuts_later(facts: &Facts, patience_ms: u64) -> Option<(&'static str, u32)> {
    let later = |habit: &&Habit| u64::from(habit.idle.0) * 1_000 >= patience_ms;
    seen(facts).into_iter().find(later).map(|habit| (habit.name, habit.idle.0))
}

/// The likely hops, the most likely first, and what to change.
pub(super) fn explain(facts: &Facts, cause: Cause) -> (Vec<&'static str>, String) {
    let on_path = seen(facts);
    let (Cause::Idle { how, after_ns } | Cause::Age { how, after_ns }) = cause else {
        return explain_setting(&on_path, facts, cause);
    };
    let idle = matches!(cause, Cause::Idle { .. });
    let scored: Vec<(u32, &Habit)> = HABITS
        .iter()
        .filter_map(|habit| {
            let (times, setting) = if idle {
                (habit.idle, habit.idle_setting)
            } else {
                (habit.age, habit.age_setting)
            };
            let fit = Habit::fits(times, setting, how, after_ns);
            let is_seen = on_path.iter().any(|seen| std::ptr::eq(*seen, habit));
            match (is_seen, fit) {
                // Its setting is the user's, so the time proves nothing.
                (true, 1..) => Some((fit + ON_PATH, habit)),
                // Only its default fits.
                (false, FIT_MAX) => Some((fit, habit)),
                _ => None,
            }
        })
        .collect();
    let mut suspects: Vec<&Habit> = Vec::new();
    for score in (1..=FIT_MAX + ON_PATH).rev() {
        suspects.extend(scored.iter().filter(|(has, _)| *has == score).map(|(_, habit)| *habit));
    }
    let explained = scored.iter().filter(|(score, _)| *score == FIT_MAX + ON_PATH).count();
    // Others need not be suspected.
    suspects.truncate(if explained > 0 { explained } else { SUSPECTS_MAX });
    let mut lines: Vec<String> = suspects
        .iter()
        .map(|habit| {
            let setting = if idle { habit.idle_setting } else { habit.age_setting };
            format!("{}: {setting}", habit.doubtful_name(facts))
        })
        .collect();
    if suspects.is_empty() {
        let after = shown_ns(after_ns);
        let about = if how == How::Hole { "at most" } else { "about" };
        lines.push(format!("no known hop does this: look for a timeout of {about} {after}"));
    } else {
        lines.push("or the same in a hop behind it, which does not name itself".to_owned());
    }
    if idle {
        let half_s = (after_ns / 2_000_000_000).max(1);
        lines.push(if facts.hello.is_some() && half_s >= PING_S {
            format!("or keep sockets busy: wspulse does by default, with a ping every {PING_S} s")
        } else if facts.hello.is_some() {
            format!("or keep sockets busy: wspulse --ping-interval {half_s}s")
        } else {
            format!("or keep sockets busy, such as with a ping every {} s", half_s.min(30))
        });
    } else {
        lines.push("or close earlier and let clients reconnect (wspulse: --max-age)".to_owned());
    }
    (suspects.iter().map(|habit| habit.name).collect(), lines.join("\n"))
}

fn explain_setting(
    on_path: &[&'static Habit],
    facts: &Facts,
    cause: Cause,
) -> (Vec<&'static str>, String) {
    let (mut lines, mut hops) = (Vec::new(), Vec::new());
    for (name, of, setting) in SETTINGS {
        let habit = on_path.iter().find(|habit| habit.name == *name);
        if let Some(habit) = habit.filter(|_| *of == cause) {
            lines.push(format!("{}: {setting}", habit.doubtful_name(facts)));
            hops.push(*name);
        }
    }
    if hops.is_empty() {
        lines.push(general(cause).to_owned());
        hops = match cause {
            Cause::None | Cause::Network | Cause::Address => Vec::new(),
            _ => on_path.iter().map(|habit| habit.name).collect(),
        };
    }
    (hops, lines.join("\n"))
}

"""The table of `probe.py`: what is planted, and the findings that must come of it, and no others."""

import contextlib
from dataclasses import dataclass, field

from harness import SCRATCH
from probe_hops import DOWN, HOWS, UP
from probe_parts import (CERTIFICATES, Target, authority, behind, direct, hop, in_front, listener,
                         running, served_with, started, with_hosts)
from recipes import SNIPPETS, Proxy, free_port, product

NGINX, HAPROXY, TRAEFIK, ENVOY, CADDY = SNIPPETS


@dataclass
class Case:
    name: str
    plant: object  # a function that returns an async context manager of a Target
    wanted: dict = field(default_factory=dict)  # id -> (a product among the hops, a pattern in the remedy)
    also: tuple = ()  # ids that the same fault also causes on some machines or proxies
    quick: bool = False  # nothing to wait for
    budget_s: float = 30
    code: object = None  # exit code, if the findings do not decide it
    path: object = None  # the names of the hops in the report


def only(name, product=None, remedy=None):
    return {name: (product, remedy)}


# ---- recipes ------------------------------------------------------------------------------------

def tls_edits(snippet):
    """What a recipe needs to serve the certificate `good`, with HTTP/2."""
    cert, key = CERTIFICATES["good"]
    return {
        NGINX: [("listen 8000;", f"listen 8000 ssl http2; ssl_certificate {cert}; ssl_certificate_key {key};")],
        HAPROXY: [("bind :8000", f"bind :8000 ssl crt {SCRATCH}/good.both alpn h2,http/1.1")],
        CADDY: [(":8000 {", f"https://:8000 {{\n\ttls {cert} {key}")],
        TRAEFIK: [("http:\n  routers", f"tls:\n  certificates: [{{certFile: {cert}, keyFile: {key}}}]\n"
                   "http:\n  routers")],
        ENVOY: [("      filter_chains:\n        - filters:", ENVOY_TLS % (cert, key))],
    }[snippet]


ENVOY_TLS = """      filter_chains:
        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                alpn_protocols: [h2, http/1.1]
                tls_certificates:
                  - certificate_chain: {filename: %s}
                    private_key: {filename: %s}
          filters:"""
ALLOW_CONNECT = "http2_protocol_options: {allow_connect: true}\n                upgrade_configs:"


def recipes():
    for snippet in SNIPPETS:
        named = [product(snippet)]
        yield Case(f"{product(snippet)}: the recipe", behind(snippet), path=named)
        flags = ["--entryPoints.web.http.tls=true"] if snippet == TRAEFIK else []
        yield Case(f"{product(snippet)}: the recipe with TLS and HTTP/2",
                   behind(snippet, *tls_edits(snippet), flags=flags, tls=True), quick=True, path=named)
    yield Case("no proxy", direct(), path=[])
    yield Case("no proxy, TLS", served_with("good"), quick=True, path=["tls"])
    yield Case("a hop without a fault", hop("Fault()"), path=[])
    yield Case("a hop that passes on frames", hop("passes_frames()"), path=[])


# ---- idle and age at the proxies ------------------------------------------------------------------

# A name, the recipe, its edits, and what must be found.
TIMEOUTS = [
    ("proxy_read_timeout", NGINX, [("proxy_read_timeout 1h", "proxy_read_timeout 5s")],
     only("idle-silent-fin", "nginx", "proxy_read_timeout")),
    ("timeout tunnel", HAPROXY, [("timeout tunnel 1h", "timeout tunnel 5s")],
     only("idle-silent-fin", "haproxy", "timeout tunnel")),
    ("timeout client and server", HAPROXY,
     [("timeout tunnel 1h", ""), ("timeout client 60s", "timeout client 5s"),
      ("timeout server 60s", "timeout server 5s")], only("idle-silent-fin", "haproxy", "timeout tunnel")),
    # Envoy closes a second after its timeout.
    ("stream_idle_timeout", ENVOY, [("stream_idle_timeout: 3600s", "stream_idle_timeout: 5s")],
     only("idle-silent-fin", "envoy", "stream_idle_timeout")),
    ("idle_timeout of the route", ENVOY, [("timeout: 0s}", "timeout: 0s, idle_timeout: 5s}")],
     only("idle-silent-fin", "envoy", "idle_timeout")),
    # RST if bytes of the client were on their way, which is so on a busy socket.
    ("max_stream_duration", ENVOY,
     [("timeout: 0s}", "timeout: 0s, max_stream_duration: {max_stream_duration: 5s}}")],
     only("age-rst|age-fin", "envoy", "max_stream_duration")),
    ("stream_timeout", CADDY, [("stream_close_delay 5m", "stream_close_delay 5m\n\t\tstream_timeout 5s")],
     only("age-fin|age-rst", "caddy", "stream_timeout")),
    # Caddy counts only what the server sends.
    ("read_timeout", CADDY,
     [("stream_close_delay 5m", "stream_close_delay 5m\n\t\ttransport http {\n\t\t\tread_timeout 5s\n\t\t}")],
     only("idle-silent-fin", "caddy", "read_timeout") | only("idle-client-fin", "caddy", "read_timeout")),
]
# No timeout of Traefik 3 ends a WebSocket.
TRAEFIK_TIMEOUTS = [f"--entryPoints.web.transport.respondingTimeouts.{name}=5s"
                    for name in ("readTimeout", "writeTimeout", "idleTimeout")]


def timeouts():
    for name, snippet, edits, wanted in TIMEOUTS:
        yield Case(f"{product(snippet)}: {name} 5 s", behind(snippet, *edits), wanted)
    yield Case("traefik: all its timeouts 5 s cut nothing", behind(TRAEFIK, flags=TRAEFIK_TIMEOUTS))


def chained(outer, inner, edits, **expected):
    """Two proxies, one behind the other, of which the inner one has the timeout."""
    @contextlib.asynccontextmanager
    async def planted():
        with await started() as far:
            async with (in_front(Proxy(inner, far.main[1], edits)) as behind_it,
                        in_front(Proxy(outer, behind_it.port)) as proxy):
                yield Target(f"ws://127.0.0.1:{proxy.port}/echo")
    name, tunnel = product(inner), edits[0][1]
    return Case(f"{product(outer)} in front of {name}: {tunnel}", planted, **expected)


def chains():
    yield chained(NGINX, HAPROXY, [("timeout tunnel 1h", "timeout tunnel 5s")], path=["nginx", "haproxy"],
                  wanted=only("idle-silent-fin", "haproxy", "timeout tunnel"))
    yield chained(TRAEFIK, NGINX, [("proxy_read_timeout 1h", "proxy_read_timeout 5s")],
                  wanted=only("idle-silent-fin", "nginx", "proxy_read_timeout"))


def cuts():
    for how in HOWS:
        yield Case(f"idle 5 s: {how}", hop(f"idle({how!r})"), only(f"idle-silent-{how}"))
        yield Case(f"age 5 s: {how}", hop(f"age({how!r})"), only(f"age-{how}"))
    yield Case("idle 5 s: silence, then RST", hop("hole_then_reset()"), only("idle-silent-rst"))
    yield Case("idle 5 s: only the client's bytes count", hop("idle('fin', counts=[UP])"),
               only("idle-silent-fin") | only("idle-server-fin"))
    yield Case("idle 5 s: only the server's bytes count", hop("idle('fin', counts=[DOWN])"),
               only("idle-silent-fin") | only("idle-client-fin"))
    yield Case("idle 5 s: pings and pongs do not count", hop("idle('fin', pings_count=False)"),
               only("idle-silent-fin") | only("idle-client-pings-fin") | only("idle-server-pings-fin"))


# ---- the handshake ------------------------------------------------------------------------------

UPGRADE, CONNECTION = ("proxy_set_header Upgrade $http_upgrade;", "proxy_set_header Connection $connection_upgrade;")
HOST = "proxy_set_header Host $http_host;"
PASS = "proxy_pass http://wspulse;"
DECODED = "if ($args ~ '^(.*)b%2Fc(.*)$') { set $args $1b/c$2; } "
PAGE = 'default_type text/html; return 200 "<html><title>Welcome</title>hello</html>";'


def nginx(*edits, **options):
    return behind(NGINX, *edits, **options)


def answers(text, **options):
    return nginx((PASS, text), ready=b"", **options)


def without_upgrade():
    yield Case("nginx: Upgrade is not forwarded", nginx((UPGRADE, ""), (CONNECTION, "")),
               only("upgrade-dropped", "nginx", "proxy_set_header Upgrade"), quick=True)
    yield Case("nginx: HTTP/1.0 to the server", nginx(("proxy_http_version 1.1", "proxy_http_version 1.0")),
               only("http-10-hop", "nginx", "proxy_http_version 1.1"), quick=True)
    yield Case("nginx: a page", answers(PAGE), only("upgrade-page", "nginx"), quick=True)
    yield Case("nginx: a redirect", answers("return 301 https://other.example$request_uri;"),
               only("upgrade-redirect", "nginx"), quick=True)
    for status in (400, 401, 403, 404, 503):
        yield Case(f"nginx: {status}", answers(f"return {status};"), only(f"upgrade-{status}", "nginx"), quick=True)
    yield Case("nginx: 418", answers("return 418;"), only("upgrade-other", "nginx"), quick=True)
    yield Case("nginx: the server does not answer",
               nobody(NGINX, "mute", 504, ("proxy_read_timeout 1h", "proxy_read_timeout 1s")),
               only("upgrade-504", "nginx", "proxy_(read|connect)_timeout|server"), quick=True)
    for snippet, status in ((NGINX, 502), (HAPROXY, 503), (ENVOY, 503), (TRAEFIK, 503), (CADDY, 503)):
        yield Case(f"{product(snippet)}: no server", nobody(snippet, "dead", status),
                   only(f"upgrade-{status}", product(snippet)), quick=True)
    yield Case("envoy: without upgrade_configs", behind(ENVOY, ("upgrade_configs: [{upgrade_type: websocket}]", "")),
               only("upgrade-403", "envoy", "upgrade_configs"), quick=True)
    yield Case("a hop that does not answer", hop("Fault(never_answers=True)"), only("upgrade-timeout"),
               quick=True)
    yield Case("a hop with a wrong accept key", hop("wrong_accept()"), only("upgrade-accept"), quick=True)
    yield Case("a closed port", closed_port, only("unreachable"), quick=True, code=1)


def nobody(snippet, which, status, *edits):
    """A proxy whose server is "dead", or "mute": it accepts and never answers. It is ready when its health
    check has failed."""
    @contextlib.asynccontextmanager
    async def planted():
        async with listener(lambda reader, _: reader.read(-1)) as mute:
            upstream = mute if which == "mute" else free_port()
            async with in_front(Proxy(snippet, upstream, edits), b" %d" % status) as proxy:
                yield Target(f"ws://127.0.0.1:{proxy.port}/echo")
    return planted


@contextlib.asynccontextmanager
async def closed_port():
    yield Target(f"ws://127.0.0.1:{free_port()}/echo")


def changed():
    """The handshake works, and arrives changed."""
    strip = "proxy_set_header Sec-WebSocket-%s '';"
    yield Case("nginx: Sec-WebSocket-Extensions stripped", nginx((HOST, HOST + strip % "Extensions")),
               only("compression-stripped", "nginx", "Sec-WebSocket-Extensions"))
    yield Case("a hop that strips the answer's Sec-WebSocket-Extensions",
               hop("Fault(answer=without(b'sec-websocket-extensions'))"), only("compression-stripped"))
    yield Case("nginx: Sec-WebSocket-Protocol stripped",
               nginx((HOST, HOST + strip % "Protocol"), probe_flags=("--subprotocol", "chat")),
               only("subprotocol-lost", "nginx", "Sec-WebSocket-Protocol"), quick=True)
    yield Case("a subprotocol, kept", nginx(probe_flags=("--subprotocol", "chat")), quick=True)
    yield Case("nginx: Host rewritten", nginx((HOST, "proxy_set_header Host backend.internal;")),
               only("host-rewritten", "nginx", r"proxy_set_header Host \$http_host"), quick=True)
    yield Case("nginx: path rewritten", nginx((PASS, "rewrite ^/app/(.*)$ /$1 break; " + PASS), path="/app/echo"),
               only("path-rewritten", "nginx"), quick=True)
    yield Case("nginx: query rewritten", nginx((PASS, DECODED + PASS)),
               only("query-rewritten", "nginx"), quick=True)
    yield Case("a foreign Origin is let in by the server", nginx(server=("--origin", "any")),
               only("foreign-origin"), quick=True)
    yield Case("nginx: Origin stripped", nginx((HOST, HOST + "proxy_set_header Origin '';")),
               only("foreign-origin", None, "Origin"), quick=True)
    yield Case("nginx: Origin rewritten", nginx((HOST, HOST + "proxy_set_header Origin $scheme://$http_host;")),
               only("foreign-origin", None, "Origin"), quick=True)
    yield Case("nginx: 4 KiB for a request head",
               nginx(("access_log off;", "client_header_buffer_size 1k; large_client_header_buffers 4 4k;")),
               only("head-limit", "nginx", "large_client_header_buffers"))


# ---- names and TLS ------------------------------------------------------------------------------

def names():
    yield Case("one of two addresses is dead", two_addresses(None), only("dead-address"), quick=True)
    yield Case("one of two addresses is another site", two_addresses("other"), only("address-differs"), quick=True,
               also=("dead-address",))
    yield Case("two addresses of one server", two_addresses("same"), quick=True)
    yield Case("a certificate for another name", served_with("other"), only("tls-wrong-name"), quick=True)
    yield Case("an expired certificate", served_with("expired"), only("tls-expired"), quick=True)
    yield Case("a certificate of an unknown authority", served_with("good", trusted=False),
               only("tls-chain-incomplete"), quick=True)
    yield Case("a certificate that signed itself", served_with("itself", trusted=False), only("tls-untrusted"),
               quick=True)
    yield Case("a certificate with 5 days left", served_with("soon"), only("tls-expires-soon"), quick=True)
    yield Case("no TLS at the port", no_tls, only("tls-failed"), quick=True, code=1)
    for refuses in ("reset", 405, 501):
        yield Case(f"extended CONNECT announced and refused: {refuses}", h2(True, refuses),
                   only("h2-connect-fails"), quick=True)
    # Envoy then asks a server of HTTP/1.1 for an upgrade without a Sec-WebSocket-Key (its issue 8547).
    yield Case("envoy: allow_connect",
               behind(ENVOY, *tls_edits(ENVOY), ("upgrade_configs:", ALLOW_CONNECT), tls=True),
               only("h2-connect-fails", "envoy", "allow_connect"), quick=True)
    yield Case("HTTP/2 without extended CONNECT", h2(False, 405), quick=True)


def two_addresses(second):
    """A name with 127.0.0.1, a server, and 127.0.0.2: no listener, "other" or the "same" server."""
    @contextlib.asynccontextmanager
    async def planted():
        port = free_port()
        more = ("--listen", f"127.0.0.2:{port}") if second == "same" else ()
        with await started(*more, main=f"127.0.0.1:{port}"):
            async with contextlib.AsyncExitStack() as stack:
                if second == "other":
                    await stack.enter_async_context(listener(other_site, "127.0.0.2", port))
                prefix = with_hosts("127.0.0.1 two.test\n127.0.0.2 two.test\n")
                yield Target(f"ws://two.test:{port}/echo", prefix=prefix)
    return planted


async def other_site(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nConnection: close\r\n\r\nnope\n")
    await writer.drain()


@contextlib.asynccontextmanager
async def no_tls():
    with await started() as far:
        yield Target(far.url("/echo", scheme="wss"))


def h2(announces, refuses):
    @contextlib.asynccontextmanager
    async def planted():
        with await started() as far:
            front = f"H2Hop(port, {CERTIFICATES['good']}, {announces}, {refuses!r})"
            async with running(front, far.main[1]) as port:
                yield Target(f"wss://127.0.0.1:{port}/echo", ("--ca-file", authority()))
    return planted


# ---- frames, times, closing ------------------------------------------------------------------------

def frames():
    for seconds in (0.3, 1):
        yield Case(f"a hop that collects for {seconds} s", hop(f"Fault(collect_s={seconds})"), only("buffered"),
                   also=("close-slow",), budget_s=60)
    yield Case("a hop that answers pings", hop("answers_pings()"), only("ping-answered-by-hop"))
    yield Case("a hop that drops pings", hop("drops_pings()"), only("ping-unanswered"))
    for way in (UP, DOWN):
        yield Case(f"a hop that joins fragments, {way}", hop(f"joins_fragments({way!r})"),
                   only("fragments-joined"))
        yield Case(f"a hop that changes a byte, {way}", hop(f"changes_bytes({way!r})"),
                   only("message-changed"), also=("compression-broken",))
    yield Case("a hop with a limit of 32 KiB", hop("limits_size(32 << 10)"), only("size-limit"))
    yield Case("a server with --max-message 64KiB", direct("--max-message", "64KiB"),
               only("size-limit", None, "max-message"))
    yield Case("a hop that loses RSV1", hop("clears_rsv1()"), only("compression-broken"))
    yield Case("a Close that is cut off", hop("truncates_close()"), only("close-lost"))
    yield Case("another close code", hop("changes_close_code(1000)"), only("close-code-changed"))
    yield Case("no close reason", hop("drops_close_reason()"), only("close-reason-lost"))
    yield Case("a Close 3 s late", hop("delays_close(3)"), only("close-slow"))


# ---- several servers, limits, a drain --------------------------------------------------------------

SERVER = "server one 127.0.0.1:8080 check inter 2s"


def two_servers(one="", two="", more="", drains=False, truncates=False):
    """HAProxy in front of two servers; `drains`: the probe is told the admin address of the first."""
    @contextlib.asynccontextmanager
    async def planted():
        drain = ("--drain-delay", "0s", "--drain-window", "1s")
        async with contextlib.AsyncExitStack() as stack:
            first, second = [stack.enter_context(await started(*drain, env={"POD_NAME": f"pod-{name}"}))
                             for name in "ab"]
            edits = [(SERVER, f"{more}\n    {SERVER.replace('2s', '200ms fall 1 rise 1')} {one}\n"
                      f"    server two 127.0.0.1:{second.main[1]} check inter 200ms fall 1 rise 1 {two}")]
            proxy = await stack.enter_async_context(in_front(Proxy(HAPROXY, first.main[1], edits)))
            port = proxy.port
            if truncates:
                port = await stack.enter_async_context(running("Hop(port, truncates_close())", port))
            yield Target(f"ws://127.0.0.1:{port}/echo", ("--drain", first.url("", "admin")) if drains else ())
    return planted


def foreign_drain():
    @contextlib.asynccontextmanager
    async def planted():
        with await started() as far, await started() as other:
            yield Target(far.ws(), ("--drain", other.url("", "admin")))
    return planted


def several():
    yield Case("haproxy: two servers in turn", two_servers(more="balance roundrobin"), quick=True)
    yield Case("haproxy: two servers, one has 20 of 21", two_servers("weight 200", "weight 10", "balance roundrobin"),
               only("uneven"), quick=True)
    yield Case("haproxy: a sticky cookie", two_servers("cookie a", "cookie b", "cookie route insert indirect nocache"),
               only("sticky"), quick=True)
    yield Case("nginx: at most 50 connections",
               nginx(("access_log off;", "access_log off; limit_conn_zone $binary_remote_addr zone=all:1m;"),
                     (PASS, "limit_conn all 50; " + PASS), probe_flags=("--sockets", "64")),
               only("socket-limit", "nginx", "limit_conn"))
    yield Case("haproxy: one of two servers drains", two_servers(more="balance roundrobin", drains=True))
    yield Case("a drain whose Close is cut off", two_servers(more="balance roundrobin", drains=True, truncates=True),
               only("drain-cut"), also=("close-lost",))
    yield Case("a drain of another server", foreign_drain(), only("drain-no-effect"), quick=True, budget_s=80)


def all_cases():
    """Those that wait come first, and the longest before them."""
    made = [case for group in (recipes, timeouts, chains, cuts, frames, several, changed, names, without_upgrade)
            for case in group()]
    return sorted(made, key=lambda case: (case.budget_s <= 30, case.quick))

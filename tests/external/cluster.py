#!/usr/bin/env -S python3 -B
"""The informer against an API server with TLS, by kubeconfig and in a pod: which certificates are
accepted, token rotation, an API server that stops and starts or vanishes, WatchList, viewers that come
back, 5 000 Deployments, 1 000 viewers.

    tests/external/cluster.py           against an API server in Python
    tests/external/cluster.py --real    also against etcd and kube-apiserver, built from Debian's
                                        sources (about ten minutes, once)
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import tools

PYTHON = tools.venv("cluster", ["websocket-client>=1.9,<2"])
if "--real" in sys.argv:
    import cluster_real
    cluster_real.install()
tools.install_only()
tools.rerun_inside(PYTHON)

import websocket

import harness
from cluster_api import Api, authority, context, vouch
from harness import SCRATCH, Server, check, equal, not_run, records, section, timed_section

VIEWERS, RATE, MEASURED_S = 1000, 100, 8
MANY = 5000
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def kubeconfig(server, *lines, cluster=("certificate-authority: ca.pem",), name="config"):
    """Writes a kubeconfig and returns its path; `lines` are the user's credentials."""
    indented = "".join(f"    {line}\n" for line in lines)
    trust = "".join(f"    {line}\n" for line in cluster)
    path = SCRATCH / name
    path.write_text("apiVersion: v1\nkind: Config\ncurrent-context: c\n"
                    "contexts:\n- name: c\n  context: {cluster: k, user: u}\n"
                    f"clusters:\n- name: k\n  cluster:\n    server: {server}\n{trust}"
                    f"users:\n- name: u\n  user:\n{indented or '    {}'}\n")
    return str(path)


class Viewer:
    """One WebSocket at /api/wds/logs."""

    def __init__(self, server, query="?format=json", budget_s=10):
        self.socket = websocket.create_connection(server.ws(f"/api/wds/logs{query}"), timeout=budget_s)

    def next(self):
        return self.socket.recv()

    def until(self, kind):
        """JSON messages up to the first of this kind."""
        seen = []
        while not seen or seen[-1]["type"] != kind:
            seen.append(json.loads(self.next()))
        return seen


def warnings(server):
    return [r for r in records(server.log_text()) if r.get("event") == "informer" and r["level"] == "warn"]


# ---- credentials and trust ------------------------------------------------------------------------

def by_certificate():
    with Api(tls=context(client_ca="ca")) as api:
        config = kubeconfig(api.url(), "client-certificate: me.pem", "client-key: me.key")
        with Server(env={"KUBECONFIG": config}) as server:
            equal("a client certificate: the text of system C",
                  Viewer(server, "").next(), "Successfully processed deployment: d0")
            equal("… which the API server has received", api.subjects, {"me"})
        other = kubeconfig(api.url(), "client-certificate: other.pem", "client-key: other.key")
        with Server(env={"KUBECONFIG": other}) as server:
            reason = Viewer(server).until("stale")[-1]["reason"]
            equal("a client certificate of another authority is refused, and viewers get the reason",
                  reason, "no TLS with the API server: it rejected the handshake with a TLS alert")


def wrong_authority():
    with Api(tls=context()) as api:
        shutil.copy(SCRATCH / "other-ca.pem", SCRATCH / "trusted.pem")
        config = kubeconfig(api.url(), cluster=("certificate-authority: trusted.pem",))
        with Server(env={"KUBECONFIG": config}) as server:
            viewer = Viewer(server)
            equal("an API server with an untrusted certificate: viewers get the reason",
                  viewer.until("stale")[-1]["reason"],
                  "no TLS with the API server: its certificate is not trusted")
            end = time.monotonic() + 5
            while not warnings(server) and time.monotonic() < end:
                time.sleep(0.01)
            equal("… and so does the log, with the host",
                  [w["host"] for w in warnings(server)][:1], [f"localhost:{api.port}"])
            equal("… and no request was sent", api.requests, [])
            shutil.copy(SCRATCH / "ca.pem", SCRATCH / "trusted.pem")
            server.signal(signal.SIGHUP)
            check("… until the CA file is right", viewer.until("synced"))


def in_a_pod():
    """The service account has a fixed path, so the server runs in its own mount namespace."""
    account = SCRATCH / "account"
    account.mkdir()
    (account / "token").write_text("first\n")
    shutil.copy(SCRATCH / "ca.pem", account / "ca.crt")
    mount = (f"mkdir -p {ACCOUNT} && mount --bind {account} {ACCOUNT} && exec \"$@\"")
    prefix = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, timeout=10)
    if tried.returncode:
        return not_run("a pod's service account", tried.stderr or "no mount namespaces here")
    with Api(token="first", tls=context()) as api:
        env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(api.port)}
        with Server(env=env, prefix=prefix) as server:
            viewer = Viewer(server)
            equal("in a pod: the service account's token and authority, the address in the certificate",
                  [event["type"] for event in viewer.until("synced")], ["added", "synced"])
            (account / "token").write_text("second\n")
            api.token = "second"
            api.stop()
            api.start()
            seen = viewer.until("synced")
            check("… and a new token, once the first is no longer accepted",
                  ("API server does not accept the token" in str(seen)) and api.requests[-1][1] == "second",
                  (seen, api.requests))


# ---- an API server that stops and starts ----------------------------------------------------------

def comes_back():
    with Api(tls=context()) as api, Server(env={"KUBECONFIG": kubeconfig(api.url())}) as server:
        viewer = Viewer(server, budget_s=25)  # the last pause may be 16 s long
        viewer.until("synced")
        api.stop()
        began = time.monotonic()
        viewer.until("stale")
        check("viewers learn at once that the API server is gone", time.monotonic() - began < 0.5)
        time.sleep(4)
        api.start()
        back, pauses = time.monotonic(), [w["pause_ms"] for w in warnings(server)]
        viewer.until("synced")
        took_s = time.monotonic() - back
        print(f"# synced {took_s:.2f} s after it started; pauses so far: {pauses} ms")
        # A watch without events proves itself in a second.
        check("… and synced within the pause plus two seconds", took_s <= pauses[-1] / 1000 + 2, took_s)


def streams():
    with Api(count=120, tls=context(), streams=True) as api:
        with Server(env={"KUBECONFIG": kubeconfig(api.url())}) as server:
            began = time.monotonic()
            got = [event["type"] for event in Viewer(server).until("synced")]
            took_s = time.monotonic() - began
            equal("a server with WatchList: one request, and synced at its end",
                  (len(got), got[-1], [watch for watch, _ in api.requests]), (121, "synced", [True]))
            check("… without waiting for an event", took_s < 0.9, took_s)


def comes_again():
    """A viewer continues where it left."""
    with Api(count=3, rate=20, tls=context(), streams=True) as api:
        with Server(env={"KUBECONFIG": kubeconfig(api.url())}) as server:
            viewer = Viewer(server)
            viewer.until("synced")
            last = viewer.until("modified")[-1]
            viewer.socket.close()
            time.sleep(1)
            again = Viewer(server, f"?format=json&since={last['resourceVersion']}").until("synced")[:-1]
            versions = [int(event["resourceVersion"]) for event in again]
            first = int(last["resourceVersion"]) + 1
            equal("?since=: every change since then, once", versions,
                  list(range(first, first + len(versions))))
            check("… and only changes", len(again) > 10 and {e["type"] for e in again} == {"modified"}, again)
            anew = [event["type"] for event in Viewer(server, "?format=json&since=1").until("synced")]
            equal("… an unknown version: a gap, and everything", anew, ["gap", *["added"] * 3, "synced"])


def kinds():
    with Api(tls=context()) as api:
        arguments = ("--kube-resources", "deployments,pods")
        with Server(*arguments, env={"KUBECONFIG": kubeconfig(api.url())}) as server:
            try:
                Viewer(server, "?kind=daemonsets")
                check("a kind that is not watched is refused", False)
            except websocket.WebSocketBadStatusException as error:
                equal("a kind that is not watched is refused", (error.status_code, error.resp_body),
                      (404, b"daemonsets are not watched: --kube-resources is deployments,pods\n"))


VANISHED = '''
import subprocess, sys, time
sys.path.insert(0, sys.argv[1])
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
from cluster_api import Api
from harness import Server, records
api = Api().start()
with Server("--kube", api.url("127.0.0.1"), "--kube-watch", "always") as server:
    while not [r for r in records(server.log_text()) if r.get("message") == "listed"]:
        time.sleep(0.1)
    time.sleep(2)
    subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
    began = time.monotonic()
    while not [r for r in records(server.log_text()) if r.get("event") == "informer" and r["level"] == "warn"]:
        if time.monotonic() - began > 60:
            break
        time.sleep(0.2)
    print(time.monotonic() - began)
'''


def vanished():
    """In a network namespace whose loopback goes down: no FIN and no RST arrives."""
    tried = subprocess.run(["unshare", "--net", "ip", "link"], capture_output=True, text=True, timeout=10)
    if tried.returncode:
        return not_run("an API server that vanishes", tried.stderr or "no network namespaces here")
    here = str(Path(__file__).resolve().parent)
    ran = subprocess.run(["unshare", "--net", sys.executable, "-B", "-c", VANISHED, here],
                         capture_output=True, text=True, timeout=100)
    took_s = float(ran.stdout.split()[-1]) if ran.stdout.split() else 999
    check("an API server that vanishes is noticed within 45 s", took_s <= 45, (took_s, ran.stderr[-500:]))


def stays_away():
    """The pauses grow up to a minute, too long for this test: it counts attempts in the first 20 s."""
    with Api(tls=context()) as api:
        config = kubeconfig(api.url())
    with Server(env={"KUBECONFIG": config}) as server:
        began = time.monotonic()
        viewer = Viewer(server)
        viewer.until("stale")
        time.sleep(20)
        tries, seconds = len(warnings(server)), time.monotonic() - began
        print(f"# {tries} attempts in {seconds:.0f} s while the API server is down")
        check("attempts back off while the API server is down", 2 <= tries <= 20 * 0.75, tries)


# ---- figures --------------------------------------------------------------------------------------

def cpu_s(process):
    with open(f"/proc/{process.pid}/schedstat") as stat:
        return int(stat.read().split()[0]) / 1e9


def many():
    with Api(count=MANY, tls=context()) as api:
        with Server(env={"KUBECONFIG": kubeconfig(api.url())}) as server:
            before = cpu_s(server.process)
            first = len(Viewer(server, budget_s=30).until("synced"))
            listed_s = cpu_s(server.process) - before
            began = time.monotonic()
            second = len(Viewer(server).until("synced"))
            took_s = time.monotonic() - began
            print(f"# {MANY} Deployments: {listed_s * 1000:.0f} ms of CPU for list and first viewer, "
                  f"{took_s * 1000:.0f} ms until the second has them all")
            equal(f"{MANY} Deployments reach each viewer once", (first, second), (MANY + 1, MANY + 1))
            check("… the second within a second", took_s <= 1, took_s)


def crowd():
    """Viewers that only read: `wspulse load` in its own process."""
    with Api(count=50, rate=RATE, tls=context()) as api:
        with Server(env={"KUBECONFIG": kubeconfig(api.url())}) as server:
            load = harness.launch(
                [harness.BINARY, "load", server.ws("/api/wds/logs?format=json"), "--clients", str(VIEWERS),
                 "--hold", f"{MEASURED_S + 6}s", "--json"],
                env=harness.clean_environment(), stdout=subprocess.PIPE, text=True)
            deadline = time.monotonic() + 20
            while stats(server) < VIEWERS and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(2)
            began, before, sent = time.monotonic(), cpu_s(server.process), frames(server)
            time.sleep(MEASURED_S)
            spent, seconds = cpu_s(server.process) - before, time.monotonic() - began
            sent_per_s, watched = (frames(server) - sent) / seconds, Viewer(server)
            behind = api.version - newest(watched)
            load.kill()
            share = spent / seconds
            print(f"# {VIEWERS} viewers, {RATE} changes/s: {sent_per_s:.0f} frames/s, {share:.2f} of a core, "
                  f"{spent / (sent_per_s * seconds) * 1e6:.2f} us a frame")
            check(f"{VIEWERS} viewers of {RATE} changes a second: every change is sent",
                  sent_per_s >= VIEWERS * RATE * 0.98, sent_per_s)
            check("… on one core", share <= 1, share)
            check("… and no viewer is behind", behind <= RATE, behind)


def newest(viewer):
    return max(int(event["resourceVersion"]) for event in viewer.until("synced")[:-1])


def scrape(server, path="/metrics"):
    import urllib.request
    with urllib.request.urlopen(server.url(path, "admin"), timeout=10) as answer:
        return answer.read().decode()


def frames(server):
    found = re.findall(r'^websocket_messages_sent_total\{opcode="text"\} (\d+)', scrape(server), re.M)
    return int(found[0]) if found else 0


def stats(server):
    return sum(map(int, re.findall(r"^websocket_connections_active\{[^}]*\} (\d+)", scrape(server), re.M)))


def main():
    harness.require_binary()
    harness.raise_descriptor_limit()
    for name in ("ca", "other-ca"):
        authority(name)
    vouch("api", "/CN=kube-apiserver", "subjectAltName=DNS:localhost,DNS:kubernetes,IP:127.0.0.1")
    vouch("me", "/O=shop/CN=me", "extendedKeyUsage=clientAuth")
    vouch("other", "/CN=other", "extendedKeyUsage=clientAuth", ca="other-ca")
    for group in (by_certificate, wrong_authority, in_a_pod, comes_back, streams, comes_again, kinds, stays_away,
                  vanished):
        section(group)
    for group in (many, crowd):
        timed_section(group)
    if "--real" in sys.argv:
        section(cluster_real.check_all, kubeconfig, Viewer)


main()
harness.finish()

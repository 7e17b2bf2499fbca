"""What the documents' commands take for granted, inside a network namespace of `readme_parts`.

    readme_stands.py apiserver | backend FILE | ingress FOLDER SECONDS
"""

import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from apiserver import ApiServer, deployment, pod
from harness import BINARY, ROOT, clean_environment, launch

# The servers behind the ingress; the first one has the admin listener that `--drain` names.
PODS = ("web-7d9f", "web-5x2k", "web-c81p")


def apiserver():
    """The API server of $KUBECONFIG: two Deployments and a Pod, and the other kinds without objects."""
    with ApiServer(deployment("shop", "web", 9, "web:2", 4), deployment("poc", "api", 8, "api:1", 1), port=6443) as api:
        api.others = {"pods": [pod("shop", "web-1", 10, "web:2", 7)], "statefulsets": [], "daemonsets": []}
        signal.pause()


def backend(ids):
    """A service that takes POST, and writes the last connection id into a file."""
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            if self.headers["EventType"] == "CONNECT":
                Path(ids).write_text(self.headers["ConnectionId"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass
    ThreadingHTTPServer(("127.0.0.1", 8501), Handler).serve_forever()


def ingress(folder, idle_s):
    """deploy/proxy/nginx.conf with the default of `proxy_read_timeout`, or a shorter one, on 80 and 443."""
    for number, name in enumerate(PODS):
        admin = "off" if number else "10.0.0.7:8081"
        launch([str(BINARY), "--listen", f"127.0.0.2:909{number}", "--admin-listen", admin, "--log-level", "error"],
               env=clean_environment({"POD_NAME": name}))
    text = (ROOT / "deploy" / "proxy" / "nginx.conf").read_text()
    tls = f"listen 443 ssl; ssl_certificate {folder}/ingress.crt; ssl_certificate_key {folder}/ingress.key;"
    upstreams = " ".join(f"server 127.0.0.2:909{number};" for number in range(len(PODS)))
    for old, new in (("listen 8000;", f"listen 80; {tls}"), ("server 127.0.0.1:8080;", upstreams),
                     ("_timeout 1h;", f"_timeout {idle_s}s;")):
        if old not in text:
            raise RuntimeError(f"nginx.conf has no {old}")
        text = text.replace(old, new)
    Path(folder, "ingress.conf").write_text(text)
    launch(["nginx", "-g", "daemon off;", "-c", f"{folder}/ingress.conf"])
    signal.pause()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the documents' own commands
    {"apiserver": apiserver, "backend": backend, "ingress": ingress}[sys.argv[1]](*sys.argv[2:])

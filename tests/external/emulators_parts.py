"""What `emulators.py` compares: wspulse's gateway, serverless-offline, Architect's sandbox, MiniStack
and moto, each with the same backend: a short Lambda function that forwards the event."""

import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from importlib import metadata

import websockets

import harness
import tools
from backend_parts import Web, listens
from harness import SCRATCH, Server, free_port, launch
from sdks_parts import Keys

REGION = "eu-central-1"
KEPT = Keys("AKIDEXAMPLE", "wJalrXUtnFEMI-not-a-real-secret")
LENT = Keys("ASIAEXAMPLE", "another-secret-that-is-none", "the-session-token")
numbers = itertools.count()

RELAY_JS = """exports.handler = async (event) => {
  const answer = await fetch('BACKEND', { method: 'POST', body: JSON.stringify(event) });
  if (answer.status === 500 && event.requestContext.eventType === 'MESSAGE') throw new Error('failed');
  const chosen = answer.headers.get('sec-websocket-protocol');
  return { statusCode: answer.status, body: await answer.text(),
           headers: chosen ? { 'Sec-WebSocket-Protocol': chosen } : {} };
};
"""
RELAY_PY = """import json, urllib.error, urllib.request
def handler(event, _):
    try:
        answer = urllib.request.urlopen('BACKEND', json.dumps(event).encode())
    except urllib.error.HTTPError as error:
        answer = error
    if answer.status == 500 and event['requestContext']['eventType'] == 'MESSAGE':
        raise RuntimeError('failed')
    chosen = answer.headers.get('Sec-WebSocket-Protocol')
    return {'statusCode': answer.status, 'body': answer.read().decode(),
            'headers': {'Sec-WebSocket-Protocol': chosen} if chosen else {}}
"""


class Backend:
    """Receives AWS' events. The client's query sets the answer to `$connect`: `?answer=401`."""

    def __init__(self):
        self.events, self.release = [], threading.Event()
        self.began, self.busy, self.most_busy = [], 0, 0
        self.lock = threading.Lock()
        self.web = Web(self._answer)
        self.url = self.web.url

    def _answer(self, _method, _path, _headers, body):
        event = json.loads(body)
        self.events.append(event)
        kind, text = event["requestContext"]["eventType"], event.get("body") or ""
        if kind == "CONNECT":
            answer = (event.get("queryStringParameters") or {}).get("answer", "200")
            if answer == "hold":
                self.release.wait(5)
            fields = [("Sec-WebSocket-Protocol", "chat")] if answer == "chat" else []
            return (int(answer) if answer.isdigit() else 200, b"", *fields)
        if kind == "MESSAGE" and text.startswith("slow"):
            self._slow(int(text.split()[1]))
        return 500 if text == "fail" else 200, b"an answer's body"

    def _slow(self, number):
        """The first ones take longest, so that concurrent requests finish out of order."""
        with self.lock:
            self.began.append(number)
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        time.sleep(0.02 * (10 - number))
        with self.lock:
            self.busy -= 1

    def of(self, kind, name=None):
        """The events of a kind, of one connection."""
        return [event for event in list(self.events)
                if event["requestContext"]["eventType"] == kind
                and name in (None, event["requestContext"]["connectionId"])]


class Subject:
    """An emulator with its backend. `ws` and `endpoint` are the URLs for clients and callbacks."""
    version = ""
    has_sockets = True
    # Another instance with this idle timeout and lifetime, in seconds.
    idle_s = life_s = None

    def stop(self):
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()

    def start(self, command, port, cwd=None, env=None):
        with open(SCRATCH / f"{self.name.replace(' ', '-')}.log", "ab") as log:
            self.process = launch([str(part) for part in command], cwd=cwd, stdout=log, stderr=log,
                                  stdin=subprocess.PIPE, env=os.environ | OFFLINE | (env or {}))
        if not listens(port):
            raise RuntimeError(f"{self.name} does not listen")

    @contextlib.asynccontextmanager
    async def client(self, answer="200", **options):
        """A connected client, and its id as the backend received it."""
        before = len(self.backend.of("CONNECT"))
        async with websockets.connect(f"{self.ws}?answer={answer}", max_size=None, open_timeout=8,
                                      **options) as socket:
            yield socket, self.backend.of("CONNECT")[before]["requestContext"]["connectionId"]


# No requests for credentials on the network, and no statistics.
OFFLINE = {"AWS_ACCESS_KEY_ID": KEPT.key, "AWS_SECRET_ACCESS_KEY": KEPT.secret, "AWS_REGION": REGION,
           "AWS_EC2_METADATA_DISABLED": "true", "SLS_TELEMETRY_DISABLED": "1", "CI": "1",
           "SLS_NOTIFICATIONS_MODE": "off"}


class Wspulse(Subject):
    name = "wspulse"

    def __init__(self, backend, *args):
        self.backend = backend
        keys = SCRATCH / "credentials"
        keys.write_text(f"[a]\naws_access_key_id={KEPT.key}\naws_secret_access_key={KEPT.secret}\n"
                        f"[b]\naws_access_key_id={LENT.key}\naws_secret_access_key={LENT.secret}\n"
                        f"aws_session_token={LENT.token}\n")
        keys.chmod(0o600)
        self.server = Server("--gateway-backend", backend.url, "--gateway-format", "event",
                             "--gateway-route", "$request.body.action", "--gateway-routes", "join",
                             "--gateway-credentials-file", str(keys), *args)
        self.process = self.server.process
        self.version = harness.wspulse("--version")[1].split()[-1]
        self.ws, self.endpoint = self.server.ws("/gateway/prod"), self.server.url("/prod", "admin")

    def hurried(self):
        other = Wspulse(self.backend, "--gateway-time-scale", "1200")
        other.idle_s, other.life_s = 600 / 1200, 7200 / 1200
        return other


class Offline(Subject):
    """serverless-offline, in osls, a fork of Serverless 3 that is complete on npm."""
    name = "serverless-offline"

    def __init__(self, backend, *args):
        self.backend = backend
        home = tools.npm(["--legacy-peer-deps", "osls@4", "serverless-offline@14"], "offline")
        self.version = npm_version(home, "serverless-offline")
        folder = project(f"offline-{next(numbers)}", {"relay.js": RELAY_JS.replace("BACKEND", backend.url),
                                                      "serverless.yml": SERVERLESS})
        (folder / "node_modules").symlink_to(home / "node_modules")
        port, more = free_port(), free_port()
        self.start(["node", home / "node_modules/osls/bin/serverless.js", "offline", "start", "--host",
                    "127.0.0.1", "--httpPort", more, "--lambdaPort", free_port(), "--websocketPort", port,
                    *args], port, folder)
        self.ws, self.endpoint = f"ws://127.0.0.1:{port}/", f"http://127.0.0.1:{port}"

    def hurried(self):
        other = Offline(self.backend, "--webSocketIdleTimeout", "2", "--webSocketHardTimeout", "6")
        other.idle_s, other.life_s = 2, 6
        return other


SERVERLESS = """service: beside
provider: {name: aws, runtime: nodejs20.x, websocketsApiRouteSelectionExpression: $request.body.action}
plugins: [serverless-offline]
functions:
  relay:
    handler: relay.handler
    events: [websocket: $connect, websocket: $disconnect, websocket: $default, websocket: join]
"""


class Architect(Subject):
    """Architect's sandbox: a process for each event."""
    name = "Architect sandbox"

    def __init__(self, backend):
        self.backend = backend
        home = tools.npm(["@architect/sandbox@8"], "architect")
        self.version = npm_version(home, "@architect/sandbox")
        relay = RELAY_JS.replace("BACKEND", backend.url)
        files = {f"src/ws/{name}/index.js": relay for name in ("connect", "disconnect", "default", "join")}
        files |= {"src/http/get-index/index.js": relay,
                  "app.arc": "@app\nbeside\n\n@aws\nruntime nodejs20.x\n\n@http\nget /\n\n@ws\njoin\n"}
        port, internal = free_port(), free_port()
        self.start(["node", home / "node_modules/@architect/sandbox/src/cli/cli.js", "--disable-symlinks"],
                   port, project("architect", files),
                   {"ARC_HOST": "localhost", "ARC_HTTP_PORT": str(port), "ARC_INTERNAL_PORT": str(internal)})
        self.ws, self.endpoint = f"ws://localhost:{port}/", f"http://localhost:{internal}/_arc/ws"

    def hurried(self):
        return None


class Ministack(Subject):
    """MiniStack, configured with AWS' API calls."""
    name = "MiniStack"

    def __init__(self, backend):
        self.backend, port = backend, free_port()
        python = tools.venv("ministack", ["ministack>=1.5,<2"])
        self.start([python.parent / "ministack"], port,
                   env={"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port)})
        run = subprocess.run([python, "-c", "import importlib.metadata as m; print(m.version('ministack'))"],
                             capture_output=True, text=True)
        self.version = run.stdout.strip()
        api = self._deploy(f"http://127.0.0.1:{port}", RELAY_PY.replace("BACKEND", backend.url))
        path = f"//127.0.0.1:{port}/_aws/execute-api/{api}/prod"
        self.ws, self.endpoint = f"ws:{path}", f"http:{path}"

    def _deploy(self, url, code):
        import boto3
        known = {"endpoint_url": url, "region_name": REGION, "aws_access_key_id": KEPT.key,
                 "aws_secret_access_key": KEPT.secret}
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            file.writestr("relay.py", code)
        role = boto3.client("iam", **known).create_role(RoleName="r", AssumeRolePolicyDocument="{}")
        function = boto3.client("lambda", **known).create_function(
            FunctionName="relay", Runtime="python3.11", Role=role["Role"]["Arn"],
            Handler="relay.handler", Code={"ZipFile": packed.getvalue()})["FunctionArn"]
        gateway = boto3.client("apigatewayv2", **known)
        api = gateway.create_api(Name="beside", ProtocolType="WEBSOCKET",
                                 RouteSelectionExpression="$request.body.action")["ApiId"]
        uri = f"arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/{function}/invocations"
        to = gateway.create_integration(ApiId=api, IntegrationType="AWS_PROXY",
                                        IntegrationUri=uri)["IntegrationId"]
        for key in ("$connect", "$disconnect", "$default", "join"):
            gateway.create_route(ApiId=api, RouteKey=key, Target=f"integrations/{to}")
        gateway.create_stage(ApiId=api, StageName="prod")
        return api

    def hurried(self):
        return None


class Moto(Subject):
    """moto's server has the three verbs, without a stage, but no WebSockets: each id is a connection."""
    name = "moto"
    has_sockets = False

    def __init__(self, backend):
        self.backend, port = backend, free_port()
        self.version = metadata.version("moto")
        self.start([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port], port)
        self.endpoint = f"http://127.0.0.1:{port}"

    @contextlib.asynccontextmanager
    async def client(self, **_):
        yield None, "R0oXAdfD0kwCH6w="

    def hurried(self):
        return None


def project(name, files):
    folder = SCRATCH / name
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def npm_version(home, package):
    return json.loads((home / "node_modules" / package / "package.json").read_text())["version"]

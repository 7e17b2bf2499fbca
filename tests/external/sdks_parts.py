"""AWS' own clients of `@connections`, each behind one call: boto3, the `aws` command, the SDKs for
JavaScript v3 and Go v2. `sdks.py` and `emulators.py` use them; the interpreter has boto3 and awscli."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import tools

HERE = Path(__file__).parent
PACKAGES = ["boto3>=1.40,<2", "awscli>=1.40,<2", "websockets>=15,<17"]
GO_SDK = Path("/usr/share/gocode/src/github.com/aws/aws-sdk-go-v2")
VERBS = {"post": "post-to-connection", "get": "get-connection", "delete": "delete-connection"}


def node():
    return tools.npm(["@aws-sdk/client-apigatewaymanagementapi@3"], "sdk-node") / "node_modules"


def go():
    """The program of sdk_go.go, built from Debian's packages; None if these cannot be installed."""
    if not (shutil.which("go") and GO_SDK.exists()):
        names = ["golang-go", "golang-github-aws-aws-sdk-go-v2-dev"]
        install = ["apt-get", "-o", "DPkg::Lock::Timeout=120", "install", "--yes",
                   "--no-install-recommends", *names]
        for command in (["apt-get", "-o", "DPkg::Lock::Timeout=120", "update"], install):
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    if not (shutil.which("go") and GO_SDK.exists()):
        return None
    source = HERE / "sdk_go.go"

    def steps(home):
        yield ["mkdir", "-p", str(home)]
        # Debian's packages of Go are sources in a GOPATH: nothing is downloaded.
        yield ["env", "GO111MODULE=off", "GOPATH=/usr/share/gocode", f"GOCACHE={home / 'cache'}",
               "go", "build", "-p", "1", "-o", str(home / "sdk_go"), str(source)]
    recipe = f"sdk_go.go {hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    return tools.install("sdk-go", recipe, steps) / "sdk_go"


class Keys:
    """An access key, and the session token of a temporary one."""

    def __init__(self, key, secret, token=""):
        self.key, self.secret, self.token = key, secret, token


class Boto:
    name = "boto3"

    def __init__(self):
        import boto3
        import botocore.config
        import botocore.exceptions
        self.config = botocore.config.Config(retries={"total_max_attempts": 1}, connect_timeout=5,
                                             read_timeout=10)
        self.make, self.error = boto3.client, botocore.exceptions.ClientError
        self.silence = botocore.exceptions.ReadTimeoutError
        self.version = boto3.__version__

    def call(self, endpoint, keys, verb, name, data=b""):
        client = self.make("apigatewaymanagementapi", region_name="eu-central-1", config=self.config,
                           endpoint_url=endpoint, aws_access_key_id=keys.key,
                           aws_secret_access_key=keys.secret, aws_session_token=keys.token or None)
        more = {"Data": data} if verb == "post" else {}
        try:
            answer = getattr(client, VERBS[verb].replace("-", "_"))(ConnectionId=name, **more)
        except self.error as error:
            answer = error.response
            return {"outcome": answer["Error"]["Code"],
                    "status": answer["ResponseMetadata"]["HTTPStatusCode"]}
        except self.silence:
            return {"outcome": "no answer", "status": 0}
        result = {"outcome": "ok", "status": answer["ResponseMetadata"]["HTTPStatusCode"]}
        if verb == "get":
            identity = answer.get("Identity", {})
            result |= {"ip": identity.get("SourceIp"), "agent": identity.get("UserAgent")}
            for key, field in (("since", "ConnectedAt"), ("active", "LastActiveAt")):
                result |= {key: answer[field].timestamp()} if field in answer else {}
        return result


class Command:
    """`aws apigatewaymanagementapi`, one process per call."""
    name = "the aws command"

    def __init__(self, scratch):
        self.scratch = scratch
        run = subprocess.run(self._aws("--version"), capture_output=True, text=True, timeout=60)
        self.version = run.stdout.split()[0].removeprefix("aws-cli/")

    def _aws(self, *args):
        return [sys.executable, "-m", "awscli", *args]

    def call(self, endpoint, keys, verb, name, data=b""):
        args = ["apigatewaymanagementapi", VERBS[verb], "--connection-id", name,
                "--endpoint-url", endpoint, "--output", "json"]
        if verb == "post":
            payload = self.scratch / "payload"
            payload.write_bytes(data)
            args += ["--data", f"fileb://{payload}"]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        env = kept | {"AWS_ACCESS_KEY_ID": keys.key, "AWS_SECRET_ACCESS_KEY": keys.secret,
                      "AWS_DEFAULT_REGION": "eu-central-1", "AWS_MAX_ATTEMPTS": "1",
                      "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        env |= {"AWS_SESSION_TOKEN": keys.token} if keys.token else {}
        run = subprocess.run(self._aws(*args), capture_output=True, text=True, timeout=60, env=env,
                             stdin=subprocess.DEVNULL)
        if run.returncode:
            named = re.search(r"An error occurred \((\w+)\)", run.stderr)
            return {"outcome": named[1] if named else f"no answer: {run.stderr.strip()[-200:]}"}
        result = {"outcome": "ok"}
        if verb == "get":
            from dateutil import parser
            found = json.loads(run.stdout)
            result |= {"ip": found["Identity"]["SourceIp"], "agent": found["Identity"]["UserAgent"],
                       "since": parser.parse(found["ConnectedAt"]).timestamp(),
                       "active": parser.parse(found["LastActiveAt"]).timestamp()}
        return result


class Lines:
    """A program that reads one request per line and writes one answer per line."""

    def __init__(self, name, version, command, launch, env=None):
        self.name, self.version = name, version
        self.process = launch(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              bufsize=1, env=os.environ | (env or {}))

    def call(self, endpoint, keys, verb, name, data=b""):
        asked = {"endpoint": endpoint, "key": keys.key, "secret": keys.secret, "token": keys.token,
                 "verb": verb, "id": name, "data": base64.b64encode(data).decode()}
        self.process.stdin.write(json.dumps(asked) + "\n")
        return json.loads(self.process.stdout.readline() or '{"outcome": "the program ended"}')


def javascript(modules, launch):
    package = modules / "@aws-sdk/client-apigatewaymanagementapi/package.json"
    version = json.loads(package.read_text())["version"]
    return Lines("SDK for JavaScript v3", version, ["node", str(HERE / "sdk_node.cjs")], launch,
                 {"NODE_PATH": str(modules)})


def others(scratch, modules, program, launch, not_run):
    """All but boto3. Go's `program` is None if it could not be installed."""
    yield Command(scratch)
    yield javascript(modules, launch)
    if program:
        yield golang(program, launch)
    else:
        not_run("the SDK for Go v2", "apt has no golang-go with golang-github-aws-aws-sdk-go-v2-dev")


def golang(program, launch):
    text = (GO_SDK / "service/apigatewaymanagementapi/go_module_metadata.go").read_text()
    return Lines("SDK for Go v2", re.search(r'"([\d.]+)"', text)[1], [str(program)], launch)

#!/usr/bin/env -S python3 -B
"""`wspulse backend` with curl, with our own gateway and a Python client, with moto (which checks
signatures) and dynalite, credentials from all three sources, throttling and outages.

    tests/external/backend.py

boto3, moto[server] and websockets from PyPI, dynalite from npm, curl from apt.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import tools

tools.rerun_inside(tools.venv("backend", ["boto3", "moto[server]", "websockets"]))
tools.apt("curl", "curl")
DYNALITE = tools.npm(["dynalite@4"], "dynalite") / "node_modules" / "dynalite" / "cli.js"
tools.install_only()

import boto3  # noqa: E402
import botocore.config  # noqa: E402
import websockets  # noqa: E402

import harness  # noqa: E402
from backend_parts import (Backend, Web, expiry, fault, fetch, gateway, listens, metric, post,  # noqa: E402
                           proxy)
from harness import SCRATCH, Server, check, equal, free_port, launch, section, until, wspulse  # noqa: E402

REGION = "eu-west-1"
SECRET = "wJalrXUtnFEMI-not-a-real-secret"


def curl(*args):
    run = subprocess.run(["curl", "-sS", "-w", "|%{http_code}", "--max-time", "10", *args],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return run.stdout.decode()


def texts():
    """The sample's answers, byte for byte."""
    front = gateway()
    with Backend("--gateway", front.url) as backend:
        url = backend.url("/")
        equal("GET / is `get`", curl(url), "get|200")
        equal("POST /connect is `connect`", curl("-X", "POST", url + "connect"), "connect|200")
        text = "it's \"quoted\" \\ and\nnew ☃"
        body = json.dumps({"myConnectionIdProperty": "Ab-_9=", "myBody": text, "domain": "evil:1", "stage": "x"})
        equal("POST / is `default`", curl("-d", body, url), "default|200")
        equal("the client gets an answer to a message of any content",
              [(seen[1], seen[3].decode()) for seen in front.seen],
              [("/@connections/Ab-_9%3D", f"Got message:{text}")])
        check("an invalid message is refused with the reason", "myConnectionIdProperty" in curl("-d", "nonsense", url))
        equal("a connection that is gone", (post(url, "gone"), metric(backend, "backend_sessions")),
              ((200, b"default"), 1))
        equal("/readyz", curl(url + "readyz"), "OK\n|200")
        for _ in range(30):
            post(url, "many")
        time.sleep(1.2)
        stats = json.loads(fetch(backend.url("/stats"))[1])["requests"]
        check("/stats has the rate for KEDA", 2 <= stats["perSecond"] <= 10, stats)
        check("messages do not get into the log", "many" not in backend.log_text()
              and "quoted" not in backend.log_text(), backend.log_text()[-500:])
        # SIGTERM while a request is in progress.
        with ThreadPoolExecutor() as pool:
            slow = pool.submit(post, url, "slow")
            time.sleep(0.3)
            backend.signal()
            equal("SIGTERM lets the request in progress finish", slow.result(), (200, b"default"))
        equal("and ends with 0", backend.wait(), 0)
    front.close()


async def behind_our_gateway():
    """Client, gateway, backend; the backend is replaced while the client stays connected."""
    port, admin = free_port(), free_port()
    token = SCRATCH / "gateway-token"
    token.write_text("a-token-shared-by-both")
    back = ["--gateway", f"http://127.0.0.1:{admin}", "--listen", f"127.0.0.1:{port}",
            "--gateway-token-file", str(token)]
    backend = Backend(*back)
    with Server("--gateway-backend", f"http://127.0.0.1:{port}", "--gateway-token-file", str(token),
                admin=f"127.0.0.1:{admin}") as server:
        async with websockets.connect(server.ws("/gateway/prod")) as client:
            for number, text in enumerate(["hi", "it's \"x\" \\ \n ☃", "x" * 10_000]):
                await client.send(text)
                got = await asyncio.wait_for(client.recv(), 5)
                equal(f"message {number} through the gateway", got, f"Got message:{text}")
            equal("the backend leaves", await asyncio.to_thread(backend.stop), 0)
            backend = Backend(*back)
            await client.send("still here")
            got = await asyncio.wait_for(client.recv(), 5)
            equal("the client does not notice the new backend", got, "Got message:still here")
            count = 200
            for number in range(count):
                await client.send(str(number))
            got = [await asyncio.wait_for(client.recv(), 10) for _ in range(count)]
            equal(f"{count} messages at once come back in order", got,
                  [f"Got message:{number}" for number in range(count)])
            token.write_text("another-token")
            backend.signal(signal.SIGHUP)
            server.signal(signal.SIGHUP)
            await asyncio.sleep(0.5)
            await client.send("another token")
            equal("a token that changes", await asyncio.wait_for(client.recv(), 5), "Got message:another token")
    check("the token is in no log", "token-shared" not in backend.log_text() + server.log_text())
    backend.kill()


class Table:
    """A DynamoDB emulator, and boto3's client for it."""

    def __init__(self, port, key="AKIDEXAMPLE", secret=SECRET):
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self.env = {"AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        self.client = boto3.client(
            "dynamodb", endpoint_url=self.url, region_name=REGION, aws_access_key_id=key,
            aws_secret_access_key=secret, config=botocore.config.Config(retries={"max_attempts": 1}))

    def args(self, name, *more):
        return ["--sessions", f"dynamodb:{name}", "--dynamodb-endpoint", self.url, *more]

    def items(self, name):
        return self.client.scan(TableName=name)["Items"]

    def messages(self, name):
        return sum(int(item["messages"]["N"]) for item in self.items(name))


def dynalite():
    port = free_port()
    launch(["node", DYNALITE, "--port", str(port), "--createTableMs", "300"],
           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return Table(port) if listens(port) else None


def moto():
    """moto with one IAM user, whose key is the only one it accepts afterwards."""
    port = free_port()
    log = open(SCRATCH / "moto.log", "wb")
    launch([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log,
           env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": "3"})
    if not listens(port):
        return None
    iam = boto3.client("iam", endpoint_url=f"http://127.0.0.1:{port}", region_name=REGION,
                       aws_access_key_id="x", aws_secret_access_key="x")
    iam.create_user(UserName="backend")
    allowed = {"Version": "2012-10-17",
               "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_user_policy(UserName="backend", PolicyName="p", PolicyDocument=json.dumps(allowed))
    key = iam.create_access_key(UserName="backend")["AccessKey"]
    table = Table(port, key["AccessKeyId"], key["SecretAccessKey"])
    known = {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": REGION,
             "aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    iam = boto3.client("iam", **known)
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]}
    role = iam.create_role(RoleName="r", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=json.dumps(allowed))
    sts = boto3.client("sts", **known)
    # The credentials that a pod would get; the test sets when they expire.
    table.lent = lambda: sts.assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    return table


def shared_table(what, table):
    """Two backends, one table: every message is counted once."""
    front = gateway()
    args = ["--gateway", front.url, *table.args("shared", "--create-table")]
    with Backend(*args, env=table.env) as one, Backend(*args, env=table.env) as two:
        there = until(lambda: all(backend.record("table is ready") for backend in (one, two)), 15)
        check(f"{what}: only one of two backends creates the table", there, one.log_text()[-600:])
        count, connections = 200, 5
        urls = [one.url("/"), two.url("/")]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: post(urls[n % 2], f"c{n % connections}"), range(count)))
        equal(f"{what}: {count} messages are answered", set(answers), {(200, b"default")})
        items = table.items("shared")
        equal(f"{what}: {count} messages are counted, {connections} sessions",
              (sum(int(item["messages"]["N"]) for item in items), len(items)), (count, connections))
        fields = {tuple(sorted(item)) for item in items}
        equal(f"{what}: the attributes of an item", fields,
              {("connectionId", "createdAt", "expiresAt", "lastSeenAt", "messages")})
        left_s = int(items[0]["expiresAt"]["N"]) - time.time()
        check(f"{what}: it expires", 7100 < left_s < 7300 and items[0]["createdAt"]["S"]
              <= items[0]["lastSeenAt"]["S"], items[0])
        created = sum(metric(backend, "backend_sessions_created_total") for backend in (one, two))
        equal(f"{what}: each session was created once", created, connections)
        post(urls[0], "gone")
        check(f"{what}: 410 deletes the session", until(lambda: len(table.items("shared")) == connections, 15))
        equal(f"{what}: each is answered by one callback", len(front.seen), count + 1)
        hidden = all(secret not in one.log_text() for secret in [table.env["AWS_SECRET_ACCESS_KEY"]])
        check(f"{what}: no secret in the log", hidden)
        equal(f"{what}: both exit with 0", (one.stop(), two.stop()), (0, 0))
    front.close()


def with_moto():
    table = moto()
    if not check("moto is up, with signatures checked", table is not None):
        return
    shared_table("moto", table)
    ttl = table.client.describe_time_to_live(TableName="shared")["TimeToLiveDescription"]
    equal("moto: items expire by themselves", (ttl["TimeToLiveStatus"], ttl["AttributeName"]),
          ("ENABLED", "expiresAt"))
    front = gateway()
    wrong = table.env | {"AWS_SECRET_ACCESS_KEY": SECRET}
    with Backend("--gateway", front.url, *table.args("shared"), env=wrong) as backend:
        equal("moto: with a wrong key messages are answered", post(backend.url("/"), "w"), (200, b"default"))
        equal("moto: … and /readyz reports it", fetch(backend.url("/readyz")), (200, "OK, sessions degraded\n"))
        until(lambda: backend.record("a message was not counted"))
        record = backend.record("a message was not counted") or {}
        check("moto: the log gives the reason", "credentials" in record.get("why", ""), record)
        equal("moto: nothing was counted", [item for item in table.items("shared")
                                            if item["connectionId"]["S"] == "w"], [])
    env = {"AWS_REGION": REGION}
    code, _, err = wspulse("backend", *table.args("shared"), env=env)
    check("without credentials: exit 2 and a remedy", code == 2 and "AWS_ACCESS_KEY_ID" in err, err)
    given_by_pods(table, front)
    given_by_sts(table, front)
    front.close()


def given_by_pods(table, front):
    """EKS Pod Identity: credentials that expire soon, and a token that changes."""
    token = SCRATCH / "pod-token"
    token.write_text("first")
    secrets = ["second"]

    def give(_method, path, headers, _body):
        if path != "/v1/credentials" or headers.get("Authorization") != token.read_text():
            return 401, b"no"
        lent = table.lent()
        secrets.extend([lent["SecretAccessKey"], lent["SessionToken"]])
        given = {"AccessKeyId": lent["AccessKeyId"], "SecretAccessKey": lent["SecretAccessKey"],
                 "Token": lent["SessionToken"], "Expiration": expiry(4), "AccountId": "1"}
        return 200, json.dumps(given).encode()
    agent = Web(give)
    env = {"AWS_REGION": REGION, "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{agent.url}/v1/credentials",
           "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token)}
    before = table.messages("shared")
    with Backend("--gateway", front.url, *table.args("shared"), env=env) as backend:
        check("Pod Identity: the table is found", until(lambda: backend.record("table is ready"), 15),
              backend.log_text()[-500:])
        post(backend.url("/"), "pod")
        token.write_text("second")
        until(lambda: len(agent.seen) >= 3, 15)
        post(backend.url("/"), "pod")
        equal("Pod Identity: counted before and after a renewal", table.messages("shared"), before + 2)
        tokens = [seen[2].get("Authorization") for seen in agent.seen]
        check("Pod Identity: the token is read again", tokens[0] == "first" and tokens[-1] == "second", tokens)
        check("Pod Identity: no secret in the log", not any(
            secret in backend.log_text() for secret in secrets))
    agent.close()


def given_by_sts(table, front):
    """IRSA: a role for a web identity."""
    token = SCRATCH / "web-token"
    token.write_text("header.body.sign_ature")

    def give(_method, _path, _headers, body):
        good = b"Action=AssumeRoleWithWebIdentity&" in body and b"WebIdentityToken=header.body.sign_ature" in body
        if not good or b"RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr" not in body:
            return 403, b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"
        lent = table.lent()
        return 200, (
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
            f"<AccessKeyId>{lent['AccessKeyId']}</AccessKeyId>"
            f"<SecretAccessKey>{lent['SecretAccessKey']}</SecretAccessKey>"
            f"<SessionToken>{lent['SessionToken']}</SessionToken><Expiration>{expiry(3600)}</Expiration>"
            "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>").encode()
    sts = Web(give)
    env = {"AWS_REGION": REGION, "AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_ENDPOINT_URL_STS": sts.url,
           "AWS_WEB_IDENTITY_TOKEN_FILE": str(token)}
    before = table.messages("shared")
    with Backend("--gateway", front.url, *table.args("shared"), env=env) as backend:
        until(lambda: backend.record("table is ready"), 15)
        post(backend.url("/"), "irsa")
        equal("IRSA: counted", table.messages("shared"), before + 1)
    env["AWS_ROLE_ARN"] = "arn:aws:iam::1:role/other"
    with Backend("--gateway", front.url, *table.args("shared"), env=env) as backend:
        check("IRSA: the log names the refusal", until(lambda: "AccessDenied" in backend.log_text(), 15))
        equal("IRSA: … and messages are answered", post(backend.url("/"), "irsa"), (200, b"default"))
    sts.close()


def with_dynalite():
    table = dynalite()
    if not check("dynalite is up", table is not None):
        return
    shared_table("dynalite", table)
    with_trouble(table)
    missing = launch([harness.BINARY, "backend", "--listen", "127.0.0.1:0", *table.args("nothing")],
                     env=harness.clean_environment(table.env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = missing.communicate(timeout=10)[0].decode()
    check("a missing table: exit 1 and a remedy",
          missing.returncode == 1 and "table nothing does not exist" in output and "--create-table" in output, output)


def with_trouble(table):
    """A proxy that throttles, and one that goes away for a while."""
    front, left, lock = gateway(), [40], threading.Lock()

    def spoil(operation):
        with lock:
            if operation == "UpdateItem" and left[0] > 0:
                left[0] -= 1
                codes = ["ProvisionedThroughputExceededException", "ThrottlingException"]
                return fault(codes[left[0] % 2])
        return None
    between = proxy(table.port, spoil)
    args = ["--gateway", front.url, "--sessions", "dynamodb:shared", "--dynamodb-endpoint", between.url]
    with Backend(*args, env=table.env) as backend:
        url = backend.url("/")
        until(lambda: backend.record("table is ready"), 15)
        before = table.messages("shared")
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda n: post(url, f"t{n}"), range(20)))
        equal("throttled: all are answered", set(answers), {(200, b"default")})
        lost = metric(backend, "backend_session_errors_total")
        check("throttled: a retried request counts once", lost <= 4 and
              table.messages("shared") == before + 20 - lost, (lost, table.messages("shared") - before))
        # The table is unreachable from here on.
        between.close()
        began = time.monotonic()
        answers = [post(url, "out") for _ in range(10)]
        took_s = time.monotonic() - began
        equal("outage: messages are answered", set(answers), {(200, b"default")})
        check("outage: … and soon no message waits for the table", took_s < 12, f"{took_s:.1f} s")
        equal("outage: /readyz", fetch(backend.url("/readyz")), (200, "OK, sessions degraded\n"))
        check("outage: counted", metric(backend, "backend_session_errors_total") >= lost + 10
              and metric(backend, "backend_sessions_degraded") == 1)
        between = proxy(table.port, lambda _: None, between.port)
        check("outage: its end is noticed without a message",
              until(lambda: fetch(backend.url("/readyz")) == (200, "OK\n"), 40), backend.log_text()[-400:])
        before = table.messages("shared")
        post(url, "out")
        equal("outage: … then messages are counted again", table.messages("shared"), before + 1)
    between.close()
    front.close()


if __name__ == "__main__":
    harness.require_binary()
    section(texts)
    section(behind_our_gateway)
    section(with_dynalite)
    section(with_moto)
    harness.finish()

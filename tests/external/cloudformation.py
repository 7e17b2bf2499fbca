#!/usr/bin/env -S python3 -B
"""deploy/cloudformation: the template in cfn-lint, which knows every property of every resource; the
mapping of messages to JSON, in a Velocity engine; and the permissions of the backend, against a
table that enforces them.

    tests/external/cloudformation.py
"""

import json
import re
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import tools

PYTHON = tools.venv("cloudformation", ["cfn-lint>=1.58,<2", "airspeed>=0.6,<1",
                                       "moto[server]>=5,<6", "boto3"])
tools.install_only()
tools.rerun_inside(PYTHON)

import airspeed
import boto3
from botocore.exceptions import ClientError
from cfnlint.decode import cfn_yaml

import harness
from harness import ROOT, SCRATCH, check, equal, free_port, launch, section

PATH = ROOT / "deploy" / "cloudformation" / "websocket-eks.yaml"
GUIDE = ROOT / "deploy" / "kubernetes" / "websocket-eks-aws.yaml"
# Texts that must be escaped in a JSON string, or that look like its end.
MESSAGES = ["hello", "", "it's me", 'say "hello"', "back\\slash", "a\\'b", "line\nend\r\n", "tab\there",
            "☃ 😀", "</script>", "$context.stage", '","domain":"evil.example', "\\u0041", "\x07\x1f"]


def linted(path):
    done = harness.subprocess.run([PYTHON.with_name("cfn-lint"), "--include-checks", "I", "--", path],
                                  stdin=-3, stdout=-1, stderr=-2, text=True, timeout=60)
    return done.returncode, done.stdout


def lint():
    code, output = linted(PATH)
    check("cfn-lint finds nothing", code == 0 and not output.strip(), output)
    for what, (old, new) in {"a property": ("TimeToLiveSpecification:", "TimeToLive:"),
                             "a value": ("KeyType: HASH", "KeyType: HASHED"),
                             "a reference": ("!Ref Sessions", "!Ref Session")}.items():
        wrong = SCRATCH / "wrong.yaml"
        wrong.write_text(PATH.read_text().replace(old, new))
        check(f"… and finds {what} that is wrong", linted(wrong)[0] != 0)


def template():
    return json.loads(json.dumps(cfn_yaml.load(str(PATH))))


# ---- messages ------------------------------------------------------------------------------------

class JavaText(str):
    """A string with the methods of Java's that the template calls."""

    def replaceAll(self, pattern, new):
        return JavaText(re.sub(pattern, lambda _: new, self))


class Util:
    """Apache Commons' escapeJavaScript, which API Gateway documents."""

    def escapeJavaScript(self, text):
        short = {"\b": "\\b", "\n": "\\n", "\t": "\\t", "\f": "\\f", "\r": "\\r", '"': '\\"',
                 "'": "\\'", "\\": "\\\\", "/": "\\/"}
        units = text.encode("utf-16-be")
        letters = [int.from_bytes(units[at:at + 2]) for at in range(0, len(units), 2)]
        return JavaText("".join(
            short.get(chr(unit)) or (chr(unit) if 32 <= unit < 127 else f"\\u{unit:04X}")
            for unit in letters))


def messages(resources):
    """The sample's JSON, for any text that a client sends."""
    own = resources["Default"]["Properties"]["RequestTemplates"]["$default"]
    # Velocity keeps a backslash in a literal, airspeed reads two as one.
    own = own.replace("\\", "\\\\")
    context = {"connectionId": "id=", "domainName": "x.example", "stage": "prod"}
    wrong = {}
    for message in MESSAGES:
        made = airspeed.Template(own).merge({"context": context, "util": Util(),
                                             "input": {"body": JavaText(message)}})
        wanted = {"myConnectionIdProperty": "id=", "myBody": message, "domain": "x.example",
                  "stage": "prod"}
        try:
            if json.loads(made) != wanted:
                wrong[message] = made
        except ValueError as error:
            wrong[message] = f"{error}: {made}"
    equal(f"{len(MESSAGES)} messages arrive as they were sent", wrong, {})


# ---- the rest ------------------------------------------------------------------------------------

def routes(resources):
    of = {name: own["Properties"] for name, own in resources.items()}
    targets = {own["RouteKey"]: own["Target"] for own in of.values() if "RouteKey" in own}
    equal("the three routes", set(targets), {"$connect", "$disconnect", "$default"})
    equal("the first two post to /connect, and its status refuses a handshake",
          (of["Connect"]["IntegrationType"], of["Connect"]["IntegrationMethod"],
           of["Connect"]["IntegrationUri"]), ("HTTP_PROXY", "POST", {"Fn::Sub": "${IntegrationUri}/connect"}))
    equal("all send the connection's id", [own["RequestParameters"].get(
        "integration.request.header.ConnectionId") for own in of.values() if "IntegrationType" in own],
          ["context.connectionId"] * 2)
    every = {f"{name}Route" for name in ("Connect", "Disconnect", "Default")}
    equal("deployed after all routes", set(resources["Deployment"]["DependsOn"]), every)


def rights(resources):
    """No wildcard for an action or a resource that could be named."""
    statements = resources["BackendPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    by_sid = {own["Sid"]: (own["Action"], json.dumps(own["Resource"])) for own in statements}
    actions, where = by_sid["AnswerClients"]
    check("callbacks: only POST, only of this API and stage", actions == "execute-api:ManageConnections"
          and re.search(r":\$\{Api\}/\$\{StageName\}/POST/@connections/\*", where), where)
    equal("sessions: the backend's actions, on this table only", by_sid["KeepSessions"],
          (["dynamodb:DescribeTable", "dynamodb:UpdateItem", "dynamodb:DeleteItem"],
           json.dumps({"Fn::GetAtt": ["Sessions", "Arn"]})))
    trust = resources["BackendRole"]["Properties"]["AssumeRolePolicyDocument"]["Fn::If"][1]["Fn::Sub"]
    condition = json.loads(trust)["Statement"][0]["Condition"]["StringEquals"]
    equal("IRSA: the token of one service account only", set(condition.values()),
          {"sts.amazonaws.com", "system:serviceaccount:${Namespace}:${ServiceAccount}"})
    table = resources["Sessions"]["Properties"]
    equal("the table: by connectionId, and items expire",
          (table["KeySchema"], table["TimeToLiveSpecification"]),
          ([{"AttributeName": "connectionId", "KeyType": "HASH"}],
           {"AttributeName": "expiresAt", "Enabled": True}))


# ---- rights, enforced ----------------------------------------------------------------------------

REGION = "eu-west-1"


def fetched(url, body=None, budget_s=10):
    """Status and body, as soon as the server answers."""
    end = time.monotonic() + budget_s
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


class Aws:
    """moto, which enforces policies; the table of the template, and a user with the permissions of its
    role and no others."""

    def __init__(self, resources):
        self.url = f"http://127.0.0.1:{free_port()}"
        env = harness.clean_environment() | {"INITIAL_NO_AUTH_ACTION_COUNT": "100"}
        launch([PYTHON.with_name("moto_server"), "--port", self.url.rpartition(":")[2]], env=env,
               stdin=-3, stdout=-3, stderr=-3)
        fetched(f"{self.url}/moto-api/data.json")
        table = resources["Sessions"]["Properties"]
        kept = {key: table[key] for key in ("KeySchema", "AttributeDefinitions", "BillingMode")}
        self.client("dynamodb").create_table(TableName="sessions", **kept)
        sessions = next(own for own in resources["BackendPolicy"]["Properties"]["PolicyDocument"][
            "Statement"] if own["Sid"] == "KeepSessions")
        # moto checks actions, but not the name of the table.
        policy = {"Version": "2012-10-17", "Statement": [sessions | {"Resource": "*"}]}
        iam = self.client("iam")
        iam.create_user(UserName="backend")
        iam.put_user_policy(UserName="backend", PolicyName="p", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName="backend")["AccessKey"]
        self.keys = key["AccessKeyId"], key["SecretAccessKey"]
        equal("moto enforces policies from here on", fetched(f"{self.url}/moto-api/reset-auth", b"0")[0], 200)

    def client(self, service, keys=("admin", "admin")):
        return boto3.client(service, endpoint_url=self.url, region_name=REGION,
                            aws_access_key_id=keys[0], aws_secret_access_key=keys[1])

    def refuses(self, action, **options):
        """Whether the call is refused for missing permissions."""
        try:
            getattr(self.client("dynamodb", self.keys), action)(TableName="sessions", **options)
            return False
        except ClientError as error:
            return "AccessDenied" in str(error) or str(error)


class Gone(BaseHTTPRequestHandler):
    """A gateway that answers every callback with 410."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.send_response(410)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def enforced(resources):
    aws, key = Aws(resources), {"Key": {"connectionId": {"S": "x"}}}
    equal("the role may not read, write or drop the table",
          {action: aws.refuses(action, **options) for action, options in {
              "scan": {}, "get_item": key, "put_item": {"Item": key["Key"]}, "delete_table": {}}.items()},
          dict.fromkeys(("scan", "get_item", "put_item", "delete_table"), True))
    one = {"UpdateExpression": "ADD messages :one", "ExpressionAttributeValues": {":one": {"N": "1"}}}
    equal("… but it allows what the backend does", [aws.refuses("describe_table"),
          aws.refuses("update_item", **key, **one), aws.refuses("delete_item", **key)], [False] * 3)
    if not harness.wspulse("help", "backend")[1].count("--sessions "):
        return harness.not_run("the backend with only these permissions", "this build has none")
    gateway = ThreadingHTTPServer(("127.0.0.1", 0), Gone)
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{free_port()}"
    launch([harness.BINARY, "backend", f"--listen={address}", "--sessions=dynamodb:sessions",
            f"--dynamodb-endpoint={aws.url}", f"--gateway=http://127.0.0.1:{gateway.server_port}"],
           stdin=-3, stdout=-3, stderr=-3, env=harness.clean_environment({
               "AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": aws.keys[0],
               "AWS_SECRET_ACCESS_KEY": aws.keys[1]}))
    message = json.dumps({"myConnectionIdProperty": "id1", "myBody": "hi", "domain": "x",
                          "stage": "prod"}).encode()
    equal("the backend answers a message", fetched(f"http://{address}/", message), (200, "default"))
    equal("… and it can use its table", fetched(f"http://{address}/readyz"), (200, "OK\n"))
    end, page = time.monotonic() + 10, ""
    while time.monotonic() < end and "\nbackend_sessions_deleted_total 1\n" not in page:
        page = fetched(f"http://{address}/metrics")[1]
        time.sleep(0.1)
    counters = re.findall(r"^backend_session\S+ \S+$", page, re.M)
    check("… these permissions are enough: a session was created, and deleted with its connection", {
        "backend_sessions_created_total 1", "backend_sessions_deleted_total 1"} <= set(counters), counters)
    return gateway.shutdown()


def guide(whole):
    """The guide uses the names of the template."""
    text = GUIDE.read_text()
    named = set(re.findall(r"(?<![-\w])(\w+)=(?:http|oidc)", text))
    check("the guide's parameters", named and named <= set(whole["Parameters"]), named)
    outputs = {name for name in whole["Outputs"] if name in text}
    equal("the guide uses every output", outputs, set(whole["Outputs"]))


def main():
    section(lint)
    whole = template()
    for group in (messages, routes, rights, enforced):
        section(group, whole["Resources"])
    section(guide, whole)
    harness.finish()


main()

#!/usr/bin/env -S python3 -B
"""deploy/cloudformation: the template before cfn-lint, which knows every property of every resource;
the mapping of messages to JSON, by an engine of the same language; and who may do what.

    tests/external/cloudformation.py
"""

import json
import re

import tools

PYTHON = tools.venv("cloudformation", ["cfn-lint>=1.58,<2", "airspeed>=0.6,<1"])
tools.install_only()
tools.rerun_inside(PYTHON)

import airspeed
from cfnlint.decode import cfn_yaml

import harness
from harness import ROOT, SCRATCH, check, equal, section

PATH = ROOT / "deploy" / "cloudformation" / "websocket-eks.yaml"
GUIDE = ROOT / "deploy" / "kubernetes" / "websocket-eks-aws.yaml"
# What breaks a string of JSON, or looks as if it were a string's end.
MESSAGES = ["hello", "", "it's me", 'say "hello"', "back\\slash", "a\\'b", "line\nend\r\n", "tab\there",
            "☃ 😀", "</script>", "$context.stage", '","domain":"evil.example', "\\u0041", "\x07\x1f"]


def linted(path):
    done = harness.subprocess.run([PYTHON.with_name("cfn-lint"), "--include-checks", "I", "--", path],
                                  stdin=-3, stdout=-1, stderr=-2, text=True, timeout=60)
    return done.returncode, done.stdout


def lint():
    code, said = linted(PATH)
    check("cfn-lint finds nothing", code == 0 and not said.strip(), said)
    for what, (old, new) in {"a property": ("TimeToLiveSpecification:", "TimeToLive:"),
                             "a value": ("KeyType: HASH", "KeyType: HASHED"),
                             "a reference": ("!Ref Sessions", "!Ref Session")}.items():
        wrong = SCRATCH / "wrong.yaml"
        wrong.write_text(PATH.read_text().replace(old, new))
        check(f"… and would find {what} that is wrong", linted(wrong)[0] != 0)


def template():
    return json.loads(json.dumps(cfn_yaml.load(str(PATH))))


# ---- messages ------------------------------------------------------------------------------------

class JavaText(str):
    """A string with what the template asks of Java's."""

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
    """The sample's JSON, whatever a client says."""
    own = resources["Default"]["Properties"]["RequestTemplates"]["$default"]
    # Velocity leaves a backslash in a literal alone, airspeed takes two for one.
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
    equal("all say whose connection it is", [own["RequestParameters"].get(
        "integration.request.header.ConnectionId") for own in of.values() if "IntegrationType" in own],
          ["context.connectionId"] * 2)
    every = {f"{name}Route" for name in ("Connect", "Disconnect", "Default")}
    equal("deployed when all routes are there", set(resources["Deployment"]["DependsOn"]), every)


def rights(resources):
    """No action and no resource with a star where it could be named."""
    statements = resources["BackendPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    said = {own["Sid"]: (own["Action"], json.dumps(own["Resource"])) for own in statements}
    actions, where = said["AnswerClients"]
    check("callbacks: only POST, only of this API and stage", actions == "execute-api:ManageConnections"
          and re.search(r":\$\{Api\}/\$\{StageName\}/POST/@connections/\*", where), where)
    equal("sessions: what the backend does, with this table", said["KeepSessions"],
          (["dynamodb:DescribeTable", "dynamodb:UpdateItem", "dynamodb:DeleteItem"],
           json.dumps({"Fn::GetAtt": ["Sessions", "Arn"]})))
    trust = resources["BackendRole"]["Properties"]["AssumeRolePolicyDocument"]["Fn::If"][1]["Fn::Sub"]
    condition = json.loads(trust)["Statement"][0]["Condition"]["StringEquals"]
    equal("IRSA: one service account, and nobody else's token", set(condition.values()),
          {"sts.amazonaws.com", "system:serviceaccount:${Namespace}:${ServiceAccount}"})
    table = resources["Sessions"]["Properties"]
    equal("the table: by connectionId, and items expire",
          (table["KeySchema"], table["TimeToLiveSpecification"]),
          ([{"AttributeName": "connectionId", "KeyType": "HASH"}],
           {"AttributeName": "expiresAt", "Enabled": True}))


def guide(whole):
    """The guide's names are the template's."""
    text = GUIDE.read_text()
    named = set(re.findall(r"(?<![-\w])(\w+)=(?:http|oidc)", text))
    check("the guide's parameters", named and named <= set(whole["Parameters"]), named)
    outputs = {name for name in whole["Outputs"] if name in text}
    equal("the guide uses every output", outputs, set(whole["Outputs"]))


def main():
    section(lint)
    whole = template()
    for group in (messages, routes, rights):
        section(group, whole["Resources"])
    section(guide, whole)
    harness.finish()


main()

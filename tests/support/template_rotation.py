"""
What has to be true of the template for secrets to rotate, and for somebody to hear if they do not?

Each contract yields what is wrong with one stack.  They are what linters do not see: a template that breaks
one is valid, is deployed, and does not work.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from infra.wheels import PYTHON
from ledger_db.answers.secret import Secret, SecretProblem
from ledger_db.rotation import journal
from ledger_db.rotation.events import moved_in
from ledger_db.rotation.protocol import Tools
from ledger_db.rotation.strategies import STRATEGIES, strategy_of
from tests.support.lambda_calls import awscurrent_moved
from tests.support.template_stacks import Stack

PROJECT = Path(__file__).resolve().parents[2]
ROTATION = PROJECT / "ledger_db" / "rotation"
_CRON = re.compile(r"cron\(0 (\d{1,2}|\d{0,2}/\d{1,2}) [\d,\-*?/L]+ [\dA-Z,\-*/]+ [\dA-Z#,\-*?/L]+ \*\)")
_SECRET = "AWS::SecretsManager::Secret"
_SCHEDULE = "AWS::SecretsManager::RotationSchedule"
_FUNCTION = "AWS::Lambda::Function"
_FILTER = "AWS::Logs::MetricFilter"
_ALARM = "AWS::CloudWatch::Alarm"


@cache
def source() -> str:
    """Return the text of everything that runs in the functions."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(ROTATION.glob("*.py")))


def rotated(stack: Stack) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the secrets that have fields, which are those that rotate."""
    for name, properties in stack.of_type(_SECRET):
        if "SecretStringTemplate" in properties.get("GenerateSecretString", {}):
            yield name, properties


def a_rotator_takes_every_secret(stack: Stack) -> Iterator[str]:
    """The rotation function finds in a secret what it needs."""
    tools = Tools(read_secret=lambda name: Secret(name, "v", {}), client=lambda service: None)
    for name, properties in rotated(stack):
        generated = properties["GenerateSecretString"]
        try:
            # What refers to something that is made has the form of no host until it is made.
            template = re.sub(r'"\{[\w.]+\}"', '"made.example"', generated["SecretStringTemplate"])
            fields = json.loads(template)
            secret = Secret(name, "v", {**fields, generated.get("GenerateStringKey", ""): "made-up"})
            STRATEGIES[strategy_of(secret)](tools).next_secret(secret)
            assert secret.password
        except (ValueError, SecretProblem) as error:
            yield f"{name} cannot be rotated: {error}"


def no_secret_is_left_out(stack: Stack) -> Iterator[str]:
    """Nothing is left out."""
    wanted = 1 if stack.parameters["Redis"] == "none" else 3
    if len(list(rotated(stack))) != wanted:
        yield f"not {wanted} secrets with fields"


def passwords_are_long(stack: Stack) -> Iterator[str]:
    """No server refuses a password, and nobody guesses one."""
    for name, properties in stack.of_type(_SECRET):
        generated = properties.get("GenerateSecretString", {})
        if not 32 <= generated.get("PasswordLength", 0) <= 128:
            yield f"{name} has no password of 32 to 128 characters"
        if generated.get("ExcludePunctuation") is not True:
            yield f"{name} may get signs that a server refuses"


def schedules_are_understood(stack: Stack) -> Iterator[str]:
    """Secrets Manager takes the schedule, and nothing rotates by surprise."""
    for name, properties in stack.of_type(_SCHEDULE):
        rules = properties["RotationRules"]
        if set(rules) != {"ScheduleExpression", "Duration"}:
            yield f"{name} has other rules than a schedule and its duration"
        elif not _CRON.fullmatch(rules["ScheduleExpression"]):
            yield f"{name} has no cron() of Secrets Manager: {rules['ScheduleExpression']}"
        if properties.get("RotateImmediatelyOnUpdate") is not False:
            yield f"{name} rotates whenever the stack is changed"
        if "HostedRotationLambda" in properties:
            yield f"{name} is rotated by somebody else's function"


def every_secret_has_its_schedule(stack: Stack) -> Iterator[str]:
    """With rotation enabled each secret rotates; before, none."""
    scheduled = [properties["SecretId"] for _, properties in stack.of_type(_SCHEDULE)]
    wanted = (
        [f"{{{name}}}" for name, _ in rotated(stack)] if stack.parameters["Rotation"] == "enabled" else []
    )
    if sorted(scheduled) != sorted(wanted):
        yield f"schedules are for {scheduled}, not {wanted}"


def secrets_manager_may_call(stack: Stack) -> Iterator[str]:
    """The permission is there before the schedule, and is for this account only."""
    granted = {
        name: properties["FunctionName"]
        for name, properties in stack.of_type("AWS::Lambda::Permission")
        if properties.get("Principal") == "secretsmanager.amazonaws.com"
        and properties.get("Action") == "lambda:InvokeFunction"
        and properties.get("SourceAccount") == "123456789012"
    }
    for name, properties in stack.of_type(_SCHEDULE):
        before = stack.resources[name].get("DependsOn", [])
        called = [granted.get(other) for other in ([before] if isinstance(before, str) else before)]
        if properties["RotationLambdaARN"] not in called:
            yield f"{name} may be made before Secrets Manager may call {properties['RotationLambdaARN']}"


def functions_can_run(stack: Stack) -> Iterator[str]:
    """The handler is there, for the Python and machine of the zip, with time enough to end with a message."""
    for name, properties in stack.of_type(_FUNCTION):
        module, _, function = properties["Handler"].rpartition(".")
        path = PROJECT / f"{module.replace('.', '/')}.py"
        if not path.is_file() or f"\ndef {function}(" not in path.read_text(encoding="utf-8"):
            yield f"{name} has no handler {properties['Handler']}"
        if properties["Runtime"] != f"python{PYTHON}":
            yield f"{name} runs another Python than the zip is for"
        if not 30 <= properties.get("Timeout", 3) <= 900:
            yield f"{name} is ended before it can say what went wrong"
        if "ReservedConcurrentExecutions" not in properties:
            yield f"{name} may run any number of times at once"
        if properties.get("Architectures") != [stack.parameters["Architecture"]]:
            yield f"{name} runs on another machine than the zip is for"


def functions_are_configured(stack: Stack) -> Iterator[str]:
    """Every variable is one that the code reads, and the functions know their secrets and whom to tell."""
    environments = {
        name: what["Environment"]["Variables"]
        for name, what in stack.of_type(_FUNCTION)
        if "Environment" in what
    }
    for name, variables in environments.items():
        for variable in variables:
            stem = variable.removeprefix("LEDGER_DB_ROTATION_")
            if f'"{variable}"' not in source() and f'"{stem}"' not in source():
                yield f"{name} has a variable that nobody reads: {variable}"
    secrets = {f"{{{name}}}" for name, _ in rotated(stack)}
    listed = environments["RotationFunction"].get("LEDGER_DB_ROTATION_SECRETS", "").split(",")
    if set(listed) != secrets:
        yield f"the function may rotate {listed}, not {secrets}"
    if stack.parameters["Redis"] != "none":
        for name, variables in environments.items():
            if variables.get("LEDGER_DB_ANNOUNCEMENTS_SECRET_ID") != "{AnnounceSecret}":
                yield f"{name} does not know whom to tell"


def matches(pattern: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Whether EventBridge would say that *event* matches; lists of values and nothing finer."""
    for key, wanted in pattern.items():
        found = event.get(key)
        if isinstance(wanted, Mapping):
            if not isinstance(found, Mapping) or not matches(wanted, found):
                return False
        elif not {*(found if isinstance(found, list) else [found])} & set(wanted):
            return False
    return True


def moves_of_awscurrent_are_announced(stack: Stack) -> Iterator[str]:
    """The rule catches what Secrets Manager sends, for every secret of ours and no other, and hands it on."""
    rules = dict(stack.of_type("AWS::Events::Rule"))
    for name, _ in rotated(stack):
        event = awscurrent_moved(f"{{{name}}}", "v2")
        assert moved_in(event)
        others = [{**event, "resources": ["another"]}, {**event, "detail": {"labelUpdated": "custom"}}]
        for rule, properties in rules.items():
            if not matches(properties["EventPattern"], event):
                yield f"{rule} does not see {name} change"
            if any(matches(properties["EventPattern"], other) for other in others):
                yield f"{rule} sees what is none of its business"
    if len(rules) != (stack.parameters["Redis"] != "none"):
        yield "there is no rule, or nobody to be told"


def events_arrive_or_are_kept(stack: Stack) -> Iterator[str]:
    """The rule may call its function, and what cannot be delivered is seen."""
    for rule, properties in stack.of_type("AWS::Events::Rule"):
        for target in properties["Targets"]:
            may = [
                granted
                for _, granted in stack.of_type("AWS::Lambda::Permission")
                if granted.get("Principal") == "events.amazonaws.com"
                and granted["FunctionName"] == target["Arn"]
                and granted.get("SourceArn") == f"{{{rule}.Arn}}"
            ]
            if not may:
                yield f"{rule} may not call {target['Arn']}"
            if "DeadLetterConfig" not in target:
                yield f"{rule} loses what it cannot deliver"
        policies = [what["PolicyDocument"]["Statement"] for _, what in stack.of_type("AWS::SQS::QueuePolicy")]
        if f"{{{rule}.Arn}}" not in json.dumps(policies):
            yield f"{rule} may not keep what it cannot deliver"


@cache
def logged_events() -> frozenset[str]:
    """Return every text in the functions' code that may be the name of an event."""
    return frozenset(
        node.value
        for node in ast.walk(ast.parse(source()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def filters_find_something(stack: Stack) -> Iterator[str]:
    """A metric is made of a line that the functions do write."""
    figures = journal.metrics_line({"CredentialGapMs": 1}, dimensions={})
    for name, properties in stack.of_type(_FILTER):
        pattern = properties["FilterPattern"]
        either = [
            re.fullmatch(r'\(?\$\.event = "([a-z_.]+)"\)?', each) for each in pattern[2:-2].split(" || ")
        ]
        figure = re.fullmatch(r"\{ \$\.(\w+) >= 0 \}", pattern)
        is_logged = all(event is not None and event[1] in logged_events() for event in either)
        if not is_logged and not (figure and f'"{figure[1]}"' in figures):
            yield f"{name} looks for a line that nobody writes: {pattern}"
        if properties["LogGroupName"].strip("{}") not in stack.resources:
            yield f"{name} looks into a log that is not there"


def alarms_can_ring(stack: Stack) -> Iterator[str]:
    """An alarm watches a metric that exists, and every metric that is made is watched."""
    made = {
        (metric["MetricNamespace"], metric["MetricName"])
        for _, properties in stack.of_type(_FILTER)
        for metric in properties["MetricTransformations"]
    }
    functions = {f"{{{name}}}" for name, _ in stack.of_type(_FUNCTION)}
    watched = set()
    for name, properties in stack.of_type(_ALARM):
        metric = (properties["Namespace"], properties["MetricName"])
        of = {dimension["Value"] for dimension in properties.get("Dimensions", [])}
        watched.add(metric)
        known = metric in made or (metric == ("AWS/Lambda", "Errors") and of <= functions and of)
        if not known and metric != ("AWS/SQS", "ApproximateNumberOfMessagesVisible"):
            yield f"{name} watches what does not exist: {metric}"
        if properties["ComparisonOperator"] != "GreaterThanThreshold":
            yield f"{name} rings when all is well"
        if properties.get("TreatMissingData") != "notBreaching":
            yield f"{name} rings when nothing happens"
    if missing := made - watched:
        yield f"nobody watches {sorted(missing)}"
    if ("AWS/Lambda", "Errors") not in watched:
        yield "nobody sees a function that cannot run"


CONTRACTS = (
    a_rotator_takes_every_secret,
    no_secret_is_left_out,
    passwords_are_long,
    schedules_are_understood,
    every_secret_has_its_schedule,
    secrets_manager_may_call,
    functions_can_run,
    functions_are_configured,
    moves_of_awscurrent_are_announced,
    events_arrive_or_are_kept,
    filters_find_something,
    alarms_can_ring,
)

"""Does the CloudFormation template make what rotates passwords, whatever is chosen?"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import template_access, template_life, template_rotation
from tests.support.template_faults import MORE, SEEDED, Fault
from tests.support.template_stacks import GIVEN, SCENARIOS, Dangling, Stack, load, stacks

PROJECT = Path(__file__).resolve().parents[2]
PATH = PROJECT / "infra" / "template.yaml"
TEMPLATE = load(PATH)
CONTRACTS = (
    *template_rotation.CONTRACTS,
    *template_access.CONTRACTS,
    *template_life.CONTRACTS,
)
# What CloudFormation takes in the call itself.
MOST_BYTES = 51_200


def problems(template: Mapping[str, Any]) -> Iterator[str]:
    """Yield what any contract says against any stack of *template*."""
    for scenario, stack in stacks(template).items():
        for contract in CONTRACTS:
            try:
                for problem in contract(stack):
                    yield f"{contract.__name__}, {scenario}: {problem}"
            except (Dangling, LookupError) as error:
                yield f"{contract.__name__}, {scenario}: {type(error).__name__} {error}"


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
def test_a_stack_keeps_the_contract(contract: Any) -> None:
    """Every contract holds, whatever is chosen."""
    broken = {name: list(contract(stack)) for name, stack in stacks(TEMPLATE).items()}

    assert broken == {name: [] for name in SCENARIOS}


@pytest.mark.parametrize("fault", SEEDED + MORE, ids=str)
def test_a_fault_is_noticed(fault: Fault) -> None:
    """The contracts see the usual mistakes, which linters do not."""
    assert next(problems(fault.made_in(TEMPLATE)), None) is not None


def test_the_faults_are_the_seventeen_and_more() -> None:
    """No fault of the first trial was dropped."""
    assert len(SEEDED) == 17
    assert len({str(fault) for fault in SEEDED + MORE}) == len(SEEDED + MORE)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_refers_to_what_is_not_made(scenario: str) -> None:
    """Every combination of choices is a whole stack, outputs included."""
    stack = stacks(TEMPLATE)[scenario]

    assert stack.resources
    assert stack.outputs
    assert list(stack.broken_rules()) == []


@pytest.mark.parametrize(
    ("chosen", "missing"),
    [
        ({"Database": "rds"}, {"DatabaseHost", "DatabaseAdminSecretArn", "DatabaseSecurityGroupId"}),
        ({"Redis": "other"}, {"RedisHost", "RedisSecurityGroupId"}),
        ({"Redis": "elasticache"}, {"RedisHost", "RedisSecurityGroupId", "RedisUserId"}),
        ({"DatabaseSecondRole": "ledger_a"}, {"DatabaseFirstRole"}),
    ],
)
def test_what_is_missing_is_said_before_anything_is_made(chosen: dict[str, str], missing: set[str]) -> None:
    """A server that exists and is not described is refused at once, by the name of the parameter."""
    said = " ".join(Stack(TEMPLATE, {**GIVEN, **chosen}).broken_rules())

    assert {name for name in TEMPLATE["Parameters"] if name in said} >= missing


@pytest.mark.parametrize("name", TEMPLATE["Parameters"])
def test_a_parameter_is_validated(name: str) -> None:
    """A typing error ends at the parameter, and a default is one that is allowed."""
    parameter = TEMPLATE["Parameters"][name]
    pattern, allowed, default = (parameter.get(key) for key in ("AllowedPattern", "AllowedValues", "Default"))

    assert (
        pattern or allowed or "MinValue" in parameter or parameter["Type"].startswith(("AWS::", "List<AWS::"))
    )
    if default is not None:
        assert pattern is None or re.fullmatch(pattern, str(default))
        assert allowed is None or default in allowed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DatabaseSchedule", "rate(30 days)"),
        ("DatabaseSchedule", "cron(15 3 1 * ? *)"),
        ("DatabaseFirstRole", 'a", "username": "postgres'),
        ("DatabaseHost", 'db" , "masterarn": "'),
        ("RedisUsername", "default user"),
        ("Name", "Ledger"),
        ("Name", "a--b"),
        ("DatabaseAdminSecretArn", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:admin"),
    ],
)
def test_a_value_that_would_do_harm_is_refused(name: str, value: str) -> None:
    """Neither a schedule that Secrets Manager does not know nor a quote in a secret gets through."""
    assert re.fullmatch(TEMPLATE["Parameters"][name]["AllowedPattern"], value) is None


def test_it_is_plain_cloudformation() -> None:
    """No macro, nobody else's rotation function, no alias; small enough for one call."""
    text = PATH.read_text(encoding="utf-8")

    assert "Transform" not in TEMPLATE
    assert "HostedRotationLambda" not in text
    assert not re.search(r"(?:^|[\s\[{])[&*][a-z-]+\s*$", text, re.MULTILINE)
    assert len(text.encode()) <= MOST_BYTES


def test_a_linter_is_silenced_with_a_reason() -> None:
    """Nobody has to guess why a check does not apply."""
    for name, resource in TEMPLATE["Resources"].items():
        for skipped in resource.get("Metadata", {}).get("checkov", {}).get("skip", []):
            assert re.fullmatch(r"CKV2?_AWS_\d+", skipped["id"]), name
            assert len(skipped["comment"]) > 20, name


def permissions() -> set[str]:
    """Return every action that the template allows anybody."""
    found: set[str] = set()
    for stack in stacks(TEMPLATE).values():
        for holder in template_access.holders(stack):
            found |= template_access.actions_of(template_access.statements_of(stack, holder))
    return found


def test_every_permission_is_explained() -> None:
    """The table says of each permission which call needs it, and of no other."""
    page = (PROJECT / "docs" / "infrastructure.md").read_text(encoding="utf-8")
    explained = {
        action
        for row in re.findall(r"^\| (`\w+:.*?) \|", page, re.MULTILINE)
        for action in re.findall(r"`(\S+)`", row)
    }

    assert explained == permissions()


def test_the_default_choice_is_the_safe_one() -> None:
    """Who chooses nothing gets two roles, two zones, no rotation before the servers know the passwords."""
    stack = Stack(TEMPLATE, GIVEN)

    assert '"postgres-alternating"' in json.dumps(stack.resources["DatabaseSecret"]).replace("\\", "")
    assert stack.resources["DatabaseServer"]["Properties"]["MultiAZ"] == "true"
    assert "DatabaseRotation" not in stack.resources

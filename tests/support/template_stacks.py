"""What does CloudFormation make of a template, with these parameters?"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped] # it comes without types

NO_VALUE = object()
PSEUDO: Mapping[str, Any] = {
    "AWS::AccountId": "123456789012",
    "AWS::NoValue": NO_VALUE,
    "AWS::Partition": "aws",
    "AWS::Region": "eu-west-1",
    "AWS::StackName": "stack",
    "AWS::URLSuffix": "amazonaws.com",
}
# What a person has to give, and then what they may choose.
GIVEN: Mapping[str, str] = {
    "CodeBucket": "code-of-somebody",
    "CodeKey": "ledger-db/0123.zip",
    "VpcId": "vpc-0123456789abcdef0",
    "SubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
}
_EXISTING_DATABASE = {
    "DatabaseHost": "db.example.com",
    "DatabaseAdminSecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:admin-AbC123",
    "DatabaseSecurityGroupId": "sg-0123456789abcdef0",
}
_EXISTING_REDIS = {"RedisHost": "redis.example.com", "RedisSecurityGroupId": "sg-0123456789abcdef1"}
_REDIS_ADMIN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:redis-admin-AbC123"
_KEY = "arn:aws:kms:eu-west-1:123456789012:key/0123"
SCENARIOS: Mapping[str, Mapping[str, str]] = {
    "everything is made": {
        "Rotation": "enabled",
        "EndpointCidr": "10.0.0.0/16",
        "DatabaseProtected": "true",
    },
    "rotation is not enabled yet": {},
    "one role": {"Rotation": "enabled", "DatabaseStrategy": "postgres-single"},
    "no redis": {"Rotation": "enabled", "Redis": "none", "AdminKeyArn": _KEY},
    "servers of AWS that exist": {
        **_EXISTING_DATABASE,
        **_EXISTING_REDIS,
        "Rotation": "enabled",
        "Database": "rds",
        "Redis": "elasticache",
        "RedisUserId": "ledger-app",
        "EndpointCidr": "10.0.0.0/16",
    },
    "servers of one's own": {
        **_EXISTING_DATABASE,
        **_EXISTING_REDIS,
        "Rotation": "enabled",
        "Database": "other",
        "Redis": "other",
        "RedisAdminSecretArn": _REDIS_ADMIN,
        "AdminKeyArn": _KEY,
        "AlarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:alarms",
        "EndpointCidr": "10.0.0.0/16",
    },
    "a redis user that changes its own password": {
        **_EXISTING_REDIS,
        "Rotation": "enabled",
        "Redis": "other",
    },
}


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # as above
    """Reads the short forms too."""


def _short_form(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_form)


def load(path: Path) -> dict[str, Any]:
    """Read a template, with every function in its long form."""
    template: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    return template


class Dangling(Exception):
    """The template refers to what is not there; CloudFormation would refuse it, or fail half way."""


@dataclass(frozen=True)
class Stack:
    """
    A template with parameters: what CloudFormation would make.

    A reference to a resource is its logical id in braces, ``{Key}``; one of its attributes ``{Key.Arn}``.
    """

    template: Mapping[str, Any]
    given: Mapping[str, str]

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """Every parameter's value."""
        declared = self.template["Parameters"]
        values = {name: self.given.get(name, what.get("Default")) for name, what in declared.items()}
        if missing := [name for name, value in values.items() if value is None]:
            raise Dangling(f"no value for {missing}")
        return {
            name: value.split(",") if "List" in declared[name]["Type"] else value
            for name, value in values.items()
        }

    @cached_property
    def _made_resources(self) -> frozenset[str]:
        return frozenset(name for name, _ in self._made(self.template["Resources"]))

    @cached_property
    def resources(self) -> Mapping[str, Mapping[str, Any]]:
        """The resources that are made, each whole."""
        return {name: self._evaluate(what) for name, what in self._made(self.template["Resources"])}

    @cached_property
    def outputs(self) -> Mapping[str, Mapping[str, Any]]:
        """The outputs."""
        return {name: self._evaluate(what) for name, what in self._made(self.template["Outputs"])}

    def of_type(self, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield name and properties of every resource of a kind."""
        for name, what in self.resources.items():
            if what["Type"] == kind:
                yield name, what["Properties"]

    def broken_rules(self) -> Iterator[str]:
        """Yield what the Rules say against the parameters."""
        for rule in self.template["Rules"].values():
            if self._holds(rule.get("RuleCondition", {"Fn::Equals": ["", ""]})):
                for assertion in rule["Assertions"]:
                    if not self._holds(assertion["Assert"]):
                        yield assertion["AssertDescription"]

    def _made(self, section: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, what in section.items():
            if "Condition" not in what or self._condition(what["Condition"]):
                yield name, {key: value for key, value in what.items() if key != "Condition"}

    def _condition(self, name: str) -> bool:
        if name not in self.template["Conditions"]:
            raise Dangling(f"there is no condition {name}")
        return self._holds(self.template["Conditions"][name])

    def _holds(self, condition: Mapping[str, Any]) -> bool:
        ((function, value),) = condition.items()
        match function:
            case "Condition":
                return self._condition(value)
            case "Fn::Equals":
                one, other = map(self._evaluate, value)
                return bool(one == other)
            case "Fn::Not":
                return not self._holds(value[0])
            case "Fn::And":
                return all(map(self._holds, value))
            case "Fn::Or":
                return any(map(self._holds, value))
        raise Dangling(f"there is no function {function} for conditions")

    def _evaluate(self, node: Any) -> Any:
        if isinstance(node, list):
            return [value for value in map(self._evaluate, node) if value is not NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((function, value),) = node.items()
            if function == "Ref":
                return self._reference(value)
            if function.startswith("Fn::"):
                return self._call(function, value)
        found = {key: self._evaluate(value) for key, value in node.items()}
        return {key: value for key, value in found.items() if value is not NO_VALUE}

    def _call(self, function: str, value: Any) -> Any:
        match function:
            case "Fn::If":
                return self._evaluate(value[1] if self._condition(value[0]) else value[2])
            case "Fn::GetAtt":
                return self._reference(value[0], attribute=value[1])
            case "Fn::Sub":
                text, more = (value, {}) if isinstance(value, str) else value
                names = {name: self._evaluate(meant) for name, meant in more.items()}
                return re.sub(r"\$\{([\w:.]+)\}", lambda found: str(self._named(found[1], names)), text)
        raise Dangling(f"there is no function {function}")

    def _named(self, name: str, names: Mapping[str, Any]) -> Any:
        if name in names:
            return names[name]
        logical, _, attribute = name.partition(".")
        return self._reference(logical, attribute=attribute)

    def _reference(self, name: str, *, attribute: str = "") -> Any:
        if not attribute and name in PSEUDO:
            return PSEUDO[name]
        if not attribute and name in self.parameters:
            return self.parameters[name]
        if name not in self._made_resources:
            raise Dangling(f"{name} is referred to and is not made")
        return f"{{{name}{'.' * bool(attribute)}{attribute}}}"


def stacks(template: Mapping[str, Any]) -> dict[str, Stack]:
    """Return the stack of every scenario, by its name."""
    return {name: Stack(template, {**GIVEN, **chosen}) for name, chosen in SCENARIOS.items()}

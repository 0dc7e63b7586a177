"""
Which mistakes are made in such templates, and what notices them?

Each fault changes one thing.  The first seventeen are those that cfn-lint was tried with: it sees seven.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

REMOVED: Final = object()


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One mistake.

    Attributes:
        what: In words.

        path: Where in the template, below Resources, with dots.

        value: What stands there instead; `REMOVED` for nothing.
    """

    what: str
    path: str
    value: Any = REMOVED

    def __str__(self) -> str:
        return self.what

    def made_in(self, template: Mapping[str, Any]) -> dict[str, Any]:
        """Return the template with the mistake in it."""
        faulty = copy.deepcopy(dict(template))
        *way, last = (int(step) if step.isdecimal() else step for step in self.path.split("."))
        node: Any = faulty["Resources"]
        for step in way:
            node = node[step]
        if self.value is REMOVED:
            del node[last]
        else:
            node[last] = self.value
        return faulty


_SECRET = "DatabaseSecret.Properties.GenerateSecretString"
_TEMPLATE = f"{_SECRET}.SecretStringTemplate"
_RULES = "DatabaseRotation.Properties.RotationRules"
_ROTATE = "RotationRole.Properties.Policies.1.PolicyDocument.Statement"
_SERVICE = "ServicePolicy.Properties.PolicyDocument.Statement"
_EVENT = "LabelRule.Properties.EventPattern"

SEEDED: Final = (
    Fault(
        "GetAtt in the wrong case",
        "RotationFunction.Properties.Role",
        {"Fn::GetAtt": ["RotationRole", "ARN"]},
    ),
    Fault("a timeout that Lambda has not got", "RotationFunction.Properties.Timeout", 1000),
    Fault("a typing error in an action", f"{_ROTATE}.0.Action.1", "secretsmanager:GetSecretValues"),
    Fault("a Python that is gone", "RotationFunction.Properties.Runtime", "python3.7"),
    Fault("a password in the template", "DatabaseServer.Properties.MasterUserPassword", "hunter2hunter2"),
    Fault(
        "a property that there is not",
        "RotationFunction.Properties.Environment.Variables.LEDGER_DB_SECRETS",
        "a",
    ),
    Fault(
        "the administrator is forgotten",
        f"{_TEMPLATE}.Fn::Sub.0",
        '{"engine": "postgres", "host": "${Host}"}',
    ),
    Fault("a rate() in the singular", f"{_RULES}.ScheduleExpression", "rate(30 day)"),
    Fault("days beside a schedule", f"{_RULES}.AutomaticallyAfterDays", 30),
    Fault("more days than there may be", _RULES, {"AutomaticallyAfterDays": 2000, "Duration": "2h"}),
    Fault("a secret that is no JSON", _TEMPLATE, "{'engine': 'postgres'}"),
    Fault("a password without a field", f"{_SECRET}.GenerateStringKey"),
    Fault(
        "a typing error in the event",
        _EVENT,
        {"source": ["aws.secretsmanager"], "detailtype": ["Secret Label"]},
    ),
    Fault("a schedule before the permission", "DatabaseRotation.DependsOn"),
    Fault(
        "a typing error in the principal",
        "RotationPermission.Properties.Principal",
        "secretmanager.amazonaws.com",
    ),
    Fault("a key that cannot be used", f"{_ROTATE}.1.Action", ["kms:GenerateDataKey"]),
    Fault("a password of eight", "RedisSecret.Properties.GenerateSecretString.PasswordLength", 8),
)

MORE: Final = (
    Fault("any account may call", "RotationPermission.Properties.SourceAccount"),
    Fault(
        "rotates with every change of the stack", "RedisRotation.Properties.RotateImmediatelyOnUpdate", True
    ),
    Fault("minutes in the schedule", f"{_RULES}.ScheduleExpression", "cron(30 3 1 * ? *)"),
    Fault("one secret never rotates", "RedisRotation"),
    Fault("a secret goes with its stack", "DatabaseSecret.DeletionPolicy", "Delete"),
    Fault("a key goes with its stack", "Key.UpdateReplacePolicy"),
    Fault("a log goes with its stack", "AnnounceLogs.DeletionPolicy"),
    Fault("a database goes without a snapshot", "DatabaseServer.DeletionPolicy", "Delete"),
    Fault("a key stays when the beginning failed", "Key.DeletionPolicy", "Retain"),
    Fault("a queue stays when the beginning failed", "DeadLetters.DeletionPolicy", "Retain"),
    Fault("a beginning that cannot be undone", "DatabaseServer.Properties.DeletionProtection", True),
    Fault("a database that is never protected", "DatabaseServer.Properties.DeletionProtection"),
    Fault("a version for ever", "DatabaseServer.Properties.AllowMajorVersionUpgrade"),
    Fault("signs that a server refuses", "RedisSecret.Properties.GenerateSecretString.ExcludePunctuation"),
    Fault(
        "a handler that there is not",
        "AnnounceFunction.Properties.Handler",
        "ledger_db.rotation.events.handler",
    ),
    Fault("ended after three seconds", "AnnounceFunction.Properties.Timeout"),
    Fault(
        "may rotate nothing", "RotationFunction.Properties.Environment.Variables.LEDGER_DB_ROTATION_SECRETS"
    ),
    Fault(
        "tells nobody", "AnnounceFunction.Properties.Environment.Variables.LEDGER_DB_ANNOUNCEMENTS_SECRET_ID"
    ),
    Fault("runs without a bound", "RotationFunction.Properties.ReservedConcurrentExecutions"),
    Fault("waits for another label", f"{_EVENT}.detail.labelUpdated", ["AWSPENDING"]),
    Fault("hears of every secret", f"{_EVENT}.resources"),
    Fault("the rule may not call", "AnnouncePermission"),
    Fault("an event is lost", "LabelRule.Properties.Targets.0.DeadLetterConfig"),
    Fault("a dead letter is not taken", "DeadLettersPolicy"),
    Fault(
        "a line that nobody writes",
        "RotationFailedFilter.Properties.FilterPattern",
        '{ $.event = "step.fail" }',
    ),
    Fault("a metric that there is not", "AnnounceFailedAlarm.Properties.MetricName", "AnnouncementFailed"),
    Fault("the gap is not watched", "CredentialGapAlarm"),
    Fault("an alarm of another function", "RotationErrorsAlarm.Properties.Dimensions.0.Value", "rotation"),
    Fault("silence is an alarm", "RotationErrorsAlarm.Properties.TreatMissingData", "breaching"),
    Fault("an action too many", f"{_ROTATE}.0.Action.0", "secretsmanager:DeleteSecret"),
    Fault("every secret", f"{_ROTATE}.0.Resource", "*"),
    Fault("a star in an action", f"{_SERVICE}.0.Action", "secretsmanager:Get*"),
    Fault(
        "somebody else's secret", f"{_SERVICE}.0.Resource", ["arn:aws:secretsmanager:eu-west-1:1:secret:b"]
    ),
    Fault("a key for anything", f"{_SERVICE}.1.Condition"),
    Fault("a key by any way", f"{_ROTATE}.1.Condition.StringEquals.kms:ViaService"),
    Fault(
        "a key for another secret",
        f"{_ROTATE}.1.Condition.StringEquals.kms:EncryptionContext:SecretARN",
        ["a"],
    ),
    Fault("no log", "RotationFunction.Properties.LoggingConfig"),
    Fault("a log for ever", "AnnounceLogs.Properties.RetentionInDays"),
    Fault(
        "a log that may not be written",
        "AnnounceRole.Properties.Policies.0.PolicyDocument.Statement.0.Resource",
        "a",
    ),
    Fault("a log that the key does not know", "RotationLogs.Properties.LogGroupName", "/aws/lambda/other"),
    Fault("a function outside of the VPC", "AnnounceRole.Properties.ManagedPolicyArns"),
    Fault(
        "code may change the network", "NetworkPolicy.Properties.PolicyDocument.Statement.2.Effect", "Allow"
    ),
    Fault("the function is not let in", "DatabaseFromFunctions"),
    Fault("the wrong door", "RedisFromServices.Properties.FromPort", 1),
    Fault("no way out", "ServiceSecurityGroup.Properties.SecurityGroupEgress", []),
    Fault("a way that is missing", "RdsEndpoint"),
    Fault("a way that nobody finds", "SecretsManagerEndpoint.Properties.PrivateDnsEnabled", False),
    Fault("logins in clear", "DatabaseParameters.Properties.Parameters", {"password_encryption": "md5"}),
    Fault("an open database", "DatabaseServer.Properties.PubliclyAccessible", True),
    Fault("a cache without users", "RedisServer.Properties.UserGroupIds", []),
    Fault(
        "a user without a password",
        "RedisUser.Properties.AuthenticationMode",
        {"Type": "no-password-required"},
    ),
    Fault("what is referred to is gone", "RedisUsers"),
    Fault("made without a condition", "RedisFromServices.Condition"),
    Fault(
        "the database's other door", "DatabaseFromServices.Properties.GroupId", {"Ref": "RedisSecurityGroup"}
    ),
)

"""
What does it mean when AWS refuses, or cannot be asked?

Three questions, asked of whatever boto3 raises: does trying again help, which cause is it, and what does a
person do?  The table is the whole answer, for the service, the rotation and the command alike.  Exceptions of
botocore are known by their names: nothing has to be imported for that, and each release brings new ones.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from ledger_db.answers.aws_parties import helper_of, late_giver
from ledger_db.errors import ConfigurationError, CredentialsUnavailable, LedgerDBError


class Cause(Enum):
    """Why AWS gave nothing."""

    EXPIRED = "the AWS session has expired"
    NO_KEYS = "there are no AWS credentials"
    NO_REGION = "no region is set"
    NO_SDK = "boto3 is not installed"
    SETTINGS = "the AWS settings of this process are wrong"
    NOT_YET = "the role's credentials did not come"
    DENIED = "access is denied"
    CLOCK = "the signature is not valid, as with a wrong clock"
    WRONG_KEYS = "AWS does not know these keys"
    THROTTLED = "there are too many requests"
    UNREACHABLE = "AWS did not answer"
    FAULT = "AWS has a problem of its own"
    NOT_AWS = "what came is no answer of AWS"
    MISSING = "there is no such secret, or no value with that label"
    STATE = "the state of the secret does not allow that"
    KEY = "the key of the secret cannot be used"
    QUOTA = "a quota is used up"
    UNKNOWN = "nobody has seen that before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """
    What AWS, or the way to it, has to say.

    Attributes:
        cause: Which it is.

        transient: Whether trying again may help.

        code: Of AWS; None if it was not AWS that refused.

        asked: Whether who was meant was asked at all; if not, somebody before it gave nothing.

        what: What happened; stands behind the name of who was asked.

        next_move: What a person does, and AWS's own words.
    """

    cause: Cause
    transient: bool
    code: str | None
    asked: bool
    what: str
    next_move: str

    @property
    def is_missing(self) -> bool:
        """Whether there is nothing of that name, or with that label."""
        return self.cause is Cause.MISSING

    @property
    def outdates_client(self) -> bool:
        """Whether the client has to be made anew: one that found no keys never looks again."""
        return self.cause in _OF_CLIENT

    def as_error(self, who: str, asked_for: str) -> LedgerDBError:
        """Return what is raised outside of a rotation; *who* was meant to be asked, and for what."""
        kind = CredentialsUnavailable if self.transient else ConfigurationError
        asked = "asked" if self.asked else "not asked yet"
        return kind(f"{who}, {asked} for {asked_for}, {self.what}; {self.next_move}")


@dataclass(frozen=True, slots=True)
class _Row:
    cause: Cause
    transient: bool
    next_move: str
    names: str


_NEW_SESSION: Final = "sign in again (aws sso login), or renew the role's session"
_IF_IT_GOES_ON: Final = "trying again may help; if it goes on,"

# Codes are AWS's, names in CamelCase ending in Error mostly botocore's; a name stands for its subclasses too.
# From botocore's retries/standard.py, its exceptions.py, and the service models.
_TABLE: Final = (
    # A person's session stays expired until that person signs in.
    _Row(
        Cause.EXPIRED,
        False,
        _NEW_SESSION,
        "SSOError LoginError TokenRetrievalError RefreshWithMFAUnsupportedError",
    ),
    # A role's is renewed by who gave it, and botocore asks for it.
    _Row(Cause.EXPIRED, True, _NEW_SESSION, "ExpiredToken ExpiredTokenException"),
    _Row(
        Cause.NO_KEYS,
        False,
        "set AWS credentials the AWS way: a role, AWS_PROFILE, or AWS_ACCESS_KEY_ID with its secret key",
        "NoCredentialsError PartialCredentialsError NoAuthTokenError "
        "MissingAuthenticationToken MissingAuthenticationTokenException",
    ),
    _Row(Cause.NO_REGION, False, "set AWS_REGION", "NoRegionError"),
    _Row(Cause.NO_SDK, False, "pip install boto3", "ImportError"),
    _Row(
        Cause.SETTINGS,
        False,
        "mend AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL or what is in ~/.aws",
        "ProfileNotFound ConfigNotFound ConfigParseError InvalidConfigError BaseEndpointResolverError "
        "EndpointProviderError UnknownRegionError InvalidProxiesConfigError InvalidDefaultsMode "
        "InvalidRetryConfigurationError UnknownCredentialError MissingDependencyException ValueError",
    ),
    # OSError is the file with a role's token: where it is mounted late, it comes.
    _Row(
        Cause.NOT_YET,
        True,
        f"{_IF_IT_GOES_ON} look at who gives them: agent, metadata service, token file, identity provider",
        "MetadataRetrievalError CredentialRetrievalError OSError JSONDecodeError IDPCommunicationError",
    ),
    _Row(
        Cause.DENIED,
        False,
        "allow {action} on it; where AWS names KMS, allow the use of its key",
        "AccessDenied AccessDeniedException AuthorizationError ForbiddenException NotAuthorized "
        "UnauthorizedException UnauthorizedOperation",
    ),
    _Row(
        Cause.DENIED,
        False,
        "look at the trust policy of the role, and at its identity provider",
        "InvalidIdentityToken InvalidIdentityTokenException IDPRejectedClaim",
    ),
    _Row(
        Cause.CLOCK,
        False,
        "set the clock of this machine; if it is right, the secret key does not belong to AWS_ACCESS_KEY_ID",
        "InvalidSignatureException SignatureDoesNotMatch RequestExpired RequestTimeTooSkewed",
    ),
    _Row(
        Cause.WRONG_KEYS,
        False,
        "give it keys that are valid in this account and region, with their AWS_SESSION_TOKEN, or a role",
        "UnrecognizedClientException InvalidClientTokenId InvalidAccessKeyId AuthFailure "
        "IncompleteSignature IncompleteSignatureException",
    ),
    _Row(
        Cause.THROTTLED,
        True,
        f"{_IF_IT_GOES_ON} ask less often, or have the quota raised",
        "BandwidthLimitExceeded EC2ThrottledException PriorRequestNotComplete "
        "ProvisionedThroughputExceededException RequestLimitExceeded RequestThrottled "
        "RequestThrottledException SlowDown ThrottledException Throttling ThrottlingException "
        "TooManyRequestsException TransactionInProgressException",
    ),
    _Row(
        Cause.UNREACHABLE,
        True,
        f"{_IF_IT_GOES_ON} check the network (VPC endpoint, proxy, DNS) and the endpoint",
        "ConnectionError HTTPClientError TimeoutError",
    ),
    _Row(
        Cause.FAULT,
        True,
        f"{_IF_IT_GOES_ON} look at AWS's status",
        "InternalFailure InternalServerError InternalServiceError InternalServiceErrorException "
        "RequestTimeout RequestTimeoutException ServiceUnavailable ServiceUnavailableException",
    ),
    _Row(
        Cause.NOT_AWS,
        True,
        f"{_IF_IT_GOES_ON} look at what stands in between: a proxy, another endpoint",
        "AnswerProblem AttributeError LookupError TypeError RecursionError UnicodeError ResponseParserError",
    ),
    _Row(
        Cause.MISSING,
        False,
        "check its name, the account and the region, and that it has a value",
        "ResourceNotFoundException",
    ),
    _Row(Cause.STATE, False, "restore it, if it is marked for deletion", "InvalidRequestException"),
    _Row(
        Cause.KEY,
        False,
        "allow kms:Decrypt and kms:GenerateDataKey on its key, and check that the key is enabled",
        "DecryptionFailure EncryptionFailure",
    ),
    # botocore repeats it as it would a throttled call; for Secrets Manager it is a quota on what is kept.
    _Row(Cause.QUOTA, False, "remove what is not needed, or have the quota raised", "LimitExceededException"),
)
_UNKNOWN: Final = _Row(
    Cause.UNKNOWN, False, "look it up in AWS's documentation; check the secret and what this role may do", ""
)
_ROWS: Final[Mapping[str, _Row]] = {name: row for row in _TABLE for name in row.names.split()}
_FAULT: Final = _ROWS["InternalFailure"]

# Of STS: a role, its trust and its identity provider are known everywhere only a while after they were made.
_NO_TRUST: Final = _Row(
    Cause.DENIED,
    True,
    "allow {action} in the trust policy of the role, and look at its identity provider; if that was done a "
    "moment ago, trying again may help",
    "",
)
# What a helper says of what it was asked for says nothing of the secret.
_NO_ROLE: Final = _Row(Cause.SETTINGS, False, "mend the role that AWS_PROFILE or AWS_ROLE_ARN names", "")
_NOT_OF_HELPERS: Final = frozenset({Cause.MISSING, Cause.STATE, Cause.KEY, Cause.QUOTA})

# Whose words may repeat what was sent, or what came: one of that is the password.
_NOT_REPEATED: Final = frozenset({Cause.UNKNOWN, Cause.NOT_AWS})
_OF_CLIENT: Final = frozenset({Cause.EXPIRED, Cause.NO_KEYS, Cause.NOT_YET, Cause.WRONG_KEYS})
# What is met before anybody is asked.
_BEFORE: Final = frozenset(
    {Cause.EXPIRED, Cause.NO_KEYS, Cause.NO_REGION, Cause.NO_SDK, Cause.SETTINGS, Cause.NOT_YET}
)
# botocore's own word, as a bare RuntimeError, while it waits for whoever renews a role's credentials.
_STILL_EXPIRED: Final = "refreshed credentials are still expired"
_SERVER_ERROR: Final = 500
_MOST_CHARACTERS: Final = 400
_USER_INFO: Final = re.compile(r"//[^/\s]*@")


def refusal_of(error: Exception, service: str, *, repeat: bool = True) -> Refusal:
    """
    Return what *error* means.

    Args:
        error: What boto3 raised, whatever it is: where it is called nothing else is, so all of it is AWS's.

        service: Who was called, as policies write it: ``secretsmanager``.

        repeat: Keep AWS's own words, which name policy and principal; not where a password was sent.
    """
    helper = helper_of(error)
    operation = getattr(error, "operation_name", None)
    if operation is not None:
        return _answered(error, helper, helper or f"{service}:{operation}", repeat=repeat)
    row = _row_of(error)
    words = _one_line(str(error)) if repeat and row.cause not in _NOT_REPEATED else ""
    detail = f"{type(error).__name__}: {words}" if words else type(error).__name__
    late = late_giver(error) if row.cause is Cause.NOT_YET else None
    before, after = f"{helper}: " if helper else "", f" from {late}" if late else ""
    return Refusal(
        cause=row.cause,
        transient=row.transient,
        code=None,
        asked=helper is None and row.cause not in _BEFORE,
        what=f"gave nothing: {before}{row.cause.value}{after} ({detail})",
        next_move=row.next_move,
    )


def _row_of(error: Exception) -> _Row:
    """Return what an error means that is no answer of AWS."""
    row = next((_ROWS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _ROWS), _UNKNOWN)
    if isinstance(error, RuntimeError) and _STILL_EXPIRED in str(error):
        return _ROWS["ExpiredToken"]
    # An empty chain is nothing to wait for, unless who is busy looks the same as nobody.
    if type(error).__name__ == "NoCredentialsError" and late_giver(error) is not None:
        return _ROWS["MetadataRetrievalError"]
    return row


def _answered(error: Any, helper: str | None, action: str, *, repeat: bool) -> Refusal:
    """Return what a ClientError means."""
    answer = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(answer.get("Code") or status)
    row = _ROWS.get(code, _UNKNOWN)
    if helper:
        row = _of_helper(helper, row)
    if status >= _SERVER_ERROR and not row.transient:
        row = _FAULT
    next_move = row.next_move.replace("{action}", action)
    words = _one_line(str(answer.get("Message") or ""))
    if repeat and words and row.cause not in _NOT_REPEATED:
        next_move += f"; AWS says: {words}"
    return Refusal(
        cause=row.cause,
        transient=row.transient,
        code=code,
        asked=helper is None,
        what=f"{f'gave nothing: {action} ' if helper else ''}answered {code}, {row.cause.value}",
        next_move=next_move,
    )


def _of_helper(helper: str, row: _Row) -> _Row:
    """Return what *row* means where it was the *helper* that answered."""
    if row.cause is Cause.DENIED and helper.startswith("sts:"):
        return _NO_TRUST
    if row is _UNKNOWN:
        return replace(row, next_move=_NO_ROLE.next_move)
    return _NO_ROLE if row.cause in _NOT_OF_HELPERS else row


def _one_line(text: str) -> str:
    # A line feed would forge a line of a log; the address of a proxy or an endpoint may hold a login.
    visible = "".join(each if each.isprintable() else " " for each in text)
    return _USER_INFO.sub("//", " ".join(visible.split()))[:_MOST_CHARACTERS]

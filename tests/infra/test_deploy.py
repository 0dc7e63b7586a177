"""Is a stack changed only as it was shown, and only after a yes?"""

import hashlib
import re
import zipfile
from pathlib import Path

import pytest
import trustme

from infra import deploy
from infra.deploy import DeployError
from infra.package import CERTIFICATES
from tests.support.deployments import CloudFormation, change, deployment


def test_what_would_change_is_shown_before_it_is_done() -> None:
    """Whoever says yes has seen which server would be replaced; a service's environment comes last."""
    cloudformation, said = CloudFormation(), list[str]()

    assert deployment(cloudformation, said=said)[0].deploy({"CodeKey": "new.zip"})
    assert [line.split()[1:] for line in said[:2]] == [
        ["RotationFunction", "(AWS::X::Y)"],
        ["DatabaseServer", "(AWS::X::Y)", "REPLACED"],
    ]
    assert said[2:] == [
        "LEDGER_DB_DATABASE_SECRET_ID=arn-of-the-secret",
        "# Rotation function: arn-of-the-function",
    ]
    assert cloudformation.calls == [
        "propose",
        "wait change_set_create_complete",
        "execute",
        "wait stack_update_complete",
    ]


def test_what_is_not_given_stays_as_it_was() -> None:
    """Nobody has to remember what was chosen last time; a parameter that is new gets its default."""
    cloudformation = CloudFormation()
    deployment(cloudformation)[0].deploy({"CodeKey": "new.zip"})

    assert cloudformation.asked["Parameters"] == [
        {"ParameterKey": "CodeKey", "ParameterValue": "new.zip"},
        {"ParameterKey": "Rotation", "UsePreviousValue": True},
        {"ParameterKey": "VpcId", "UsePreviousValue": True},
    ]
    assert (cloudformation.asked["ChangeSetType"], cloudformation.asked["Capabilities"]) == (
        "UPDATE",
        ["CAPABILITY_IAM"],
    )


@pytest.mark.parametrize("answer", ["no", "", "y"])
@pytest.mark.parametrize("status", ["UPDATE_COMPLETE", "REVIEW_IN_PROGRESS", None])
def test_anything_but_yes_changes_nothing(answer: str, status: str | None) -> None:
    """What was proposed is taken back; of a stack that was never made not even its name is left."""
    cloudformation = CloudFormation(status=status)

    assert not deployment(cloudformation, answer=answer)[0].deploy({})
    assert "execute" not in cloudformation.calls
    assert cloudformation.calls[-1] == ("delete" if status else "delete stack")


def test_what_somebody_else_made_in_the_meantime_stays() -> None:
    """A no takes back the proposal, and never a stack that is there by then."""
    cloudformation = CloudFormation(status=None)

    def say_no(_: str) -> str:
        cloudformation.status = "CREATE_IN_PROGRESS"
        return "no"

    assert not deployment(cloudformation, ask=say_no)[0].deploy({})
    assert cloudformation.calls[-1] == "delete"


@pytest.mark.parametrize(("interruption", "ends"), [(EOFError, DeployError), (KeyboardInterrupt,) * 2])
def test_no_answer_is_no(interruption: type[BaseException], ends: type[BaseException]) -> None:
    """Neither Ctrl-C nor a pipeline without a terminal leaves a proposal behind."""
    cloudformation = CloudFormation(status=None)

    def interrupted(_: str) -> str:
        raise interruption

    with pytest.raises(ends):
        deployment(cloudformation, ask=interrupted)[0].deploy({})
    assert cloudformation.calls[-2:] == ["delete", "delete stack"]


@pytest.mark.parametrize(
    ("status", "first"),
    [
        *((stuck, "make undeploy STACK=ledger") for stuck in ("CREATE_FAILED", "DELETE_FAILED")),
        *((stuck, "make undeploy STACK=ledger") for stuck in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED")),
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback --stack-name ledger"),
    ],
)
def test_a_stack_that_cannot_be_changed_is_told_from_the_start(status: str, first: str) -> None:
    """What helps is said before anything is proposed."""
    cloudformation = CloudFormation(status=status)

    with pytest.raises(DeployError, match=f"{status}, and nothing was changed.*{first}"):
        deployment(cloudformation)[0].deploy({})
    assert cloudformation.calls == []


@pytest.mark.parametrize(
    ("before", "failed", "then"),
    [
        (None, "ROLLBACK_COMPLETE", "make undeploy STACK=ledger"),
        ("UPDATE_COMPLETE", "UPDATE_ROLLBACK_FAILED", "continue-update-rollback"),
        ("UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "run this again"),
    ],
)
def test_a_deployment_that_failed_says_what_comes_next(before: str | None, failed: str, then: str) -> None:
    """After a failed beginning the stack has to go first; after a failed change it is as it was."""
    cloudformation = CloudFormation(status=before, failed=failed)

    with pytest.raises(DeployError, match=f"ledger is {failed}; its events.*{then}"):
        deployment(cloudformation)[0].deploy({})


LOST = (
    change("DatabaseServer", "True", kind="RDS::DBInstance"),
    change("DatabaseServer", "Conditional", kind="RDS::DBInstance"),
    change("DatabaseServer", kind="RDS::DBInstance", action="Remove"),
    change("RedisServer", "True", kind="ElastiCache::ReplicationGroup"),
)


@pytest.mark.parametrize("lost", LOST, ids=lambda lost: " ".join(lost.values()))
def test_a_server_is_lost_only_on_purpose(lost: dict[str, str]) -> None:
    """A yes out of habit replaces no server with an empty one; naming it does."""
    name = lost["LogicalResourceId"]
    refused, wanted = CloudFormation(changes=(lost,)), CloudFormation(changes=(lost,))

    with pytest.raises(DeployError, match=f"nothing was changed.*--replace {name}"):
        deployment(refused)[0].deploy({}, replace=["SomethingElse"])
    assert refused.calls[-1] == "delete"
    assert "execute" not in refused.calls
    assert deployment(wanted)[0].deploy({}, replace=[name])
    assert "execute" in wanted.calls


def test_a_server_that_is_changed_in_place_needs_no_more_than_a_yes() -> None:
    """A larger machine keeps what is in it, and a first deployment makes its servers."""
    larger = change("DatabaseServer", kind="RDS::DBInstance")
    new = {**change("RedisServer", kind="ElastiCache::ReplicationGroup", action="Add")}

    assert deployment(CloudFormation(changes=(larger, new)))[0].deploy({})


@pytest.mark.parametrize(("action", "told"), [("Modify", True), ("Add", False)])
def test_a_change_of_the_redis_user_says_what_has_to_follow(action: str, *, told: bool) -> None:
    """It may put an old password back, and one hears of it before the yes, with the name of the secret."""
    user = change("RedisUser", kind="ElastiCache::User", action=action)
    cloudformation, said = CloudFormation(changes=(user,)), list[str]()

    assert not deployment(cloudformation, answer="no", said=said)[0].deploy({"Name": "books"})
    assert ("ledger-db rotate books/redis --repair" in " ".join(said)) is told


@pytest.fixture(params=["Amazon RDS", "Amazon"])
def code(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, bool]:
    """A zip, and whether it trusts RDS."""
    path = tmp_path / "rotation.zip"
    with zipfile.ZipFile(path, "w") as archive:
        pem = trustme.CA(organization_unit_name=request.param).cert_pem.bytes()
        archive.writestr(CERTIFICATES, pem)
    return path, request.param == "Amazon RDS"


@pytest.mark.parametrize("given", [{}, {"Database": "create"}, {"Database": "rds"}, {"Database": "other"}])
def test_a_function_that_does_not_trust_rds_is_not_put_before_it(
    given: dict[str, str], code: tuple[Path, bool]
) -> None:
    """Its first rotation would end with a wrong certificate; any other server is somebody's own affair."""
    path, trusted = code
    cloudformation = CloudFormation(status=None)
    one, _ = deployment(cloudformation)

    if trusted or given.get("Database") == "other":
        assert one.deploy(given, code=path)
        return
    with pytest.raises(DeployError, match="TRUST="):
        one.deploy(given, code=path)
    assert cloudformation.calls == []


def test_nothing_to_change_is_no_failure() -> None:
    """A pipeline that runs again is content."""
    cloudformation = CloudFormation(refused="The submitted information didn't contain changes.")

    assert deployment(cloudformation)[0].deploy({})
    assert cloudformation.calls == ["propose", "delete"]


def test_a_refusal_is_told_in_the_words_of_aws() -> None:
    """Which parameter was wrong is what one wants to know."""
    cloudformation = CloudFormation(refused="A database that exists needs DatabaseHost.")

    with pytest.raises(DeployError, match="was not: A database that exists needs DatabaseHost"):
        deployment(cloudformation)[0].deploy({})


def test_a_parameter_that_there_is_not_is_named() -> None:
    """A typing error ends before anything is proposed."""
    cloudformation = CloudFormation()

    with pytest.raises(DeployError, match="no parameter Rotatoin"):
        deployment(cloudformation)[0].deploy({"Rotatoin": "enabled"})
    assert cloudformation.calls == []


def test_code_goes_only_to_a_bucket_of_this_account(tmp_path: Path) -> None:
    """Its key is its digest, and a bucket of somebody else gets and gives nothing."""
    code = tmp_path / "rotation.zip"
    code.write_bytes(b"code")
    one, bucket = deployment(CloudFormation())

    assert one.upload(code, "bucket") == f"ledger-db/{hashlib.sha256(b'code').hexdigest()}.zip"
    assert (bucket.put["Body"], bucket.put["ExpectedBucketOwner"]) == (b"code", "123456789012")


def test_without_a_zip_it_says_how_to_make_one(tmp_path: Path) -> None:
    """Nothing is uploaded."""
    one, bucket = deployment(CloudFormation())

    with pytest.raises(DeployError, match="make package"):
        one.upload(tmp_path / "rotation.zip", "bucket")
    assert bucket.put == {}


@pytest.mark.parametrize(("answer", "gone"), [("ledger", True), ("yes", False), ("", False)])
def test_a_stack_is_deleted_by_its_name_only(answer: str, *, gone: bool) -> None:
    """A yes out of habit deletes nothing."""
    cloudformation = CloudFormation()

    assert deployment(cloudformation, answer=answer)[0].delete() is gone
    assert ("delete stack" in cloudformation.calls) is gone


@pytest.mark.parametrize(("protected", "gone"), [(True, False), (False, True), (None, True)])
def test_a_stack_is_deleted_whole_or_not_at_all(*, protected: bool | None, gone: bool) -> None:
    """A protected database would stay, without the functions; so nothing is begun."""
    cloudformation = CloudFormation(protected=protected)
    one, _ = deployment(cloudformation, answer="ledger")

    if gone:
        assert one.delete()
    else:
        with pytest.raises(DeployError, match=r"nothing was deleted.*DatabaseProtected=false first"):
            one.delete()
    assert ("delete stack" in cloudformation.calls) is gone


def test_a_protected_database_of_a_stack_that_cannot_be_changed_has_a_way_out() -> None:
    """Where nothing can be deployed any more, RDS itself is asked to give up the protection."""
    cloudformation = CloudFormation(status="DELETE_FAILED", protected=True)

    with pytest.raises(DeployError, match=r"nothing was deleted.*ledger-server --no-deletion-protection"):
        deployment(cloudformation, answer="ledger")[0].delete()
    assert cloudformation.calls == []


def test_deleting_what_is_not_there_is_no_failure() -> None:
    """It is as it should be."""
    cloudformation = CloudFormation(status=None)

    assert deployment(cloudformation, answer="")[0].delete()
    assert cloudformation.calls == []


@pytest.mark.parametrize("arguments", [["ledger"], ["ledger", "--bucket", "b", "--parameter", "Rotation"]])
def test_a_wrong_command_line_ends_before_aws_is_asked(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what is missing."""
    with pytest.raises(SystemExit):
        deploy.main(arguments)
    assert re.search(r"--bucket is needed|is not NAME=VALUE", capsys.readouterr().err)

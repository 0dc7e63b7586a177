"""Does the Terraform module hand everything on to the template?"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
# A folder with the provider in it: it is 700 MB, and no test downloads that.
MIRROR = os.environ.get("TERRAFORM_PROVIDERS", "")


def test_the_old_zip_goes_last() -> None:
    """While the stack changes, and if it is rolled back, the functions are made of the zip that they had."""
    text = (PROJECT / "infra" / "terraform" / "main.tf").read_text(encoding="utf-8")
    (code,) = re.findall(r'^resource "aws_s3_object" "code" \{\n(.*?)^\}', text, re.MULTILINE | re.DOTALL)

    assert re.search(r"lifecycle \{\s+create_before_destroy = true\s+\}", code)


@pytest.mark.skipif(shutil.which("terraform") is None, reason="no terraform on this machine")
@pytest.mark.skipif(not MIRROR, reason="TERRAFORM_PROVIDERS names no folder with the AWS provider")
def test_the_module_is_valid_and_hands_everything_on(tmp_path: Path) -> None:
    """It validates, and its own tests pass, without any call to AWS."""
    shutil.copytree(PROJECT / "infra", tmp_path / "infra", ignore=shutil.ignore_patterns(".terraform*"))
    folder = tmp_path / "infra" / "terraform"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CHECKPOINT_DISABLE": "1"}
    for arguments in (
        ["init", f"-plugin-dir={MIRROR}"],
        ["validate"],
        ["fmt", "-check", "-recursive"],
        ["test"],
    ):
        command = ["terraform", *arguments, *(["-input=false"] if arguments[0] == "init" else [])]
        run = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr

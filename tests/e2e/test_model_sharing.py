"""A custom model is shared with an account once, and the share is removed and made again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from endpoint import Endpoint, running_endpoint
from processes import Cli

OTHER = "111122223333"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "copy-a-model.md"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast") as made:
        yield made


def value(done: Any) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def trained(cli: Cli, aws: Endpoint, folder: Path, name: str) -> Any:
    """Submit a job and wait for it; return it."""
    tiny.write_jsonl(folder / "train.jsonl", tiny.pairs(8))
    spec = {"name": name, "base_model": "nova-micro", "data": {"train": "train.jsonl"}}
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump({**spec, "bedrock": aws.bedrock_section}))
    words = ("submit", "--backend", "bedrock", path, "--wait", "--output", "json")
    return value(cli(*words))


def shares(aws: Endpoint) -> list[Any]:
    listed = aws.client("ram").get_resource_shares(resourceOwner="SELF")["resourceShares"]
    return [share for share in listed if share["status"] == "ACTIVE"]


def test_a_model_is_shared_once(cli: Cli, aws: Endpoint, tmp_path: Path) -> None:
    job = trained(cli, aws, tmp_path, "shared")
    share = ("share", job["id"], "--with", OTHER, "--output", "json")
    planned = cli(*share, "--dry-run")
    assert value(planned)["arn"] is None and shares(aws) == []
    assert "claude-3-haiku and no nova-micro" in planned.stderr
    assert cli(*share).returncode != 0  # nobody confirms it
    made = value(cli(*share, "--yes"))
    assert [s["resourceShareArn"] for s in shares(aws)] == [made["arn"]]
    assert value(cli(*share, "--yes"))["arn"] == made["arn"]
    ram = aws.client("ram")
    # The same request again, as after a lost answer: the token makes it the same share.
    assert (
        ram.create_resource_share(**made["call"]["parameters"])["resourceShare"]["resourceShareArn"]
        == made["arn"]
    )
    associated = ram.get_resource_share_associations(
        associationType="RESOURCE", resourceShareArns=[made["arn"]]
    )["resourceShareAssociations"]
    assert [a["associatedEntity"] for a in associated] == [job["summary"]["customModel"]]
    stopped = value(cli(*share, "--stop", "--yes"))
    assert (stopped["arn"], stopped["status"]) == (made["arn"], "DELETED")
    assert shares(aws) == []
    again = value(cli(*share, "--yes"))
    assert again["arn"] != made["arn"] and len(shares(aws)) == 1
    value(cli(*share, "--stop", "--yes"))
    theirs = {**again["call"]["parameters"], "tags": [], "clientToken": "theirs"}
    ram.create_resource_share(**theirs)
    refused = cli(*share, "--stop", "--yes")
    assert refused.returncode != 0 and "did not make it" in refused.stderr
    assert len(shares(aws)) == 1
    assert cli("share", job["id"], "--with", "1234").returncode == 2


def test_the_commands_of_the_page_about_sharing(cli: Cli, aws: Endpoint, tmp_path: Path) -> None:
    job = trained(cli, aws, tmp_path, "paged")
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    [block] = [block for block in blocks if "cloudft share" in block]
    for line in block.replace("JOB", job["id"]).splitlines():
        done = cli(*shlex.split(line.removeprefix("$ cloudft ")))
        assert done.returncode == 0, done.stderr
    assert "removed cloudft-paged-" in done.stdout

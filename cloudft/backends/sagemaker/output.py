"""What a completed job left in S3, brought home: the one layout, and what the local trainer needs
to ask the model and to export it.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from cloudft import artifacts as layout
from cloudft.archives import BadArchive, unpack_tar_gz
from cloudft.aws.client import Aws
from cloudft.aws.s3 import ObjectStream, parse
from cloudft.backends.sagemaker import request
from cloudft.errors import AwsRefused, DamagedJob
from cloudft.files import as_store_error, sync_folder, write_whole
from cloudft.home import Home

ARTIFACTS, DATA, JOB = "artifacts", "data", "job.json"
STAGED_NAME = 32
"""Characters of a manifest's digest that name its folder of staged data."""


def plan_of(aws: Aws, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The job's plan, from beside its output. Raises AwsRefused."""
    bucket, key = parse(answer["OutputDataConfig"]["S3OutputPath"])
    name = f"s3://{bucket}/{key.removesuffix('output/')}{request.PLAN}"
    plan: dict[str, Any] = orjson.loads(ObjectStream(name, aws.client("s3")).read())
    return plan


def bring(aws: Aws, answer: Mapping[str, Any], home: Home, job_id: str) -> Path:
    """The job's artifacts here, whole or not at all. Raises DamagedJob for an archive that is not.

    Raises AwsRefused, AwsUnreachable, StoreError.
    """
    folder = home.jobs / job_id / ARTIFACTS
    if layout.is_complete(folder):
        return folder
    with as_store_error(f"the artifacts of {job_id} can't be kept", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _furnish(aws, plan_of(aws, answer), home, folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix=".artifacts-", dir=folder.parent))
        try:
            _unpack(aws, answer["ModelArtifacts"]["S3ModelArtifacts"], temporary)
            if not layout.is_complete(temporary):
                raise _damaged(answer, "it holds no curve")
            temporary.chmod(0o755)
            os.rename(temporary, folder)
        except BadArchive as error:
            raise _damaged(answer, str(error)) from error
        except OSError:
            if not layout.is_complete(folder):  # else another process has brought them meanwhile
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(folder.parent)
    return folder


def _damaged(answer: Mapping[str, Any], why: str) -> DamagedJob:
    uri = answer["ModelArtifacts"]["S3ModelArtifacts"]
    return DamagedJob(f"{uri} is no output of this job: {why}", fix="look at it in S3.")


def _unpack(aws: Aws, uri: str, folder: Path) -> None:
    """Plain files alone, within bounds. Raise BadArchive for an archive of another kind."""
    with io.BufferedReader(ObjectStream(uri, aws.client("s3")), 1 << 20) as stream:
        unpack_tar_gz(stream, folder)


def _furnish(aws: Aws, plan: Mapping[str, Any], home: Home, folder: Path) -> None:
    """The folder as a local job's: its request, and the data that can be had here."""
    wanted = dict(plan["request"]["home"])
    (folder / DATA).mkdir(exist_ok=True)
    kept = {}
    for role, file in wanted["data"].items():
        path = folder / file["path"]
        if path.is_file() or _from_here(plan, home, path) or _from_s3(aws, plan, role, path):
            kept[role] = file
    content = orjson.dumps(wanted | {"data": kept}, option=orjson.OPT_INDENT_2)
    write_whole(folder / JOB, content)


def _from_here(plan: Mapping[str, Any], home: Home, path: Path) -> bool:
    staged = home.staged / str(plan["manifest"]["sha256"])[:STAGED_NAME] / path.name
    if not staged.is_file():
        return False
    shutil.copyfile(staged, path)
    return True


def _from_s3(aws: Aws, plan: Mapping[str, Any], role: str, path: Path) -> bool:
    """A file that went to S3 with the job."""
    for uri in _sent(plan, role):
        try:
            with ObjectStream(uri, aws.client("s3")) as source, path.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except AwsRefused:  # gc has removed it
            path.unlink(missing_ok=True)
            continue
        return True
    return False


def _sent(plan: Mapping[str, Any], role: str) -> Iterator[str]:
    for call in plan["request"]["calls"]:
        if call.get("file") == role:
            yield f"s3://{call['parameters']['Bucket']}/{call['parameters']['Key']}"

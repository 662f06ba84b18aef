"""What a completed job left in S3, brought home: the one layout, and what the local trainer needs
to ask the model and to export it.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import orjson

from cloudft import artifacts as layout
from cloudft.archives import BadArchive, unpack_tar_gz
from cloudft.aws.client import Aws
from cloudft.aws.s3 import ObjectStream, parse
from cloudft.backends import found
from cloudft.backends.sagemaker import request
from cloudft.documents import convert
from cloudft.errors import AwsRefused, BadDocument, DamagedJob
from cloudft.files import as_store_error, sync_folder, write_whole
from cloudft.home import Home
from cloudft.store import RECORD, Store

ARTIFACTS, DATA, JOB = "artifacts", "data", "job.json"
STAGED_NAME = 32
"""Characters of a manifest's digest that name its folder of staged data."""


def plan_of(aws: Aws, answer: Mapping[str, Any]) -> found.Found:
    """The job's plan, from beside its output, as far as it is taken.

    Raises AwsRefused, AwsUnreachable, DamagedJob.
    """
    bucket, key = parse(answer["OutputDataConfig"]["S3OutputPath"])
    name = f"s3://{bucket}/{key.removesuffix('output/')}{request.PLAN}"
    given = answer["HyperParameters"]
    job = given[request.JOB_MARK]
    with io.BufferedReader(ObjectStream(name, aws.client("s3"))) as stream:
        content = stream.read(found.LARGEST + 1)
    if len(content) > found.LARGEST:
        error = BadDocument(f"it has more than {found.LARGEST} bytes", file=name)
        raise found.unusable(job, error)
    marks = found.Marks(job, given.get(request.TOKEN_MARK), given.get(request.PLAN_MARK))
    return found.read(content, name, "sagemaker", marks)


def bring(aws: Aws, answer: Mapping[str, Any], home: Home, job_id: str) -> Path:
    """The job's artifacts here, whole or not at all. Raises DamagedJob for an archive that is not.

    Raises AwsRefused, AwsUnreachable, StoreError.
    """
    folder = home.jobs / job_id / ARTIFACTS
    if layout.is_complete(folder):
        return folder
    with as_store_error(f"the artifacts of {job_id} can't be kept", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _furnish(aws, answer, home, job_id)
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


class _File(msgspec.Struct):
    path: Annotated[str, msgspec.Meta(pattern=r"\Adata/[A-Za-z0-9_][A-Za-z0-9._-]*\Z")]


class _Home(msgspec.Struct):
    data: dict[str, _File]


def _furnish(aws: Aws, answer: Mapping[str, Any], home: Home, job_id: str) -> None:
    """The folder as a local job's: its request, and the data that can be had here."""
    folder = home.jobs / job_id
    wanted, sha256 = _asked(aws, answer, home, job_id)
    files = convert(wanted, _Home, file=folder / RECORD).data
    (folder / DATA).mkdir(exist_ok=True)
    kept = {}
    for role, file in files.items():
        path = folder / file.path
        staged = home.staged / sha256[:STAGED_NAME] / path.name
        if path.is_file() or _from_here(staged, path) or _from_s3(aws, answer, role, path):
            kept[role] = wanted["data"][role]
    content = orjson.dumps({**wanted, "data": kept}, option=orjson.OPT_INDENT_2)
    write_whole(folder / JOB, content)


def _asked(
    aws: Aws, answer: Mapping[str, Any], home: Home, job_id: str
) -> tuple[Mapping[str, Any], str]:
    """What the trainer was asked, and the manifest's digest, by this machine's record.

    Without a record, by the plan in S3.
    """
    record = Store(home.jobs).known(job_id)
    if record is not None and "home" in record.request:
        return record.request["home"], str(record.manifest["sha256"])
    plan = plan_of(aws, answer)
    if plan.home is None:
        raise _damaged(answer, "its plan does not say what was trained")
    return plan.home, plan.manifest.sha256


def _from_here(staged: Path, path: Path) -> bool:
    if not staged.is_file():
        return False
    shutil.copyfile(staged, path)
    return True


def _from_s3(aws: Aws, answer: Mapping[str, Any], role: str, path: Path) -> bool:
    """A file that went to S3 with the job, from the channel of its role."""
    for channel in answer.get("InputDataConfig") or ():
        uri = channel["DataSource"].get("S3DataSource", {}).get("S3Uri", "")
        if channel["ChannelName"] != role or not uri:
            continue
        try:
            name = f"{uri.rstrip('/')}/{path.name}"
            with ObjectStream(name, aws.client("s3")) as source, path.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except AwsRefused:  # gc has removed it
            path.unlink(missing_ok=True)
            continue
        return True
    return False

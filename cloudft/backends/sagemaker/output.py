"""Download what a completed job left in S3, in the layout that the local backend reads."""

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

from cloudft.aws.client import Aws
from cloudft.aws.s3 import ObjectStream, split_s3_uri
from cloudft.backends.aws_base import discovered_plan
from cloudft.backends.aws_base.api_call import PLAN_FILE
from cloudft.backends.sagemaker import request
from cloudft.backends.sagemaker.responses import TrainingJob
from cloudft.errors import BadDocument, CloudRefused, DamagedJob
from cloudft.storage import artifacts as layout
from cloudft.storage.archives import BadArchive, unpack_tar_gz
from cloudft.storage.atomic_files import as_store_error, atomic_write, fsync_folder
from cloudft.storage.documents import convert
from cloudft.storage.home import Home
from cloudft.storage.store import RECORD_FILE, Store

ARTIFACTS, DATA, JOB = "artifacts", "data", "job.json"
STAGED_NAME_LENGTH = 32
"""Characters of a manifest's digest that name its folder of staged data."""


def read_plan(aws: Aws, description: TrainingJob) -> discovered_plan.DiscoveredPlan:
    """Read the accepted part of the job's plan, from beside its output.

    Raise CloudRefused, CloudUnreachable, DamagedJob.
    """
    bucket, key = split_s3_uri(description["OutputDataConfig"]["S3OutputPath"])
    name = f"s3://{bucket}/{key.removesuffix('output/')}{PLAN_FILE}"
    parameters = description["HyperParameters"]
    job = parameters[request.JOB_KEY]
    with io.BufferedReader(ObjectStream(name, aws.client("s3"))) as stream:
        content = stream.read(discovered_plan.MAX_PLAN_BYTES + 1)
    if len(content) > discovered_plan.MAX_PLAN_BYTES:
        error = BadDocument(f"it has more than {discovered_plan.MAX_PLAN_BYTES} bytes", file=name)
        raise discovered_plan.unusable_plan(job, error)
    marks = discovered_plan.PlanMarkers(
        job, parameters.get(request.TOKEN_KEY), parameters.get(request.PLAN_KEY)
    )
    return discovered_plan.parse_plan(content, name, "sagemaker", marks)


def download_artifacts(aws: Aws, description: TrainingJob, home: Home, job_id: str) -> Path:
    """Download the job's artifacts completely or not at all. Raise DamagedJob for a bad archive.

    Raise CloudRefused, CloudUnreachable, StoreError.
    """
    folder = home.jobs / job_id / ARTIFACTS
    if layout.is_complete(folder):
        return folder
    with as_store_error(f"the artifacts of {job_id} can't be kept", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write_job_folder(aws, description, home, job_id)
        temporary = Path(tempfile.mkdtemp(prefix=".artifacts-", dir=folder.parent))
        try:
            _unpack(aws, description["ModelArtifacts"]["S3ModelArtifacts"], temporary)
            if not layout.is_complete(temporary):
                raise _damaged_output(description, "it holds no curve")
            temporary.chmod(0o755)
            # One rename: a job is Completed here only when all of its files are.
            os.rename(temporary, folder)
        except BadArchive as error:
            raise _damaged_output(description, str(error)) from error
        except OSError:
            if not layout.is_complete(folder):  # else another process has brought them meanwhile
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        fsync_folder(folder.parent)
    return folder


def _damaged_output(description: TrainingJob, why: str) -> DamagedJob:
    uri = description["ModelArtifacts"]["S3ModelArtifacts"]
    return DamagedJob(f"{uri} is no output of this job: {why}", fix="look at it in S3.")


def _unpack(aws: Aws, uri: str, folder: Path) -> None:
    """Unpack plain files within limits. Raise BadArchive for any other archive."""
    with io.BufferedReader(ObjectStream(uri, aws.client("s3")), 1 << 20) as stream:
        unpack_tar_gz(stream, folder)


class _File(msgspec.Struct):
    path: Annotated[str, msgspec.Meta(pattern=r"\Adata/[A-Za-z0-9_][A-Za-z0-9._-]*\Z")]


class _TrainerData(msgspec.Struct):
    data: dict[str, _File]


def _write_job_folder(aws: Aws, description: TrainingJob, home: Home, job_id: str) -> None:
    """Write the job's folder as a local job's: its request, and the data that is available."""
    folder = home.jobs / job_id
    trainer_request, sha256 = _trainer_request(aws, description, home, job_id)
    files = convert(trainer_request, _TrainerData, file=folder / RECORD_FILE).data
    (folder / DATA).mkdir(exist_ok=True)
    available = {}
    for role, file in files.items():
        path = folder / file.path
        staged = home.staged / sha256[:STAGED_NAME_LENGTH] / path.name
        if (
            path.is_file()
            or _copy_staged(staged, path)
            or _download_channel_file(aws, description, role, path)
        ):
            available[role] = trainer_request["data"][role]
    content = orjson.dumps({**trainer_request, "data": available}, option=orjson.OPT_INDENT_2)
    atomic_write(folder / JOB, content)


def _trainer_request(
    aws: Aws, description: TrainingJob, home: Home, job_id: str
) -> tuple[Mapping[str, Any], str]:
    """Return the trainer's request, and the manifest's digest, from this machine's record.

    Without a record, they come from the plan in S3.
    """
    record = Store(home.jobs).get_or_none(job_id)
    if record is not None and "home" in record.request:
        return record.request["home"], str(record.manifest["sha256"])
    plan = read_plan(aws, description)
    if plan.trainer_request is None:
        raise _damaged_output(description, "its plan does not say what was trained")
    return plan.trainer_request, plan.manifest.sha256


def _copy_staged(staged: Path, path: Path) -> bool:
    if not staged.is_file():
        return False
    shutil.copyfile(staged, path)
    return True


def _download_channel_file(aws: Aws, description: TrainingJob, role: str, path: Path) -> bool:
    """Download a file that was uploaded with the job, from the channel of its role."""
    for channel in description.get("InputDataConfig") or ():
        uri = channel["DataSource"].get("S3DataSource", {}).get("S3Uri", "")
        if channel["ChannelName"] != role or not uri:
            continue
        try:
            name = f"{uri.rstrip('/')}/{path.name}"
            with ObjectStream(name, aws.client("s3")) as source, path.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except CloudRefused:  # gc has removed it
            path.unlink(missing_ok=True)
            continue
        return True
    return False

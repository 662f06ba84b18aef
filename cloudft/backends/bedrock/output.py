"""Download what a finished job left in S3, in cloudft's one layout of artifacts."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import orjson

from cloudft.aws.client import Aws
from cloudft.aws.s3 import bucket_parameters, list_objects, read_object, s3_uri, split_s3_uri
from cloudft.backends.bedrock.api_shapes import CustomizationJob
from cloudft.backends.bedrock.states import validation_set_names
from cloudft.storage import artifacts as layout
from cloudft.storage.atomic_files import as_store_error, fsync_folder
from cloudft.types import validation_role

TRAINING_NAME = PurePosixPath(layout.TRAINING_CSV).name
VALIDATION_NAME = PurePosixPath(layout.VALIDATION_CSV).name
"""Names of the metrics files in the output, which are found at whatever depth."""
MAX_BYTES = 256 * 1024 * 1024
"""A larger output file is not a metrics file: it stays in S3, and result.json lists it."""


def download_artifacts(
    aws: Aws,
    job: CustomizationJob,
    owner: str | None,
    folder: Path,
    manifest: Mapping[str, object],
) -> None:
    """Create `folder` with a completed job's output: complete or not at all."""
    with as_store_error(f"the artifacts of {job['jobName']} can't be stored", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".artifacts-", dir=folder.parent))
        try:
            _download(aws, job, owner, temporary, manifest)
            temporary.chmod(0o755)
            os.rename(temporary, folder)
        except OSError:
            if not layout.is_complete(folder):  # else another process downloaded them meanwhile
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        fsync_folder(folder.parent)


def _download(
    aws: Aws,
    job: CustomizationJob,
    owner: str | None,
    folder: Path,
    manifest: Mapping[str, object],
) -> None:
    bucket, prefix = split_s3_uri(job["outputDataConfig"]["s3Uri"])
    parameters = bucket_parameters(bucket, owner)
    left_in_s3 = []
    objects = list(list_objects(aws, parameters, prefix))
    curves = _validation_curves([key.removeprefix(prefix) for key, _ in objects], job)
    for key, size in objects:
        relative = key.removeprefix(prefix)
        name = curves.get(relative) or _local_name(relative)
        if name is None or size > MAX_BYTES:
            left_in_s3.append(s3_uri(bucket, key))
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read_object(aws, parameters, key))
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    (folder / layout.MANIFEST).write_bytes(orjson.dumps(manifest, option=options))
    result = _result_document(job, left_in_s3)
    (folder / layout.RESULT).write_bytes(orjson.dumps(result, option=options))


def _local_name(name: str) -> str | None:
    """Return an output file's path in the artifacts: `other/` for all but metrics.

    None for folders, hidden files, and names that would leave the folder.
    """
    path = PurePosixPath(name)
    if path.name == TRAINING_NAME:
        return layout.TRAINING_CSV
    if name.endswith("/") or path.name.startswith(".") or ".." in path.parts:
        return None
    return f"other/{path}"


def _validation_curves(names: Sequence[str], job: CustomizationJob) -> dict[str, str]:
    """Return the path in the artifacts of each validation curve in the output.

    AWS documents where one curve is, and not where those of several validators are. A curve belongs
    to the validator whose name, or whose staged file's name, is a folder above it; where none is,
    the curves are in the order of the validators if there are as many. Curves that belong to none
    stay under `other/`: nothing is written over another.
    """
    found = sorted(n for n in names if PurePosixPath(n).name == VALIDATION_NAME)
    if len(found) == 1:
        return {found[0]: layout.VALIDATION_CSV}
    sets = [name for name in validation_set_names(job) if name is not None]
    by_folder = {
        name: layout.validation_csv(one)
        for name in found
        for one in sets
        if {one, validation_role(one)} & set(PurePosixPath(name).parts[:-1])
    }
    if len(set(by_folder.values())) == len(found) == len(by_folder):
        return by_folder
    if len(found) == len(sets):
        pairs = zip(sorted(found, key=_natural_key), sets, strict=True)
        return {name: layout.validation_csv(one) for name, one in pairs}
    return {}


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key by which `10` comes after `9`."""
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"(\d+)", name)]


def _result_document(job: CustomizationJob, left_in_s3: list[str]) -> dict[str, object]:
    return {
        "jobArn": job.get("jobArn"),
        "jobName": job.get("jobName"),
        "outputModelArn": job.get("outputModelArn"),
        "outputModelName": job.get("outputModelName"),
        "baseModelArn": job.get("baseModelArn"),
        "trainingMetrics": job.get("trainingMetrics"),
        "validationMetrics": job.get("validationMetrics"),
        "hyperParameters": job.get("hyperParameters"),
        "customizationType": job.get("customizationType"),
        "output": job["outputDataConfig"]["s3Uri"],
        "leftInS3": left_in_s3,
    }

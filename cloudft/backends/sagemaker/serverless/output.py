"""What a serverless job leaves: its curve and manifest here, its weights in S3.

The weights may have a hundred gigabytes, so they are downloaded only by export and import.
"""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from cloudft.aws.client import Aws
from cloudft.aws.s3 import ObjectStream, list_objects, s3_uri, split_s3_uri
from cloudft.backends.sagemaker.responses import TrainingJob
from cloudft.backends.sagemaker.serverless.request import MERGE
from cloudft.errors import DamagedJob, JobStateConflict
from cloudft.storage import artifacts as layout
from cloudft.storage.atomic_files import as_store_error, fsync_folder
from cloudft.types import Metric

MERGED = "checkpoints/hf_merged/"
"""Folder of merged weights in a job's model (sagemaker-serve 1.27.0, bedrock_model_builder.py)."""
CONFIG = "config.json"
COPY_BYTES = 1 << 20


def model_uri(aws: Aws, description: TrainingJob) -> str | None:
    """Return where the tuned model lies in S3: the model package's source, else the job's own.

    None for a model that AWS keeps, such as Amazon Nova. Raise CloudRefused, CloudUnreachable.
    """
    package = description.get("OutputModelPackageArn")
    if package:
        what = f"can't read the model package {package}"
        response = aws.call(what, "sagemaker", "describe_model_package", ModelPackageName=package)
        containers = response.get("InferenceSpecification", {}).get("Containers", ())
        for container in containers:
            source = container.get("ModelDataSource", {}).get("S3DataSource", {})
            if source.get("S3Uri"):
                return _as_folder(str(source["S3Uri"]))
    artifacts = description.get("ModelArtifacts")
    uri = artifacts["S3ModelArtifacts"] if artifacts else ""
    return _as_folder(uri) if uri else None


def _as_folder(uri: str) -> str:
    return uri.rstrip("/") + "/"


def write_artifacts(
    folder: Path,
    points: Sequence[Metric],
    manifest: Mapping[str, object],
    result: Mapping[str, object],
) -> None:
    """Create `folder` with curve, manifest and result: complete or not at all."""
    with as_store_error(f"the artifacts can't be stored in {folder}", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".artifacts-", dir=folder.parent))
        try:
            _write(temporary, points, manifest, result)
            temporary.chmod(0o755)
            os.rename(temporary, folder)
        except OSError:
            if not layout.is_complete(folder):  # else another process has written them meanwhile
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        fsync_folder(folder.parent)


def _write(
    folder: Path,
    points: Sequence[Metric],
    manifest: Mapping[str, object],
    result: Mapping[str, object],
) -> None:
    path = folder / layout.TRAINING_CSV
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(layout.TRAINING_COLUMNS)
        table.writerows((p.step, p.epoch, p.loss, p.perplexity) for p in points)
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    (folder / layout.MANIFEST).write_bytes(orjson.dumps(manifest, option=options))
    (folder / layout.RESULT).write_bytes(orjson.dumps(result, option=options))


def export_merged(
    aws: Aws,
    description: TrainingJob,
    out: Path,
    on_copied: Callable[[int], None] | None = None,
) -> Mapping[str, Any]:
    """Download the merged weights of a completed job to the new folder `out`.

    They keep the number format in which SageMaker wrote them. Raise JobStateConflict where there
    are none or `out` exists, DamagedJob, CloudRefused, CloudUnreachable, StoreError.
    """
    if out.exists():
        raise JobStateConflict(f"{out} exists already", fix="name a folder that does not.")
    name, source = description["TrainingJobName"], model_uri(aws, description)
    if source is None:
        package = description.get("OutputModelPackageArn", "MODEL_PACKAGE")
        raise JobStateConflict(
            f"{name} has left no weights in your account: AWS keeps those of its own models",
            fix=f"`cloudft import --from {package}"
            " --name NAME --base-model MODEL` makes it a custom model of Bedrock.",
        )
    bucket, prefix = split_s3_uri(source + MERGED)
    owned = {"Bucket": bucket, "ExpectedBucketOwner": description["RoleArn"].split(":")[4]}
    files = {key.removeprefix(prefix): size for key, size in list_objects(aws, owned, prefix)}
    if CONFIG not in files:
        raise JobStateConflict(
            f"{s3_uri(bucket, prefix)} has no {CONFIG}: {name} has left no merged weights",
            fix=f"submit it with `sagemaker.serverless.hyperparameters: {{{MERGE}: true}}`.",
        )
    with as_store_error(f"the weights of {name} can't be stored", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            for file, size in files.items():
                _download(aws, s3_uri(bucket, prefix + file), _inside(temporary, file, name), size)
                if on_copied is not None:
                    on_copied(size)
            temporary.chmod(0o755)
            os.rename(temporary, out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        fsync_folder(out.parent)
    return {"source": s3_uri(bucket, prefix), "files": len(files), "bytes": sum(files.values())}


def _inside(folder: Path, name: str, job: str) -> Path:
    """Return the path of a file of that name. Raise DamagedJob for one that would leave it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or name.endswith("/"):
        raise DamagedJob(
            f"the weights of {job} have a file {name[:200]!r}", fix="look at them in S3."
        )
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _download(aws: Aws, uri: str, path: Path, size: int) -> None:
    with ObjectStream(uri, aws.client("s3")) as source, path.open("wb") as file:
        shutil.copyfileobj(source, file, COPY_BYTES)
    if path.stat().st_size != size:
        raise DamagedJob(f"{uri} changed while it was read", fix="export it again.")

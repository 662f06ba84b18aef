"""What a finished job left in S3, brought home in the one layout."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from cloudft.aws.client import Aws
from cloudft.backends.bedrock import request
from cloudft.errors import BadDocument
from cloudft.storage import artifacts as layout
from cloudft.storage.atomic_files import as_store_error, fsync_folder

METRICS_FILES = {
    PurePosixPath(layout.TRAINING_CSV).name: layout.TRAINING_CSV,
    PurePosixPath(layout.VALIDATION_CSV).name: layout.VALIDATION_CSV,
}
MAX_BYTES = 256 * 1024 * 1024
"""An output file above this is not a metrics file; it stays in S3 and result.json names it."""


def download_artifacts(
    aws: Aws,
    answer: Mapping[str, Any],
    owner: str | None,
    folder: Path,
    manifest: Mapping[str, Any],
) -> None:
    """Fill the new folder `to`, whole or not at all, from a completed job's output."""
    with as_store_error(f"the artifacts of {answer['jobName']} can't be kept", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".artifacts-", dir=folder.parent))
        try:
            _download(aws, answer, owner, temporary, manifest)
            temporary.chmod(0o755)
            os.rename(temporary, folder)
        except OSError:
            if not layout.is_complete(folder):  # another process has brought them meanwhile
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        fsync_folder(folder.parent)


def _download(
    aws: Aws,
    answer: Mapping[str, Any],
    owner: str | None,
    folder: Path,
    manifest: Mapping[str, Any],
) -> None:
    bucket, prefix = request.output_location(answer)
    where = {"Bucket": bucket, **({"ExpectedBucketOwner": owner} if owner else {})}
    left = []
    for key, size in list_objects(aws, where, prefix):
        name = _local_name(key.removeprefix(prefix))
        if name is None or size > MAX_BYTES:
            left.append(f"s3://{bucket}/{key}")
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read_object(aws, where, key))
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    (folder / layout.MANIFEST).write_bytes(orjson.dumps(manifest, option=options))
    (folder / layout.RESULT).write_bytes(
        orjson.dumps(_result_document(answer, left), option=options)
    )


def _local_name(name: str) -> str | None:
    """Where a file goes: metrics by their name, at whatever depth; others below `other/`."""
    path = PurePosixPath(name)
    if path.name in METRICS_FILES:
        return METRICS_FILES[path.name]
    if name.endswith("/") or path.name.startswith(".") or ".." in path.parts:
        return None
    return f"other/{path}"


def _result_document(answer: Mapping[str, Any], left: list[str]) -> dict[str, Any]:
    names = ("jobArn", "jobName", "outputModelArn", "outputModelName", "baseModelArn")
    more = ("trainingMetrics", "validationMetrics", "hyperParameters", "customizationType")
    told = {name: answer.get(name) for name in (*names, *more)}
    return {**told, "output": answer["outputDataConfig"]["s3Uri"], "leftInS3": left}


def list_objects(
    aws: Aws, bucket_parameters: Mapping[str, str], prefix: str
) -> Iterator[tuple[str, int]]:
    """Key and size of everything below a prefix."""
    token: dict[str, str] = {}
    while True:
        what = f"s3://{bucket_parameters['Bucket']}/{prefix} can't be listed"
        page = aws.call(what, "s3", "list_objects_v2", Prefix=prefix, **bucket_parameters, **token)
        yield from ((item["Key"], int(item["Size"])) for item in page.get("Contents", ()))
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def read_object(
    aws: Aws, bucket_parameters: Mapping[str, str], key: str, max_bytes: int | None = None
) -> bytes:
    """A small object, whole. Raises BadDocument for one of more than `largest` bytes."""
    what = f"s3://{bucket_parameters['Bucket']}/{key} can't be read"
    answer = aws.call(what, "s3", "get_object", Key=key, **bucket_parameters)
    if max_bytes is not None and answer["ContentLength"] > max_bytes:
        answer["Body"].close()
        size = f"it has {answer['ContentLength']} bytes, more than {max_bytes}"
        raise BadDocument(f"{what}: {size}", file=f"s3://{bucket_parameters['Bucket']}/{key}")
    with aws.translate_errors(what):
        content: bytes = answer["Body"].read()
    return content

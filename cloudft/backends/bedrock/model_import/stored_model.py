"""Check a model that lies in S3 already, without downloading its weights.

Its folder is mirrored: configuration files whole, of the weights only their headers, as sparse
files of the size that they have in S3. So it passes the checks of a folder on this machine.
"""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from cloudft.aws.client import Aws
from cloudft.aws.s3 import Body, bucket_parameters, read_object, split_s3_uri
from cloudft.backends.bedrock.model_import.model_checks import (
    IMPORTED_FILES,
    INDEX,
    WEIGHTS,
    check_model_folder,
    read_json,
)
from cloudft.backends.bedrock.model_import.model_files import CONFIG, GENERATION, TOKENIZER
from cloudft.catalogue import load_import_rules
from cloudft.errors import UsageError
from cloudft.storage.atomic_files import as_store_error
from cloudft.storage.safetensors_header import MAX_HEADER_BYTES
from cloudft.types import Finding

READ_FILES = (CONFIG, GENERATION, TOKENIZER)
"""Files whose content is checked, beside the index; of the others only name and size."""
MAX_READ_BYTES = 16 * 1024 * 1024
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""Names that become files on this machine; a key of S3 may be anything."""


@dataclass(frozen=True)
class StoredFile:
    """An object of the model: its size in bytes, and its ETag, which changes with its content."""

    size: int
    etag: str


def list_model_files(aws: Aws, uri: str, owner: str | None) -> dict[str, StoredFile]:
    """Return the files that Bedrock reads in a folder of S3, by name. Raise UsageError if none.

    Raise CloudRefused and CloudUnreachable where it can't be listed.
    """
    bucket, prefix = split_s3_uri(uri)
    pages = aws.paginate(
        f"{uri} can't be listed",
        "s3",
        "list_objects_v2",
        "Contents",
        Prefix=prefix,
        Delimiter="/",
        **bucket_parameters(bucket, owner),
    )
    objects = {item["Key"].removeprefix(prefix): item for item in pages}
    files = {
        name: StoredFile(int(item["Size"]), str(item["ETag"]))
        for name, item in sorted(objects.items())
        if FILE_NAME.fullmatch(name) and any(fnmatchcase(name, p) for p in IMPORTED_FILES)
    }
    if not files:
        raise UsageError(
            f"there is no model in {uri}: it has no file such as {CONFIG}",
            fix="name the folder with the merged model, such as .../checkpoints/hf_merged/.",
        )
    return files


def check_stored_model(
    aws: Aws,
    uri: str,
    owner: str | None,
    files: Mapping[str, StoredFile],
    checks: Mapping[str, Any],
) -> list[Finding]:
    """Return a finding for all that Bedrock would refuse or load differently.

    `checks` are the options of `check_model_folder`. Raise UsageError, StoreError, CloudRefused and
    CloudUnreachable.
    """
    with tempfile.TemporaryDirectory(prefix="cloudft-model-") as name:
        folder = Path(name)
        for file, stored in files.items():
            _mirror_file(aws, f"{uri}{file}", owner, stored, folder / file)
        findings = [*check_model_folder(folder, **checks), *_check_version(folder)]
        return [_with_uri(finding, f"{folder}/", str(folder), uri) for finding in findings]


def _mirror_file(aws: Aws, uri: str, owner: str | None, stored: StoredFile, path: Path) -> None:
    content = b""
    if path.name in READ_FILES or fnmatchcase(path.name, INDEX):
        bucket, key = split_s3_uri(uri)
        content = read_object(aws, bucket_parameters(bucket, owner), key, MAX_READ_BYTES)
    elif fnmatchcase(path.name, WEIGHTS):
        content = _read_header(aws, uri, owner)
    with as_store_error("the model's files can't be checked", path), path.open("wb") as stream:
        stream.write(content)
        stream.truncate(stored.size)  # sparse: the weights take no room here


def _read_header(aws: Aws, uri: str, owner: str | None) -> bytes:
    """Return the beginning of a safetensors file: eight bytes with a length, and the header."""
    start = _read_range(aws, uri, owner, 0, 8)
    if len(start) < 8:
        return start
    (length,) = struct.unpack("<Q", start)
    if not 0 < length <= MAX_HEADER_BYTES:
        return start
    return start + _read_range(aws, uri, owner, 8, length)


def _read_range(aws: Aws, uri: str, owner: str | None, first: int, count: int) -> bytes:
    bucket, key = split_s3_uri(uri)
    failure = f"{uri} can't be read"
    response = aws.call(
        failure,
        "s3",
        "get_object",
        Key=key,
        Range=f"bytes={first}-{first + count - 1}",
        **bucket_parameters(bucket, owner),
    )
    body: Body = response["Body"]
    with aws.translate_errors(failure, "s3"):
        return body.read()


def _check_version(folder: Path) -> list[Finding]:
    """Check the version of transformers that wrote the model: Bedrock reads with one of its own."""
    if not (folder / CONFIG).is_file():
        return []
    rules = load_import_rules()
    written = read_json(folder / CONFIG).get("transformers_version")
    if written is None or str(written) == rules.transformers:
        return []
    message = (
        f"the model was written by transformers {written}, and Bedrock reads it by"
        f" {rules.transformers} ({rules.source})"
    )
    fix = "compare its answers with those of the model where it was trained."
    return [Finding("warning", "ImportVersion", message, fix, str(folder / CONFIG))]


def _with_uri(finding: Finding, prefix: str, folder: str, uri: str) -> Finding:
    """Return a finding about the mirror as one about the folder in S3."""

    def translate(text: str) -> str:
        return text.replace(prefix, uri).replace(folder, uri)

    if finding.code == "ImportNewerNames":
        finding = replace(finding, fix=f"write rope_theta into {CONFIG}, beside rope_parameters.")
    return replace(
        finding,
        message=translate(finding.message),
        fix=translate(finding.fix or "") or None,
        file=translate(finding.file or uri),
    )

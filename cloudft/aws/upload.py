"""Files to S3: skipped when they are there, in parallel parts, and gone on with after a break.

An object's key is named by its content, so a stale one can't be met. Each part carries its SHA-256
and S3 refuses one that came damaged; the object's own checksum says later that it is whole. No ACL
is ever set. Source: S3 user guide, "Checking object integrity".
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from cloudft.aws.client import Aws

PART = 16 * 1024 * 1024
"""Bytes of a part; above it a file goes in parts."""
PARTS_MAX = 10_000
WORKERS = 4
BLOCK = 1024 * 1024
MIN_LIFETIME = timedelta(days=30)
"""How long an object must still be there to be left alone: longer than a job can run, which is 28
days for a training job on spot capacity. A lifecycle rule counts from the day of the upload."""
EXPIRY_DATE = re.compile(r'expiry-date="([^"]+)"')


@dataclass(frozen=True)
class Upload:
    """One file and where it goes. `sha256` is its digest in hex; `settings` go with the object."""

    path: Path
    bucket: str
    key: str
    sha256: str
    bucket_owner: str | None = None
    kms_key_id: str | None = None

    @property
    def uri(self) -> str:
        """`s3://BUCKET/KEY`."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def object_parameters(self) -> dict[str, str]:
        """What every call about the object says."""
        owner = {"ExpectedBucketOwner": self.bucket_owner} if self.bucket_owner else {}
        return {"Bucket": self.bucket, "Key": self.key, **owner}

    @property
    def create_parameters(self) -> dict[str, Any]:
        """What the object is made with."""
        made: dict[str, Any] = {"Metadata": {"cloudft-sha256": self.sha256}}
        if self.kms_key_id:
            made |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key_id}
        return made


def upload_file(aws: Aws, upload: Upload, progress: Callable[[int], None] | None = None) -> bool:
    """Have the file in S3; False when it was there. `progress` is told bytes as they arrive.

    Raises AwsRefused and AwsUnreachable; the parts that have arrived are kept for the next try.
    """
    told = progress or (lambda size: None)
    size = upload.path.stat().st_size
    if _is_uploaded(aws, upload, size):
        told(size)
        return False
    if size <= PART:
        body = upload.path.read_bytes()
        checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
        aws.call(
            f"{upload.uri} can't be written",
            "s3",
            "put_object",
            Body=body,
            ChecksumSHA256=checksum,
            **upload.object_parameters,
            **upload.create_parameters,
        )
        told(size)
    else:
        _upload_in_parts(aws, upload, size, told)
    return True


def _is_uploaded(aws: Aws, wanted: Upload, size: int) -> bool:
    """True when the object is there with this content, and stays: its length, our digest, S3's
    checksum, and no lifecycle rule that removes it while a job may still read it.
    """
    from cloudft.errors import ResourceNotFound

    try:
        what = f"{wanted.uri} can't be looked at"
        found = aws.call(
            what, "s3", "head_object", ChecksumMode="ENABLED", **wanted.object_parameters
        )
    except ResourceNotFound:
        return False
    same = found.get("Metadata", {}).get("cloudft-sha256") == wanted.sha256
    if not same or int(found["ContentLength"]) != size or _expires_soon(found):
        return False
    checksum = found.get("ChecksumSHA256")
    return checksum is None or checksum.partition("-")[0] in _file_checksums(wanted.path, size)


def _expires_soon(found: Mapping[str, Any]) -> bool:
    """True when S3 says that a lifecycle rule removes the object soon (header x-amz-expiration)."""
    expiry = EXPIRY_DATE.search(found.get("Expiration", ""))
    if expiry is None:
        return False
    return parsedate_to_datetime(expiry[1]) < datetime.now(timezone.utc) + MIN_LIFETIME


def _file_checksums(path: Path, size: int) -> tuple[str, str]:
    """The checksum of the whole file, and that of its parts' digests, as S3 shows them."""
    whole, parts = hashlib.sha256(), hashlib.sha256()
    for piece in _part_ranges(size):
        part = _FilePart(path, *piece[1:])
        digest = hashlib.sha256()
        while block := part.read(BLOCK):
            whole.update(block)
            digest.update(block)
        parts.update(digest.digest())
        part.close()
    both = (base64.b64encode(d.digest()).decode() for d in (whole, parts))
    return next(both), next(both)


def _part_ranges(size: int) -> Iterator[tuple[int, int, int]]:
    """Number, offset and length of each part."""
    step = max(PART, -(-size // PARTS_MAX))
    for number, offset in enumerate(range(0, size, step), 1):
        yield number, offset, min(step, size - offset)


class _FilePart:
    """A stretch of a file, as botocore reads a body: seekable, of a known length."""

    def __init__(self, path: Path, offset: int, length: int) -> None:
        self._file = path.open("rb")
        self._offset, self._length = offset, length
        self._file.seek(offset)

    def __len__(self) -> int:
        return self._length

    def read(self, count: int | None = -1) -> bytes:
        """Up to `count` bytes of the stretch."""
        left = self._length - self.tell()
        wanted = left if count is None or count < 0 else min(count, left)
        return self._file.read(wanted)

    def tell(self) -> int:
        """The place within the stretch."""
        return self._file.tell() - self._offset

    def seek(self, where: int, whence: int = 0) -> int:
        """Go to a place within the stretch."""
        base = {0: 0, 1: self.tell(), 2: self._length}[whence]
        self._file.seek(self._offset + base + where)
        return self.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _upload_in_parts(aws: Aws, wanted: Upload, size: int, told: Callable[[int], None]) -> None:
    what = f"{wanted.uri} can't be written"
    upload_id, there = _resume_or_create(aws, wanted)

    def send(piece: tuple[int, int, int]) -> Mapping[str, Any]:
        number, offset, length = piece
        body = _FilePart(wanted.path, offset, length)
        try:
            digest = hashlib.sha256()
            while block := body.read(BLOCK):
                digest.update(block)
            checksum = base64.b64encode(digest.digest()).decode()
            known = there.get(number)
            body.seek(0)
            if known is None or not _is_same_part(known, checksum, body):
                body.seek(0)
                known = aws.call(
                    what,
                    "s3",
                    "upload_part",
                    Body=body,
                    PartNumber=number,
                    UploadId=upload_id,
                    ChecksumSHA256=checksum,
                    **wanted.object_parameters,
                )
        finally:
            body.close()
        told(length)
        return {"PartNumber": number, "ETag": known["ETag"], "ChecksumSHA256": checksum}

    aws.client("s3")  # made once, before threads ask for it
    pool = ThreadPoolExecutor(WORKERS)
    try:
        parts = list(pool.map(send, _part_ranges(size)))
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()
    done = {"MultipartUpload": {"Parts": parts}, "UploadId": upload_id}
    aws.call(what, "s3", "complete_multipart_upload", **wanted.object_parameters, **done)


def _is_same_part(part: Mapping[str, Any], checksum: str, body: _FilePart) -> bool:
    """True when a part that arrived earlier is this one. A server without checksums has MD5s."""
    if "ChecksumSHA256" in part:
        return bool(part["ChecksumSHA256"] == checksum)
    digest = hashlib.md5(usedforsecurity=False)
    while block := body.read(BLOCK):
        digest.update(block)
    return bool(part["ETag"].strip('"') == digest.hexdigest())


def _resume_or_create(aws: Aws, wanted: Upload) -> tuple[str, dict[int, Mapping[str, Any]]]:
    """The upload of this key that an earlier try began, with its parts; else a new one."""
    what = f"{wanted.uri} can't be written"
    where = {k: v for k, v in wanted.object_parameters.items() if k != "Key"}
    answer = aws.call(what, "s3", "list_multipart_uploads", Prefix=wanted.key, **where)
    begun = [u for u in answer.get("Uploads", ()) if u["Key"] == wanted.key]
    if not begun:
        made = aws.call(
            what,
            "s3",
            "create_multipart_upload",
            ChecksumAlgorithm="SHA256",
            **wanted.object_parameters,
            **wanted.create_parameters,
        )
        return made["UploadId"], {}
    upload_id = max(begun, key=lambda u: u["Initiated"])["UploadId"]
    found: dict[int, Mapping[str, Any]] = {}
    marker = 0
    while True:
        page = aws.call(
            what,
            "s3",
            "list_parts",
            UploadId=upload_id,
            PartNumberMarker=marker,
            **wanted.object_parameters,
        )
        found |= {int(part["PartNumber"]): part for part in page.get("Parts", ())}
        if not page.get("IsTruncated"):
            return upload_id, found
        marker = int(page["NextPartNumberMarker"])

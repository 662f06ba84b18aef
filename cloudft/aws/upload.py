"""Resumable, parallel, checksum-verified S3 uploads; a file that is in S3 already is skipped.

An object's key contains the digest of its content, so an outdated object can't be mistaken for it.
Each part carries its SHA-256, and S3 refuses one that was damaged on its way; the object's own
checksum later proves that it is complete. No ACL is ever set. Source: S3 user guide, "Checking
object integrity".
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple, TypedDict

from cloudft.aws.client import Aws, Response
from cloudft.aws.s3 import bucket_parameters, s3_uri
from cloudft.errors import ResourceNotFound

PART = 16 * 1024 * 1024
"""Bytes of a part. A larger file is uploaded in parts."""
PARTS_MAX = 10_000
WORKERS = 4
BLOCK = 1024 * 1024
MIN_LIFETIME = timedelta(days=30)
"""How long an object must still exist to count as uploaded: longer than a job can run, which is 28
days for a training job on spot capacity. A lifecycle rule counts from the day of the upload."""
EXPIRY_DATE = re.compile(r'expiry-date="([^"]+)"')


class CompletedPart(TypedDict):
    """A part of an upload, as CompleteMultipartUpload takes it."""

    PartNumber: int
    ETag: str
    ChecksumSHA256: str


class PartRange(NamedTuple):
    """Number, offset and length in bytes of a part; numbers count from 1."""

    number: int
    offset: int
    length: int


@dataclass(frozen=True)
class Upload:
    """A file and its S3 destination. `sha256` is its digest in hex."""

    path: Path
    bucket: str
    key: str
    sha256: str
    bucket_owner: str | None = None
    kms_key_id: str | None = None

    @property
    def uri(self) -> str:
        """Return `s3://BUCKET/KEY`."""
        return s3_uri(self.bucket, self.key)

    @property
    def object_parameters(self) -> dict[str, str]:
        """Return the parameters that every call about the object has."""
        return {**bucket_parameters(self.bucket, self.bucket_owner), "Key": self.key}

    @property
    def create_parameters(self) -> dict[str, str | dict[str, str]]:
        """Return the parameters of calls that create the object: metadata and encryption."""
        parameters: dict[str, str | dict[str, str]] = {"Metadata": {"cloudft-sha256": self.sha256}}
        if self.kms_key_id:
            parameters |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key_id}
        return parameters


def upload_file(aws: Aws, upload: Upload, progress: Callable[[int], None] | None = None) -> bool:
    """Upload a file unless it is in S3 already; return whether anything was sent.

    `progress` is called with the bytes that arrived. Raise CloudRefused and CloudUnreachable; the
    parts that arrived are kept for the next attempt.
    """
    on_progress = progress or (lambda size: None)
    size = upload.path.stat().st_size
    if _is_uploaded(aws, upload, size):
        on_progress(size)
        return False
    if size > PART:
        _upload_in_parts(aws, upload, size, on_progress)
        return True
    body = upload.path.read_bytes()
    aws.call(
        f"{upload.uri} can't be written",
        "s3",
        "put_object",
        Body=body,
        ChecksumSHA256=_base64(hashlib.sha256(body)),
        **upload.object_parameters,
        **upload.create_parameters,
    )
    on_progress(size)
    return True


def _base64(digest: hashlib._Hash) -> str:
    return base64.b64encode(digest.digest()).decode()


def _is_uploaded(aws: Aws, upload: Upload, size: int) -> bool:
    """Return whether the object exists with this content and will last.

    Compares its length, cloudft's digest in its metadata and S3's checksum. False if a lifecycle
    rule removes the object while a job may still read it.
    """
    try:
        head = aws.call(
            f"{upload.uri} can't be read",
            "s3",
            "head_object",
            ChecksumMode="ENABLED",
            **upload.object_parameters,
        )
    except ResourceNotFound:
        return False
    is_same = head.get("Metadata", {}).get("cloudft-sha256") == upload.sha256
    if not is_same or int(head["ContentLength"]) != size or _expires_soon(head):
        return False
    checksum = head.get("ChecksumSHA256")
    return checksum is None or checksum.partition("-")[0] in _file_checksums(upload.path, size)


def _expires_soon(head: Response) -> bool:
    """Return whether a lifecycle rule removes the object soon (header x-amz-expiration)."""
    expiry = EXPIRY_DATE.search(head.get("Expiration", ""))
    if expiry is None:
        return False
    return parsedate_to_datetime(expiry[1]) < datetime.now(timezone.utc) + MIN_LIFETIME


def _file_checksums(path: Path, size: int) -> tuple[str, str]:
    """Return the checksum of the whole file, and that of its parts' digests, as S3 shows them."""
    whole, parts = hashlib.sha256(), hashlib.sha256()
    for part_range in _part_ranges(size):
        part = _FilePart(path, part_range)
        digest = hashlib.sha256()
        while block := part.read(BLOCK):
            whole.update(block)
            digest.update(block)
        parts.update(digest.digest())
        part.close()
    return _base64(whole), _base64(parts)


def _part_ranges(size: int) -> Iterator[PartRange]:
    """Yield the parts of a file of `size` bytes: PART bytes each, more above PARTS_MAX parts."""
    step = max(PART, -(-size // PARTS_MAX))
    for number, offset in enumerate(range(0, size, step), 1):
        yield PartRange(number, offset, min(step, size - offset))


class _FilePart:
    """A range of a file in the form of botocore's request bodies: seekable, of a known length."""

    def __init__(self, path: Path, part: PartRange) -> None:
        self._file = path.open("rb")
        self._offset, self._length = part.offset, part.length
        self._file.seek(part.offset)

    def __len__(self) -> int:
        return self._length

    def read(self, count: int | None = -1) -> bytes:
        """Read up to `count` bytes of the range; all that are left if None or negative."""
        left = self._length - self.tell()
        size = left if count is None or count < 0 else min(count, left)
        return self._file.read(size)

    def tell(self) -> int:
        """Return the position within the range."""
        return self._file.tell() - self._offset

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position within the range; return it."""
        base = {0: 0, 1: self.tell(), 2: self._length}[whence]
        self._file.seek(self._offset + base + offset)
        return self.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _upload_in_parts(aws: Aws, upload: Upload, size: int, progress: Callable[[int], None]) -> None:
    failure = f"{upload.uri} can't be written"
    upload_id, existing_parts = _resume_or_create(aws, upload)

    def send_part(part_range: PartRange) -> CompletedPart:
        body = _FilePart(upload.path, part_range)
        try:
            digest = hashlib.sha256()
            while block := body.read(BLOCK):
                digest.update(block)
            checksum = _base64(digest)
            part = existing_parts.get(part_range.number)
            body.seek(0)
            if part is None or not _is_same_part(part, checksum, body):
                body.seek(0)
                part = aws.call(
                    failure,
                    "s3",
                    "upload_part",
                    Body=body,
                    PartNumber=part_range.number,
                    UploadId=upload_id,
                    ChecksumSHA256=checksum,
                    **upload.object_parameters,
                )
        finally:
            body.close()
        progress(part_range.length)
        return {"PartNumber": part_range.number, "ETag": part["ETag"], "ChecksumSHA256": checksum}

    aws.client("s3")  # create it before the threads do, each for itself
    pool = ThreadPoolExecutor(WORKERS)
    try:
        parts = list(pool.map(send_part, _part_ranges(size)))
    except BaseException:
        # Parts under way are finished: the next attempt resumes after them.
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()
    aws.call(
        failure,
        "s3",
        "complete_multipart_upload",
        MultipartUpload={"Parts": parts},
        UploadId=upload_id,
        **upload.object_parameters,
    )


def _is_same_part(part: Response, checksum: str, body: _FilePart) -> bool:
    """Return whether a part that arrived earlier has this content.

    A server without checksums has the part's MD5 as its ETag.
    """
    if "ChecksumSHA256" in part:
        return bool(part["ChecksumSHA256"] == checksum)
    digest = hashlib.md5(usedforsecurity=False)
    while block := body.read(BLOCK):
        digest.update(block)
    return bool(part["ETag"].strip('"') == digest.hexdigest())


def _resume_or_create(aws: Aws, upload: Upload) -> tuple[str, dict[int, Response]]:
    """Return the id of the key's newest unfinished upload with its parts; else of a new one."""
    failure = f"{upload.uri} can't be written"
    bucket = {k: v for k, v in upload.object_parameters.items() if k != "Key"}
    response = aws.call(failure, "s3", "list_multipart_uploads", Prefix=upload.key, **bucket)
    unfinished = [u for u in response.get("Uploads", ()) if u["Key"] == upload.key]
    if not unfinished:
        created = aws.call(
            failure,
            "s3",
            "create_multipart_upload",
            ChecksumAlgorithm="SHA256",
            **upload.object_parameters,
            **upload.create_parameters,
        )
        return created["UploadId"], {}
    upload_id: str = max(unfinished, key=lambda u: u["Initiated"])["UploadId"]
    parts = aws.paginate(
        failure, "s3", "list_parts", "Parts", UploadId=upload_id, **upload.object_parameters
    )
    return upload_id, {int(part["PartNumber"]): part for part in parts}

"""Objects of S3: listed by URI, and read as a stream that goes on where a connection broke."""

from __future__ import annotations

import fnmatch
import io
from collections.abc import Iterator
from typing import Any

from cloudft.aws.client import create_client, translate_aws_errors

MAX_ATTEMPTS = 5


def split_s3_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of `s3://BUCKET/KEY`; the key may be empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def list_object_uris(uri: str) -> Iterator[str]:
    """The URIs of the objects that `uri` means, sorted: one object, a folder (prefix), or a glob.

    Raises AwsRefused and AwsUnreachable.
    """
    bucket, key = split_s3_uri(uri)
    fixed = key[: min([key.find(c) for c in "*?[" if c in key], default=len(key))]
    s3 = create_client("s3")
    with translate_aws_errors(f"{uri} can't be listed"):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=fixed)
        keys = sorted(found["Key"] for page in pages for found in page.get("Contents", ()))
    for name in keys:
        below = not key or name.startswith(key.rstrip("/") + "/")
        wanted = fnmatch.fnmatchcase(name, key) if fixed != key else name == key or below
        if wanted and not name.endswith("/"):
            yield f"s3://{bucket}/{name}"


class ObjectStream(io.RawIOBase):
    """An object's bytes, from the first to the last of one version of it.

    When the connection breaks off, reading goes on behind the last byte; an object that was
    replaced meanwhile is refused. Raises AwsRefused and AwsUnreachable.
    """

    def __init__(self, uri: str, s3: Any = None) -> None:
        """`s3` is a client of boto3's; one by the environment is made without."""
        super().__init__()
        self._uri = uri
        self._bucket, self._key = split_s3_uri(uri)
        self._client = s3 or create_client("s3")
        self._offset, self._etag = 0, ""
        with translate_aws_errors(f"{uri} can't be read"):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key)
        self._etag, self._size = answer["ETag"], int(answer["ContentLength"])
        self._body: Any = answer["Body"]

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Up to as many bytes as there is room for; 0 at the end."""
        with memoryview(buffer) as view, translate_aws_errors(f"{self._uri} can't be read"):
            content = self._read(min(len(view), self._size - self._offset))
            view[: len(content)] = content
        self._offset += len(content)
        return len(content)

    def _read(self, count: int) -> bytes:
        from botocore.exceptions import IncompleteReadError, ResponseStreamingError
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

        if not count:
            return b""
        broken = (IncompleteReadError, ResponseStreamingError, OSError)
        for attempt in Retrying(
            retry=retry_if_exception_type(broken),
            stop=stop_after_attempt(MAX_ATTEMPTS),
            wait=wait_exponential(multiplier=0.2, max=5),
            reraise=True,
        ):
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    self._reopen()
                content: bytes = self._body.read(count)
                if not content:
                    raise IncompleteReadError(actual_bytes=self._offset, expected_bytes=self._size)
        return content

    def _reopen(self) -> None:
        answer = self._client.get_object(
            Bucket=self._bucket, Key=self._key, Range=f"bytes={self._offset}-", IfMatch=self._etag
        )
        self._body = answer["Body"]

    def close(self) -> None:
        """Give the connection back."""
        if not self.closed:
            self._body.close()
        super().close()

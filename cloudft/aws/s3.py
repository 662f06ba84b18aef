"""S3 addresses, listings, and objects read as streams that survive a broken connection."""

from __future__ import annotations

import fnmatch
import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from cloudft.aws.client import Aws, create_client
from cloudft.aws.error_translation import translate_aws_errors
from cloudft.errors import BadDocument

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from botocore.client import BaseClient

MAX_ATTEMPTS = 5


class Body(Protocol):
    """A response's body, as botocore streams it."""

    def read(self, amount: int | None = None, /) -> bytes:
        """Return up to `amount` bytes; all that are left if None."""

    def close(self) -> None:
        """Return the connection."""


def split_s3_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of `s3://BUCKET/KEY`; the key may be empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def s3_uri(bucket: str, key: str) -> str:
    """Return `s3://BUCKET/KEY`."""
    return f"s3://{bucket}/{key}"


def bucket_parameters(bucket: str, owner: str | None) -> dict[str, str]:
    """Return a bucket as S3's operations take it, with the account that must own it, if known."""
    return {"Bucket": bucket, **({"ExpectedBucketOwner": owner} if owner else {})}


def list_objects(
    aws: Aws, bucket_parameters: Mapping[str, str], prefix: str
) -> Iterator[tuple[str, int]]:
    """Yield key and size in bytes of every object below a prefix."""
    failure = f"{s3_uri(bucket_parameters['Bucket'], prefix)} can't be listed"
    objects = aws.paginate(
        failure, "s3", "list_objects_v2", "Contents", Prefix=prefix, **bucket_parameters
    )
    for item in objects:
        yield item["Key"], int(item["Size"])


def read_object(
    aws: Aws, bucket_parameters: Mapping[str, str], key: str, max_bytes: int | None = None
) -> bytes:
    """Return the content of a small object. Raise BadDocument for one above `max_bytes`."""
    uri = s3_uri(bucket_parameters["Bucket"], key)
    failure = f"{uri} can't be read"
    response = aws.call(failure, "s3", "get_object", Key=key, **bucket_parameters)
    body: Body = response["Body"]
    if max_bytes is not None and response["ContentLength"] > max_bytes:
        body.close()
        size = f"it has {response['ContentLength']} bytes, more than {max_bytes}"
        raise BadDocument(f"{failure}: {size}", file=uri)
    with aws.translate_errors(failure, "s3"):
        return body.read()


def list_object_uris(uri: str) -> Iterator[str]:
    """Yield the URIs of the objects that `uri` means, sorted: one object, a prefix, or a glob.

    Raise CloudRefused and CloudUnreachable.
    """
    bucket, key = split_s3_uri(uri)
    # S3 lists by prefix alone: list what is before the first wildcard, then match the keys here.
    prefix = key[: min([key.find(c) for c in "*?[" if c in key], default=len(key))]
    client = create_client("s3")
    with translate_aws_errors(f"{uri} can't be listed", service="s3"):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        names = sorted(item["Key"] for page in pages for item in page.get("Contents", ()))
    for name in names:
        is_below = not key or name.startswith(key.rstrip("/") + "/")
        matches = fnmatch.fnmatchcase(name, key) if prefix != key else name == key or is_below
        if matches and not name.endswith("/"):
            yield s3_uri(bucket, name)


class ObjectStream(io.RawIOBase):
    """The bytes of one version of an object.

    When the connection breaks, reading resumes after the last byte; an object that was replaced
    meanwhile is refused. Raise CloudRefused and CloudUnreachable.
    """

    def __init__(self, uri: str, s3: BaseClient | None = None) -> None:
        """Open the object with the boto3 client `s3`; with one of the environment if None."""
        super().__init__()
        self._uri = uri
        self._bucket, self._key = split_s3_uri(uri)
        self._client = s3 or create_client("s3")
        self._offset, self._etag = 0, ""
        with translate_aws_errors(f"{uri} can't be read", service="s3"):
            response = self._client.get_object(Bucket=self._bucket, Key=self._key)
        self._etag, self._size = response["ETag"], int(response["ContentLength"])
        self._body: Body = response["Body"]

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read up to as many bytes as `buffer` holds; return their number, 0 at the end."""
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
                content = self._body.read(count)
                if not content:
                    # The server closed the connection early; botocore reports this only at the end.
                    raise IncompleteReadError(actual_bytes=self._offset, expected_bytes=self._size)
        return content

    def _reopen(self) -> None:
        """Request the rest of the object; IfMatch refuses another version of it."""
        response = self._client.get_object(
            Bucket=self._bucket,
            Key=self._key,
            Range=f"bytes={self._offset}-",
            IfMatch=self._etag,
        )
        self._body = response["Body"]

    def close(self) -> None:
        """Return the connection."""
        if not self.closed:
            self._body.close()
        super().close()

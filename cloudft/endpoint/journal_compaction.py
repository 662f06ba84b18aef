"""Which requests of the journal still matter: those whose effect nothing later undid.

An object of S3 that was overwritten or deleted needs none of the requests that made it, and a
deleted bucket none of its own. Everything that is not surely undone is kept: versioned buckets
whole, other services whole, what was copied for as long as the copy lives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import unescape
from urllib.parse import unquote

from cloudft.endpoint.journal_line import JournalLine, S3Write, s3_write

FREEZES = {"versioning", "object-lock", "notification", "replication", "versionid"}
"""Query parameters after which a bucket is kept whole: what is deleted there leaves a trace."""
LOCKED = "HTTP_X_AMZ_BUCKET_OBJECT_LOCK_ENABLED"
APPENDS = "HTTP_X_AMZ_WRITE_OFFSET_BYTES"
DELETED_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)


@dataclass
class StoredObject:
    """The requests that made one object as it is.

    While `copies` (requests that read it) live, what it was before stays in `earlier`.
    """

    current: list[int] = field(default_factory=list)
    earlier: list[int] = field(default_factory=list)
    copies: set[int] = field(default_factory=set)


@dataclass
class Bucket:
    """One bucket. Nothing is dropped from one that is `frozen`."""

    made: list[int] = field(default_factory=list)
    objects: dict[str, StoredObject] = field(default_factory=dict)
    uploads: dict[str, list[int]] = field(default_factory=dict)
    frozen: bool = False

    def object(self, key: str) -> StoredObject:
        """Return the object of that key, known or not."""
        return self.objects.setdefault(key, StoredObject())

    def forget_deleted(self, keys: Iterable[str]) -> None:
        """Keep no record of objects that left nothing."""
        for key in keys:
            if self.objects.get(key) == StoredObject():
                del self.objects[key]


class Compaction:
    """Follows the journal's requests in their order. `dead` are the numbers not needed any more."""

    def __init__(self) -> None:
        self.dead: set[int] = set()
        self._buckets: dict[str, Bucket] = {}
        self._sources: dict[int, StoredObject] = {}
        self._unclear = False

    def add(self, number: int, line: JournalLine) -> None:
        """Take the next request, which moto has taken."""
        if self._unclear:
            return
        try:
            write = s3_write(line.environ)
        except ValueError:  # it may have changed any bucket: drop nothing from here on
            self._unclear = True
            return
        if write is None:
            return
        bucket = self._buckets.setdefault(write.bucket, Bucket())
        if write.parameters & FREEZES or LOCKED in line.environ:
            bucket.frozen = True
        self._unclear = "replication" in write.parameters
        if bucket.frozen:
            self._follow_copy(number, write)
        elif write.key:
            self._object(number, line, write, bucket)
        else:
            self._bucket(number, line, write, bucket)

    def _bucket(self, number: int, line: JournalLine, write: S3Write, bucket: Bucket) -> None:
        """Take a request for a bucket as a whole."""
        if write.method == "DELETE" and not write.parameters:
            self._delete_bucket(number, write.bucket, bucket)
        elif write.method == "POST" and "delete" in write.parameters:
            self._delete_objects(number, line, bucket)
        elif write.method == "POST":  # a browser's form: its key is in the body
            bucket.frozen = True
        else:
            bucket.made.append(number)

    def _delete_objects(self, number: int, line: JournalLine, bucket: Bucket) -> None:
        keys = [unescape(found.decode()) for found in DELETED_KEY.findall(line.body)]
        objects = [bucket.object(key.encode().decode("latin-1")) for key in keys]
        if all(stored.current and not stored.copies for stored in objects):
            self.dead.add(number)
        else:  # one of them comes back, for a copy or from elsewhere
            bucket.made.append(number)
        for stored in objects:
            self._replace(stored, [])
        bucket.forget_deleted(key.encode().decode("latin-1") for key in keys)

    def _delete_bucket(self, number: int, name: str, bucket: Bucket) -> None:
        if any(stored.copies or stored.earlier for stored in bucket.objects.values()):
            bucket.frozen = True
            return
        for stored in bucket.objects.values():
            self._drop(stored.current)
        for lines in bucket.uploads.values():
            self._drop(lines)
        self._drop([*bucket.made, number])
        del self._buckets[name]

    def _object(self, number: int, line: JournalLine, write: S3Write, bucket: Bucket) -> None:
        """Take a request for an object."""
        stored = bucket.object(write.key)
        if write.parameters & {"uploads", "uploadid", "partnumber"}:
            self._multipart(number, line, write, bucket)
        elif write.parameters or APPENDS in line.environ or write.method == "POST":
            (stored.current or bucket.made).append(number)  # its tags, say
        elif write.method == "DELETE":
            self._delete_object(number, write.key, bucket)
        elif write.source == (write.bucket, write.key):
            stored.current.append(number)
        else:
            self._replace(stored, [number])
            self._follow_copy(number, write)

    def _delete_object(self, number: int, key: str, bucket: Bucket) -> None:
        stored = bucket.object(key)
        known = bool(stored.current)
        if self._replace(stored, []):
            stored.earlier.append(number)
        elif known:
            self.dead.add(number)
        else:  # another service of moto may have made it
            bucket.made.append(number)
        bucket.forget_deleted([key])

    def _multipart(self, number: int, line: JournalLine, write: S3Write, bucket: Bucket) -> None:
        query = line.environ.get("QUERY_STRING", "")
        found = re.search(r"uploadId=([^&]+)", query, re.IGNORECASE)
        identifier = unquote(found[1]) if found else line.upload
        if identifier is None or (found and identifier not in bucket.uploads):
            bucket.frozen = True
            return
        lines = bucket.uploads.setdefault(identifier, [])
        lines.append(number)
        self._follow_copy(number, write)
        if write.method == "DELETE":
            self._drop(bucket.uploads.pop(identifier))
        elif write.method == "POST" and found:
            self._replace(bucket.object(write.key), bucket.uploads.pop(identifier))

    def _replace(self, stored: StoredObject, lines: list[int]) -> bool:
        """Let an object be what `lines` make; return whether its past is kept for a copy."""
        if stored.copies:
            stored.earlier += stored.current
        else:
            self._drop(stored.current)
        stored.current = lines
        return bool(stored.copies)

    def _follow_copy(self, number: int, write: S3Write) -> None:
        """Keep what a request copies from for as long as the request is kept."""
        if write.source is not None:
            bucket, key = write.source
            source = self._buckets.setdefault(bucket, Bucket()).object(key)
            source.copies.add(number)
            self._sources[number] = source

    def _drop(self, numbers: Iterable[int]) -> None:
        waiting = list(numbers)
        while waiting:
            number = waiting.pop()
            self.dead.add(number)
            source = self._sources.pop(number, None)
            if source is not None:
                source.copies.discard(number)
                if not source.copies:
                    waiting += source.earlier
                    source.earlier = []

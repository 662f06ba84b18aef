"""Examples as flat arrays, which may be files that are mapped into memory.

    ids.bin    token ids of all examples, one after another: uint16 where all fit, else int32
    mask.bin   which of them carry loss: one bit a token, the first in the highest bit
    ends.bin   where each example ends in `ids`: int64
    rows.bin   lengths of an example's sequences, where it has several: int32 [examples, sequences]
    meta.json  counts, and each file's length and SHA-256; written last

An example is made when it is read, so the memory that they take does not grow with their number:
the pages of a mapped file are the system's to drop.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypedDict

import numpy as np

from local_backend.data.examples import EncodedData, Example, ExampleSequence
from local_backend.job_dir import write_json

IDS, MASK, ENDS, ROWS, META = "ids.bin", "mask.bin", "ends.bin", "rows.bin", "meta.json"
FILES = (IDS, MASK, ENDS, ROWS)
IdType = np.dtype[np.uint16] | np.dtype[np.int32]
NARROW = np.dtype(np.uint16)
WIDE = np.dtype(np.int32)
HASH_BLOCK = 1 << 20


class TokenArrays(ExampleSequence):
    """A sequence of examples, each made of the arrays when it is read.

    `ids` [tokens], `mask` [ceil(tokens / 8)] of uint8, `ends` [examples] of int64, and `rows`
    [examples, sequences] of int32, or None where an example is one sequence.
    """

    def __init__(
        self, ids: np.ndarray, mask: np.ndarray, ends: np.ndarray, rows: np.ndarray | None
    ) -> None:
        self.ids, self.mask, self.ends, self.rows = ids, mask, ends, rows

    @classmethod
    def of(cls, examples: Sequence[Example]) -> TokenArrays:
        """Return the arrays of these examples. All must have equally many sequences."""
        if isinstance(examples, cls):
            return examples
        empty = np.empty(0, dtype=WIDE)
        ids = np.concatenate([empty, *(example.ids for example in examples)])
        mask = np.concatenate([empty.astype(bool), *(example.loss_mask for example in examples)])
        ends = np.cumsum([len(example.ids) for example in examples], dtype=np.int64)
        row_lengths = [example.row_lengths for example in examples]
        rows = np.array(row_lengths, dtype=np.int32) if any(row_lengths) else None
        return cls(ids, np.packbits(mask), ends, rows)

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[Example]:
        return map(self.read, range(len(self)))

    def read(self, at: int) -> Example:
        """Return the example at `at`, in arrays of its own."""
        start, end = int(self.ends[at - 1]) if at else 0, int(self.ends[at])
        # Copies: they outlive the arrays, and PyTorch warns of arrays that can't be written.
        ids = self.ids[start:end].astype(np.int32)
        bits = np.unpackbits(self.mask[start >> 3 : (end + 7) >> 3])[start & 7 :]
        rows = () if self.rows is None else tuple(self.rows[at].tolist())
        return Example(ids, bits[: end - start].view(bool), row_lengths=rows)

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each example, [examples]."""
        return np.diff(self.ends, prepend=0)

    @property
    def unpacked_mask(self) -> np.ndarray:
        """Return the mask with a byte for each token, [tokens] of uint8."""
        return np.unpackbits(self.mask, count=len(self.ids))


class FileMeta(TypedDict):
    """Length in bytes and SHA-256 of a file."""

    size: int
    sha256: str


class Meta(TypedDict):
    """meta.json. `tokens` and what follows are the counts of EncodedData."""

    dtype: str
    rows: int
    files: dict[str, FileMeta]
    records: int
    tokens: int
    loss_tokens: int
    truncated: int
    masked: int
    longest: int
    last_turn_only: int
    highest_id: int


COUNTS = (
    *("records", "tokens", "loss_tokens", "truncated", "masked", "longest", "last_turn_only"),
    "highest_id",
)
"""The keys of meta.json that are fields of EncodedData."""


class TooHighId(Exception):
    """Raised when a token id does not fit the type that the ids are written in."""


@dataclass
class _HashedFile:
    """A file that is written, with its length and digest."""

    stream: IO[bytes]
    size: int = 0

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()

    def write(self, raw: bytes) -> None:
        self.stream.write(raw)
        self._digest.update(raw)
        self.size += len(raw)

    def close(self) -> FileMeta:
        self.stream.close()
        return {"size": self.size, "sha256": self._digest.hexdigest()}


class ArrayWriter:
    """Writes blocks of examples to a folder, one after another.

    The files are readable by their owner alone: they hold what a job is trained with.
    """

    def __init__(self, folder: Path, dtype: IdType) -> None:
        self._folder, self._dtype = folder, dtype
        self._files = {name: _HashedFile(_open_private(folder / name)) for name in FILES}
        self._bits = np.empty(0, dtype=np.uint8)
        """Up to seven bits of the mask that do not fill a byte yet."""
        self._rows = 0
        self.counts = EncodedData([], 0)

    @property
    def size(self) -> int:
        """Return the bytes written so far."""
        return sum(file.size for file in self._files.values())

    def append(self, block: EncodedData) -> None:
        """Write a block's examples and add its counts. Raise TooHighId."""
        arrays, limit = TokenArrays.of(block.examples), np.iinfo(self._dtype).max
        if block.highest_id > limit:
            raise TooHighId(block.highest_id)
        bits = np.concatenate([self._bits, arrays.unpacked_mask])
        whole = len(bits) - len(bits) % 8
        self._files[IDS].write(arrays.ids.astype(self._dtype).tobytes())
        self._files[MASK].write(np.packbits(bits[:whole]).tobytes())
        self._files[ENDS].write((arrays.ends + self.counts.tokens).astype("<i8").tobytes())
        if arrays.rows is not None:
            self._rows = arrays.rows.shape[1]
            self._files[ROWS].write(arrays.rows.astype("<i4").tobytes())
        self._bits = bits[whole:]
        self.counts.add_counts(block)

    def close(self) -> None:
        """Write what is left, and meta.json."""
        self._files[MASK].write(np.packbits(self._bits).tobytes())
        meta = {"dtype": self._dtype.name, "rows": self._rows}
        meta |= {"files": {name: file.close() for name, file in self._files.items()}}
        counts = {name: getattr(self.counts, name) for name in COUNTS}
        write_json(self._folder / META, meta | counts)

    def abandon(self) -> None:
        """Close the files of what is not to be kept."""
        for file in self._files.values():
            file.stream.close()


def _open_private(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def open_arrays(folder: Path) -> EncodedData | None:
    """Return the examples of a folder, mapped; None if it has none, or a file is damaged.

    Reads every file once, to compare its digest.
    """
    try:
        meta: Meta = json.loads((folder / META).read_text(encoding="utf-8"))
        mapped = {name: _map_checked(folder / name, meta["files"][name]) for name in FILES}
        ids = np.frombuffer(mapped[IDS], dtype=meta["dtype"])
        ends = np.frombuffer(mapped[ENDS], dtype="<i8")
        rows = np.frombuffer(mapped[ROWS], dtype="<i4").reshape(-1, meta["rows"] or 1)
        arrays = TokenArrays(
            ids, np.frombuffer(mapped[MASK], dtype=np.uint8), ends, rows if meta["rows"] else None
        )
        counts = {name: int(meta[name]) for name in COUNTS}  # type: ignore[literal-required]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return EncodedData(arrays, **counts)


def _map_checked(path: Path, meta: FileMeta) -> mmap.mmap | bytes:
    """Return a file's content, mapped. Raise ValueError if it is not what was written."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != meta["size"]:
            raise ValueError(f"{path} has another length")
        digest, read = hashlib.sha256(), _block_reader(file)
        # Read and not mapped, so that the pages do not become this process's.
        while block := read():
            digest.update(block)
        if digest.hexdigest() != meta["sha256"]:
            raise ValueError(f"{path} has another content")
        if not meta["size"]:
            return b""  # an empty file can't be mapped
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _block_reader(file: IO[bytes]) -> Callable[[], memoryview]:
    """Return a function that reads the next block into one buffer."""
    buffer = memoryview(bytearray(HASH_BLOCK))

    def read() -> memoryview:
        size = file.readinto(buffer)  # type: ignore[attr-defined]
        return buffer[:size]

    return read

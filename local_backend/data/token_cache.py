"""Tokens are made once: a staged file's examples are kept as arrays, by what they follow from.

    KEY/          the arrays (token_arrays.py); complete or absent
    KEY.lock      held (flock) by the process that makes KEY, and gone afterwards

KEY is the digest of everything that the tokens depend on: the data, the tokenizer's files, the chat
template with its date, the record format, the objective, the longest sequence, and the code that
encodes. So a change of any of them makes other arrays, and nothing has to be invalidated. A folder
may be removed at any time: it is made again, and a process that has mapped its files keeps them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from local_backend.atomic_folders import atomic_folder
from local_backend.data.encode_pool import encode_blocks
from local_backend.data.examples import EncodedData
from local_backend.data.token_arrays import (
    META,
    NARROW,
    WIDE,
    ArrayWriter,
    IdType,
    TooHighId,
    open_arrays,
)
from local_backend.disk_full import disk_full_error, raise_on_full_disk
from local_backend.models.weights import model_cache

if TYPE_CHECKING:
    from local_backend.data.chat_template import RecordFormat
    from local_backend.settings import DataFile, Settings
    from local_backend.training.objectives import Objective

FORMAT = 1
"""Version of the arrays. Raise it when their files change."""
CACHE_VARIABLE = "CLOUDFT_TOKEN_CACHE"
DISK_REMEDY = (
    "free some space there (`cloudft gc --local` removes what no job needs), or set CLOUDFT_HOME to"
    " another disk; then `cloudft resume` continues."
)
LIBRARIES = ("transformers", "tokenizers", "jinja2")
"""What renders and tokenizes; another version may do it otherwise."""
NOT_OF_TOKENIZERS = frozenset(
    {".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".md"}
)
"""Files of a model's folder that no tokenizer reads."""
LARGEST_TOKENIZER_BYTES = 256 << 20
"""A larger file has weights, whatever it is called."""
TEMPLATES = "additional_chat_templates"
POLL_S = 0.05
SPARE_BYTES = 64 << 20
"""Disk space that is left to the job itself."""


@dataclass(frozen=True)
class TokenSource:
    """What a job's tokens are made with. `folder` is the model's folder, or its hub id."""

    objective: Objective
    record_format: RecordFormat
    folder: str
    max_length: int


@dataclass(frozen=True)
class Kept:
    """A file's examples, the name of their folder, and whether they were there already."""

    data: EncodedData
    key: str | None
    was_kept: bool


def token_cache() -> Path:
    """Return the folder of kept tokens."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else model_cache() / "tokens"


def load_tokens(
    source: TokenSource,
    file: DataFile,
    settings: Settings,
    poll: Callable[[], None] = lambda: None,
) -> Kept:
    """Return the examples of a staged file: those that are kept, else make them.

    `poll` is called between blocks, and may raise. Raise TrainerError as Objective.encode does, and
    DiskFull before the disk is full.
    """
    objective, cache, kept = source.objective, token_cache(), None
    with raise_on_full_disk(f"The tokens of {file.path.name}", cache, DISK_REMEDY):
        if objective.keeps_tokens and _is_writable(cache):
            kept = _open_or_make(source, file, cache / token_key(source, file), poll)
    if kept is not None:
        kept.data.records = file.records
        objective.check_encoded(kept.data, file, settings, source.max_length)
        return kept
    made = objective.encode(file, settings, source.record_format, source.max_length)
    return Kept(made, None, False)


def _is_writable(cache: Path) -> bool:
    """Return whether tokens can be kept there; without, they are made at each start."""
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (PermissionError, FileExistsError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return False
    return os.access(cache, os.W_OK | os.X_OK)


def _open_or_make(
    source: TokenSource, file: DataFile, folder: Path, poll: Callable[[], None]
) -> Kept:
    data = _open_kept(folder)
    if data is not None:
        return Kept(data, folder.name, True)
    with hold_lock(folder.with_name(f"{folder.name}.lock"), poll):
        data = _open_kept(folder)  # another process may have made it meanwhile
        if data is not None:
            return Kept(data, folder.name, True)
        try:
            _make(source, file, folder, NARROW if fits_narrow(source) else WIDE, poll)
        except TooHighId:  # a vocabulary with gaps: its size does not bound its numbers
            _make(source, file, folder, WIDE, poll)
        data = open_arrays(folder)  # under the lock, which `gc --local` heeds
        if data is None:
            raise OSError(errno.EIO, "the tokens can't be read back", str(folder))
        return Kept(data, folder.name, False)


def _open_kept(folder: Path) -> EncodedData | None:
    data = open_arrays(folder)
    if data is not None:
        with contextlib.suppress(OSError):
            os.utime(folder / META)  # when it was last used, for `gc --local --older-than`
    return data


def _make(
    source: TokenSource,
    file: DataFile,
    folder: Path,
    dtype: IdType,
    poll: Callable[[], None],
) -> None:
    """Write the arrays of a staged file. What a killed process has left is removed first."""
    with atomic_folder(folder, replace=True) as temporary:
        temporary.chmod(0o700)
        writer = ArrayWriter(temporary, dtype)
        try:
            blocks = _read_blocks(source, file, writer, poll)
            for block in source.objective.join_blocks(blocks, source.max_length):
                writer.append(block)
            writer.close()
        finally:
            writer.abandon()


def _read_blocks(
    source: TokenSource, file: DataFile, writer: ArrayWriter, poll: Callable[[], None]
) -> Iterator[EncodedData]:
    """Yield a file's blocks as they are encoded, in order. Raise DiskFull before they fill it."""
    size = file.path.stat().st_size
    for lines, block in encode_blocks(
        source.objective, source.record_format, source.folder, source.max_length, file
    ):
        poll()
        yield block
        # What follows will take as much for each byte of the file as what there is.
        whole = writer.size * size / lines.end
        status, what = os.statvfs(token_cache()), f"The tokens of {file.path.name}"
        if whole - writer.size > max(0, status.f_bavail * status.f_frsize - SPARE_BYTES):
            reason = f"they take about {whole / 1e6:,.0f} MB"
            raise disk_full_error(what, token_cache(), reason, DISK_REMEDY)


def fits_narrow(source: TokenSource) -> bool:
    """Return whether the ids are likely to fit 16 bits: the tokenizer has so few tokens."""
    return len(source.record_format.tokenizer) <= np.iinfo(NARROW).max


@contextlib.contextmanager
def hold_lock(path: Path, poll: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock; wait for another holder, and remove the file at the end."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if _try_lock(descriptor) and _is_file(path, descriptor):
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        poll()
        time.sleep(POLL_S)
    try:
        yield
    finally:
        # Removed while it is held: who waits for it sees that the name has another file, or none.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Return whether the lock is held now. A file system without locks counts as holding it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # each process makes its own then; the folder is written atomically
    return True


def _is_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def token_key(source: TokenSource, file: DataFile) -> str:
    """Return the digest of what a file's tokens follow from."""
    tokenizer, record_format = source.record_format.tokenizer, source.record_format
    parts = {
        "format": FORMAT,
        "data": file.sha256,
        "tokenizer": hash_tokenizer(source),
        "template": tokenizer.chat_template,
        "stopTexts": list(record_format.stop_texts),
        "recordFormat": record_format.name,
        "objective": source.objective.customization_type,
        "maxLength": source.max_length,
        "code": hash_code(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def hash_tokenizer(source: TokenSource) -> str:
    """Return the digest of a tokenizer: of its folder's files but the weights, by content.

    That of a hub id, whose files are elsewhere, is the digest of the tokenizer as it is saved.
    """
    folder = Path(source.folder)
    if folder.is_dir():
        # Not what is below: a clone has its weights once more in .git, a training its checkpoints.
        paths = (*folder.iterdir(), *folder.glob(f"{TEMPLATES}/*"))
        return _hash_files(folder, filter(_may_be_tokenizers, paths))
    import tempfile

    with tempfile.TemporaryDirectory() as saved:
        source.record_format.tokenizer.save_pretrained(saved)
        return _hash_files(Path(saved), Path(saved).rglob("*"))


def _may_be_tokenizers(path: Path) -> bool:
    """Return whether a tokenizer may read this file of a model's folder."""
    if path.suffix in NOT_OF_TOKENIZERS or not path.is_file() or not os.access(path, os.R_OK):
        return False
    return path.stat().st_size <= LARGEST_TOKENIZER_BYTES


@lru_cache(maxsize=1)
def hash_code() -> str:
    """Return the digest of the code that renders and encodes."""
    root = Path(__file__).parents[1]
    paths = [*(root / "data").glob("*.py"), *(root / "training" / "objectives").glob("*.py")]
    return _hash_files(root, paths)


def _hash_files(folder: Path, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file():
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()

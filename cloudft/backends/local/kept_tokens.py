"""Tokens that trainers keep in CLOUDFT_HOME/tokens, and which of them no job needs.

The trainer writes them (local_backend/data/token_cache.py) and makes them again when they are gone,
so removing some costs time at most.

    KEY/            the tokens of one file, for one tokenizer
    KEY.lock        held while KEY is being made
    .KEY.cloudft-*  being written, and locked; else left by a killed trainer
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cloudft.backends.local import job_folder as names
from cloudft.storage.artifacts import is_complete
from cloudft.storage.atomic_files import as_store_error, is_locked
from cloudft.storage.home import Home
from cloudft.storage.store import Store, to_iso_time

META = "meta.json"
"""Changed by each use of the tokens."""
LOCK_SUFFIX = ".lock"
DAY_S = 86_400.0


@dataclass(frozen=True)
class KeptTokens:
    """Tokens on this machine. `is_whole` is False for what a killed trainer has left."""

    name: str
    bytes: int
    last_used_at: str
    is_whole: bool
    path: Path


def find_unused_tokens(home: Home, *, older_than_days: float = 0.0) -> list[KeptTokens]:
    """Return the tokens that no job needs which runs or may be resumed, oldest use first.

    Raise StoreError where the folder can't be read.
    """
    needed = set(_needed_keys(home))
    newest = time.time() - older_than_days * DAY_S
    unused = []
    with as_store_error("the kept tokens can't be listed", home.tokens):
        for path in sorted(home.tokens.iterdir()) if home.tokens.exists() else ():
            if path.name in needed or not path.is_dir() or is_locked(path):
                continue
            if is_locked(path.with_name(path.name + LOCK_SUFFIX)):  # just made, or made again
                continue
            used = _last_use(path)
            if used <= newest:
                size = sum(file.stat().st_size for file in path.iterdir())
                is_whole = not path.name.startswith(".")
                unused.append(KeptTokens(path.name, size, to_iso_time(used), is_whole, path))
    return sorted(unused, key=lambda tokens: tokens.last_used_at)


def remove_tokens(unused: Sequence[KeptTokens]) -> Iterator[KeptTokens]:
    """Remove these one by one; yield each that is gone. Raise StoreError."""
    for tokens in unused:
        with as_store_error("the kept tokens can't be removed", tokens.path):
            # Without it the rest counts as damaged, should this be interrupted.
            (tokens.path / META).unlink(missing_ok=True)
            shutil.rmtree(tokens.path)
            lock = tokens.path.with_name(tokens.name + LOCK_SUFFIX)
            if not is_locked(lock):
                lock.unlink(missing_ok=True)
        yield tokens


def _last_use(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return (path / META).stat().st_mtime
    return path.stat().st_mtime


def _needed_keys(home: Home) -> Iterator[str]:
    """Yield the keys of all jobs that are not complete. What can't be read names none."""
    for job in Store(home.jobs).job_ids():
        folder = home.jobs / job
        if is_complete(folder / names.ARTIFACTS):
            continue
        with contextlib.suppress(OSError, msgspec.DecodeError):
            raw = (folder / names.TOKENS).read_bytes()
            yield from msgspec.json.decode(raw, type=dict[str, str]).values()

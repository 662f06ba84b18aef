"""Choose the files of an exported model that are published, and refuse what is private.

Only files that a model consists of are published. None of them may hold a path of this machine, a
secret, or the job's data.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cloudft.errors import UsageError
from cloudft.storage.atomic_files import as_store_error

MODEL_SUFFIXES = frozenset({".safetensors", ".gguf", ".json", ".jinja", ".model", ".txt", ".onnx"})
MODEL_NAMES = frozenset({"Modelfile", "LICENSE", "NOTICE", "README.md", "merges.txt"})
IGNORED_NAMES = frozenset({".gitattributes", ".cache"})
BLOCK = 4 << 20
OVERLAP = 4096
"""Bytes of a block that are searched again with the next one, so that no match is cut in two."""
SECRET = re.compile(
    rb"\bhf_[A-Za-z0-9]{30,}\b|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bsk-[A-Za-z0-9_-]{32,}\b"
    rb"|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
)
"""Tokens of the Hub, AWS access keys, OpenAI's keys, private keys."""


@dataclass(frozen=True)
class ModelFile:
    """A file to publish: its path in the repository, its place here, size and digests."""

    name: str
    path: Path
    size: int
    sha256: str
    git_oid: str
    """SHA-1 of its git blob, by which the Hub knows small files."""


def list_model_files(
    folder: Path,
    private: Sequence[str],
    data: Mapping[str, str],
    *,
    replaced: Path | None = None,
    without: Collection[str] = (),
) -> list[ModelFile]:
    """Return the files of an export with their digests.

    `private` are texts that no file may hold: paths of this machine. `data` maps the digest of
    each file of the job's data to its name. What the folder `replaced` has stands for the file of
    the same name; the names in `without` are left out. Raise UsageError that names the first file
    in the way.
    """
    searched = [text.encode() for text in private]
    files = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_ignored = name in without or PurePosixPath(name).parts[0] in IGNORED_NAMES
        if path.is_dir() or is_ignored:
            continue
        _check_name(path, name)
        own = replaced / name if replaced is not None else path
        file = _read(own if own.exists() else path, name, searched)
        if file.sha256 in data:
            raise UsageError(
                f"{name} is data of the job ({data[file.sha256]}), which is never published",
                file=str(path),
                fix="move it out of the folder.",
            )
        files.append(file)
    return files


def hash_folder(folder: Path) -> list[ModelFile]:
    """Return the files in a folder with their digests, whatever they hold; none without it."""
    return [
        _read(path, path.relative_to(folder).as_posix(), (), is_published=False)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def _check_name(path: Path, name: str) -> None:
    if path.is_symlink():
        raise UsageError(f"{name} is a link", file=str(path), fix="replace it by the file itself.")
    if path.suffix not in MODEL_SUFFIXES and path.name not in MODEL_NAMES:
        raise UsageError(
            f"{name} is no file of a model: cloudft publishes weights, tokenizer and configuration",
            file=str(path),
            fix="move it out of the folder.",
        )


def _read(
    path: Path, name: str, private: Sequence[bytes], *, is_published: bool = True
) -> ModelFile:
    """Return a file's digests. Raise UsageError where it holds something private."""
    size = path.stat().st_size
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for block, searched in _blocks(path):
        sha256.update(block)
        git.update(block)
        if is_published:
            _check_content(path, name, searched, private)
    return ModelFile(name, path, size, sha256.hexdigest(), git.hexdigest())


def _blocks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield each block of a file, and the bytes to search: with the end of the block before it."""
    before = b""
    with as_store_error("the model can't be read", path), path.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block, before + block
            before = block[-OVERLAP:]


def _check_content(path: Path, name: str, content: bytes, private: Sequence[bytes]) -> None:
    found = next((text for text in private if text in content), None)
    if found is not None:
        raise UsageError(
            f"{name} has a path of this machine: {os.fsdecode(found)}",
            file=str(path),
            fix="name the base model's id on the Hub, which replaces it: --base-model ORG/NAME",
        )
    if SECRET.search(content):
        raise UsageError(
            f"{name} has what looks like a secret", file=str(path), fix="remove it, and revoke it."
        )


def private_texts(*paths: str | Path) -> list[str]:
    """Return what must not be published: these paths, if they are any, and the user's home.

    A path of one part, such as /root or /work, is left out: a tokenizer may have it as a word.
    """
    known = [str(Path(one).expanduser()) for one in paths if str(one).startswith(("/", "~"))]
    return [one for one in (*known, str(Path.home())) if one.count("/") > 1]

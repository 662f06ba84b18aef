"""Pack the trainer for a container: the same bytes on any machine."""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "local_backend"
ARCHIVE = "source.tar.gz"
REQUIREMENTS, QLORA_REQUIREMENTS = "requirements.txt", "requirements-qlora.txt"
"""The lists of what a container installs: always, and for QLoRA. They lie beside this file."""
SOURCES = frozenset({".py", ".cpp", ".json"})
"""Suffixes of the trainer's files: its modules, the kernels that it compiles, and tables."""
ENTRY_MODULE = f"{PACKAGE}.sagemaker"


@dataclass(frozen=True)
class TrainerArchive:
    """The archive, and its sha256 in hex."""

    content: bytes
    sha256: str


@functools.lru_cache(maxsize=1)
def build_archive() -> TrainerArchive:
    """Pack every file of the trainer, and the lists of its requirements."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in _files():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    packed = gzip.compress(raw.getvalue(), mtime=0)
    return TrainerArchive(packed, hashlib.sha256(packed).hexdigest())


def _files() -> Iterator[tuple[str, bytes]]:
    folder = _folder()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in SOURCES):
        yield f"{PACKAGE}/{path.relative_to(folder).as_posix()}", path.read_bytes()
    for name in (REQUIREMENTS, QLORA_REQUIREMENTS):
        yield name, "".join(f"{line}\n" for line in read_requirements(name)).encode()


def _folder() -> Path:
    """Return the folder where the trainer is installed, found without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None, "cloudft is installed with its trainer"
    return Path(spec.origin).parent


def read_requirements(name: str = REQUIREMENTS) -> list[str]:
    """Return the requirements of a list, each with its exact version, without blanks."""
    lines = Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    return ["".join(line.split()) for line in lines if not line.startswith("#")]


def container_arguments(root: str = "/opt/ml") -> list[str]:
    """Return AlgorithmSpecification.ContainerArguments: the script that `bash -c` runs."""
    code = f"{root}/code"
    return [
        f"mkdir -p {code} && tar -xzf {root}/input/data/code/{ARCHIVE} -C {code}"
        f" && cd {code} && exec python -m {ENTRY_MODULE} --root {root}"
    ]


CONTAINER_ENTRYPOINT = ["/bin/bash", "-c"]
"""AlgorithmSpecification.ContainerEntrypoint."""

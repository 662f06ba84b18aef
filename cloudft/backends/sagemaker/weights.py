"""Find weights on this machine, which are uploaded with the job; the container downloads others."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from cloudft import catalogue

UPLOAD_PATTERNS = ("*.safetensors", "*.json", "*.model", "*.jinja", "*.txt", "*.bin", "*.gguf")
BLOCK = 1024 * 1024


@dataclass(frozen=True)
class WeightFile:
    """One file of a model."""

    path: Path
    sha256: str
    bytes: int

    @property
    def name(self) -> str:
        """Return its name in the channel."""
        return self.path.name

    @property
    def role(self) -> str:
        """Return its role among the plan's files."""
        return f"model/{self.name}"


def list_weight_files(model: catalogue.Model) -> tuple[WeightFile, ...]:
    """Return the model's files on this machine; none when the container downloads them."""
    for weights, present, _ in catalogue.find_weights(model):
        if weights.kind == "folder" and present:
            folder = Path(weights.path or "")
            found = {
                path
                for pattern in UPLOAD_PATTERNS
                for path in folder.glob(pattern)
                if path.is_file()
            }
            return tuple(_file(path) for path in sorted(found))
        if weights.kind == "package" and present:
            spec = importlib.util.find_spec(weights.module or "")
            assert spec is not None and spec.origin is not None
            return (_file(Path(spec.origin).parent / (weights.file or "")),)
    return ()


def _file(path: Path) -> WeightFile:
    facts = path.stat()
    digest = _digest(str(path.resolve()), facts.st_size, facts.st_mtime_ns)
    return WeightFile(path, digest, facts.st_size)


@functools.lru_cache(maxsize=1024)
def _digest(path: str, size: int, changed: int) -> str:
    """Return the digest of a file in that state: planned twice, it is read once."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def find_hub_id(model: catalogue.Model) -> str | None:
    """Return the hub id from which the container downloads the model, or None."""
    return next((weights.hub_id for weights in model.weights if weights.kind == "hub"), None)

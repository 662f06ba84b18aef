"""Pack the grader of a reinforcement job for AWS Lambda: the same bytes on any machine.

The package holds the grader's file unchanged, as `grader.py`, which is its name in a local job's
folder too. For SageMaker it also holds the trainer's `grading/shapes.py`, the handler there, which
translates the event and the reply: their shapes differ.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloudft.errors import UsageError
from cloudft.spec.load import LoadedJob

GRADER_FILE = "grader.py"
HANDLER_FUNCTION = "lambda_handler"
TRAINER_PACKAGE, ADAPTER = "local_backend", Path("grading", "shapes.py")
STACK_SUFFIX = "-grader"
"""The stack of the grader's function (infra/grader.yaml) is called NAME-grader beside NAME."""
DIGEST_TAG = "cloudft:grader-sha256"
"""Tag of that function: the digest of the grader's file, in hex."""
PACKED_TIME = (1980, 1, 1, 0, 0, 0)
"""Time of every file: the earliest of the zip format, so that equal files are equal packages."""
MAX_GRADER_BYTES = 1024 * 1024
"""Largest grader that is packed: far above any source file, far below Lambda's 250 MB."""
HANDLERS = {
    "bedrock": f"grader.{HANDLER_FUNCTION}",
    "sagemaker-nova": "shapes.nova_handler",
    "sagemaker-open-weight": "shapes.lambda_handler",
}
"""The service that invokes the function -> the handler that Lambda calls."""


@dataclass(frozen=True)
class GraderPackage:
    """A zip archive for Lambda. `grader_sha256` is the digest of the grader's file, in hex."""

    content: bytes
    grader_sha256: str
    handler: str

    @property
    def sha256(self) -> str:
        """Return the digest of the archive in hex."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def code_sha256(self) -> str:
        """Return the digest of the archive as Lambda reports it: `CodeSha256`, in base64."""
        return base64.b64encode(hashlib.sha256(self.content).digest()).decode()


def pack_job_grader(job: LoadedJob, platform: str) -> GraderPackage:
    """Return the package of the grader that a job file names. Raise UsageError without one."""
    path = grader_path(job)
    if path is None:
        fix = "set reinforcement.grader to a file with lambda_handler(event, context)."
        raise UsageError(f"{job.path or 'the job file'} names no grader", fix=fix)
    return pack_grader(path, platform)


def grader_path(job: LoadedJob) -> Path | None:
    """Return the grader's file, which the job file names relative to itself; None without one."""
    section = job.spec.reinforcement
    if section is None or section.grader is None:
        return None
    return job.base_dir / section.grader


def pack_grader(path: Path, platform: str = "bedrock") -> GraderPackage:
    """Return the package of a grader's file for a key of HANDLERS.

    Raise UsageError for a file that can't be read, is no Python, or has no `lambda_handler`.
    """
    content = read_grader(path)
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, data in _files(content, platform):
            member = zipfile.ZipInfo(name, PACKED_TIME)
            # Stored, not deflated: the output of zlib differs by its version.
            member.compress_type = zipfile.ZIP_STORED
            member.create_system, member.external_attr = 3, 0o100644 << 16
            archive.writestr(member, data)
    digest = hashlib.sha256(content).hexdigest()
    return GraderPackage(raw.getvalue(), digest, HANDLERS[platform])


def _files(content: bytes, platform: str) -> Iterator[tuple[str, bytes]]:
    yield GRADER_FILE, content
    if platform != "bedrock":
        spec = importlib.util.find_spec(TRAINER_PACKAGE)
        assert spec is not None and spec.origin is not None, "cloudft is installed with its trainer"
        yield ADAPTER.name, (Path(spec.origin).parent / ADAPTER).read_bytes()


def read_grader(path: Path) -> bytes:
    """Return the bytes of a grader's file. Raise UsageError as `pack_grader` does."""
    try:
        content = path.read_bytes()
    except OSError as error:
        fix = "correct reinforcement.grader: a path relative to the job file."
        raise UsageError(f"{path} can't be read: {error.strerror}", fix=fix) from error
    if len(content) > MAX_GRADER_BYTES:
        fix = "a grader is one file of source code; keep data out of it."
        raise UsageError(f"{path} has {len(content)} bytes, and at most a MB is packed", fix=fix)
    try:
        module = ast.parse(content, filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        place = f"{path}:{line}" if line else str(path)
        fix = "correct it; `python -m py_compile FILE` shows the error."
        raise UsageError(f"{place} is not Python: {error.args[0]}", fix=fix) from error
    if HANDLER_FUNCTION not in _top_level_names(module):
        fix = f"define `def {HANDLER_FUNCTION}(event, context)` at its top level."
        raise UsageError(f"{path} has no {HANDLER_FUNCTION}", fix=fix)
    return content


def _top_level_names(module: ast.Module) -> set[str]:
    """Return the names that a module may bind at its top level, those of its imports included."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
    return names

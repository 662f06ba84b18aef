"""Pack the grader of a reinforcement job for AWS Lambda: the same bytes on any machine.

The package holds the grader's file unchanged, as `grader.py`, which is its name in a local job's
folder too. For SageMaker it also holds the trainer's `grading/shapes.py`, the handler there, which
translates the event and the reply: their shapes differ.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloudft.errors import UsageError
from cloudft.spec.grader_file import HANDLER, read_grader
from cloudft.spec.load import LoadedJob

GRADER_FILE = "grader.py"
TRAINER_PACKAGE, ADAPTER = "local_backend", Path("grading", "shapes.py")
STACK_SUFFIX = "-grader"
"""The stack of the grader's function (infra/grader.yaml) is called NAME-grader beside NAME."""
DIGEST_TAG = "cloudft:grader-sha256"
"""Tag of that function: the digest of the grader's file, in hex."""
PACKED_TIME = (1980, 1, 1, 0, 0, 0)
"""Time of every file: the earliest of the zip format, so that equal files are equal packages."""
HANDLERS = {
    "bedrock": f"grader.{HANDLER}",
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
    """Return the package of the grader that a job file names.

    Raise UsageError for a job without one, and CheckFailed for a file that is no grader.
    """
    grader = read_grader(job)
    if grader is None:
        fix = "set reinforcement.grader to a file with lambda_handler(event, context)."
        raise UsageError(f"{job.path or 'the job file'} names no grader", fix=fix)
    return pack_grader(grader.content, platform)


def pack_grader(content: bytes, platform: str = "bedrock") -> GraderPackage:
    """Return the package of a grader's file for a key of HANDLERS."""
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

"""Load the job file that a command names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.cli.options import use_aws_profile

if TYPE_CHECKING:
    from cloudft.spec.load import LoadedJob


def load_job_file(path: Path | None, flags: dict[str, str]) -> LoadedJob:
    """Load the job file with flags and environment variables applied.

    A profile that it names is used for all AWS calls of this process, so that data in S3 is read
    with the same identity.
    """
    from cloudft.spec.load import load_job

    job = load_job(path, flags=flags, environ=os.environ)
    profiles = {job.spec.bedrock.profile, job.spec.sagemaker.profile} - {None}
    if len(profiles) == 1:
        use_aws_profile(str(profiles.pop()))
    return job

"""Which model the local trainer trains for a job, on this machine or in a container."""

from __future__ import annotations

from cloudft import catalogue
from cloudft.spec.load import LoadedJob


def trained_model(job: LoadedJob) -> catalogue.Model | None:
    """Return local.model, or a base model with open weights; None where the weights are closed."""
    if job.spec.local.model is not None:
        return catalogue.find_model(job.spec.local.model, base_dir=job.base_dir)
    return job.model if job.model.is_open_weight else None

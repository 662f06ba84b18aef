"""The job file: its model, loading it with lines and origins, and its resolved values."""

from cloudft.spec.load import LoadedJob, load_job
from cloudft.spec.merge import Origin
from cloudft.spec.model import DataSpec, JobSpec, parse_spec
from cloudft.spec.resolve import ResolvedValue, build_job_schema, resolve_values

__all__ = [
    "DataSpec",
    "JobSpec",
    "LoadedJob",
    "Origin",
    "ResolvedValue",
    "build_job_schema",
    "load_job",
    "parse_spec",
    "resolve_values",
]

"""Make a custom model out of another one: copy it to a Region, or take it from SageMaker.

Each is a job of its own, which is submitted as every other job is (lifecycle.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudft import catalogue
from cloudft.aws.arn import parse_arn
from cloudft.aws.permissions import Policy
from cloudft.backends import make_backend
from cloudft.backends.base import Backend, StagedJob
from cloudft.backends.capabilities import DerivesModels, SupportsServing
from cloudft.data.staging.manifest import build_manifest, parse_manifest
from cloudft.errors import CheckFailed, JobStateConflict, UsageError
from cloudft.jobs.lifecycle import refresh
from cloudft.jobs.model_import import NO_DATA
from cloudft.spec.load import LoadedJob, load_spec
from cloudft.storage.home import Home
from cloudft.storage.store import RECORD_FILE, JobRecord
from cloudft.types import MODEL_REMOVED, Finding, Manifest

COPY, CREATE = "copy", "custom-model"
"""The backends that make these models."""
NAME_SUFFIX = "-copy"
NAME_KEPT = 50
"""Characters of the source's name that are kept."""
MODEL_ARN = re.compile(
    r"arn:aws[a-z-]*:bedrock:[a-z0-9-]+:[0-9]{12}:custom-model/[^/\s]+/[a-z0-9]{12}"
)
"""ARN of a custom model (botocore's pattern of `sourceModelArn`, without foundation models)."""


@dataclass(frozen=True)
class DerivedModelOptions:
    """Options of a derived model. An empty `name` is derived from the source.

    `base_model` is needed where the source names none.
    """

    name: str = ""
    kms_key_id: str | None = None
    base_model: str | None = None


def prepare_copy_of_job(
    record: JobRecord,
    backend: Backend,
    home: Home,
    location: Mapping[str, str | None],
    options: DerivedModelOptions,
) -> tuple[StagedJob, list[Finding]]:
    """Return the copy of a completed job's model to the Region of `location`, and warnings.

    Raise CheckFailed, JobStateConflict, and UsageError for a job without a custom model.
    """
    source = _custom_model_of(record, backend)
    spec = dict(record.spec)
    spec["name"] = options.name or f"{record.name[:NAME_KEPT]}{NAME_SUFFIX}"
    spec["bedrock"] = _bedrock_section(record.request.get("place", {}), location, options)
    manifest = parse_manifest(record.manifest, record.folder / RECORD_FILE)
    _require_other_region(source, location)
    return _derive(COPY, home, load_spec(spec), manifest, source)


def _custom_model_of(record: JobRecord, backend: Backend) -> str:
    """Return the ARN of a job's custom model."""
    if not isinstance(backend, SupportsServing):
        raise UsageError(
            f"a job on {record.backend} has no custom model in Bedrock",
            fix=f"`cloudft import {record.id} --region REGION` imports it where it is needed.",
        )
    state = refresh(record, backend).state
    arn = state.summary.get("customModel")
    if state.status != "Completed" or not arn:
        raise JobStateConflict(
            f"{record.id} is {state.status}: it has no model to copy",
            fix=f"`cloudft watch {record.id}` waits for its end.",
        )
    if state.summary.get(MODEL_REMOVED):
        fix = "train it again, or copy another job's."
        raise JobStateConflict(f"the model of {record.id} was removed from Bedrock", fix=fix)
    return str(arn)


def _require_other_region(source: str, location: Mapping[str, str | None]) -> None:
    """Raise UsageError for a copy of one's own model to the Region in which it is."""
    if parse_arn(source).region == location.get("region"):
        raise UsageError(
            f"the model is in {location.get('region')} already ({source})",
            fix="name another Region with --region.",
        )


def prepare_copy_of_arn(
    arn: str,
    account: str | None,
    home: Home,
    location: Mapping[str, str | None],
    options: DerivedModelOptions,
) -> tuple[StagedJob, list[Finding]]:
    """Return the copy of a custom model, one's own or one that another account shares.

    `account` is the caller's, None where it can't be read. Raise CheckFailed, and UsageError where
    the base model is not known.
    """
    if parse_arn(arn).account == account:
        _require_other_region(arn, location)
    base, _, identifier = parse_arn(arn).resource.partition("/")[2].partition("/")
    model = options.base_model or base
    if catalogue.find_catalogue_model(model) is None:
        raise UsageError(
            f"the base model of {arn} is not known",
            fix="add --base-model with its alias; `cloudft models` lists them.",
        )
    name = options.name or f"{catalogue.find_model(model).alias}-{identifier}{NAME_SUFFIX}"
    job = _job_without_data(name, model, _bedrock_section({}, location, options))
    return _derive(COPY, home, job, _empty_manifest(job), arn)


def prepare_creation(
    source: str, home: Home, flags: Mapping[str, object]
) -> tuple[StagedJob, list[Finding]]:
    """Return the custom model that a SageMaker job's artifacts or model package become.

    `flags` are fields of a job file: name, base_model, bedrock.region. Raise CheckFailed.
    """
    job = load_spec({"data": {"train": NO_DATA}}, flags=flags, environ=os.environ)
    return _derive(CREATE, home, job, _empty_manifest(job), source)


def caller_policy(backend_name: str, staged: StagedJob, home: Home) -> Policy:
    """Return the IAM policy that the submitting identity needs."""
    backend = make_backend(backend_name, home).for_job(staged.job)
    assert isinstance(backend, DerivesModels)
    return backend.policy_of(staged)


def _bedrock_section(
    recorded: Mapping[str, str | None],
    location: Mapping[str, str | None],
    options: DerivedModelOptions,
) -> dict[str, Any]:
    """Return the job file's section: of the source job only profile and endpoint count elsewhere.

    Its key, its role and its buckets belong to the Region of the source.
    """
    section = {**recorded, **{name: value for name, value in location.items() if value}}
    section["kms_key_id"] = options.kms_key_id
    return {name: value for name, value in section.items() if value is not None}


def _job_without_data(name: str, base_model: str, section: Mapping[str, Any]) -> LoadedJob:
    data = {"train": NO_DATA}
    spec = {"name": name, "base_model": base_model, "data": data, "bedrock": dict(section)}
    return load_spec(spec)


def _empty_manifest(job: LoadedJob) -> Manifest:
    return build_manifest(job.spec.customization_type, "", job.spec.seed, {}, ())


def _derive(
    backend_name: str, home: Home, job: LoadedJob, manifest: Manifest, source: str
) -> tuple[StagedJob, list[Finding]]:
    backend = make_backend(backend_name, home).for_job(job)
    assert isinstance(backend, DerivesModels)
    staged, findings = backend.derive(job, manifest, source)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise CheckFailed(errors[0].message, findings)
    return staged, findings

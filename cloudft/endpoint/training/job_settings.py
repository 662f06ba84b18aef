"""Convert a request for a customization job to a job of cloudft: the values of a job file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cloudft import catalogue
from cloudft.backends.local.request import FULL_LEARNING_RATE
from cloudft.endpoint.bedrock.shapes import CreateCustomizationJobRequest
from cloudft.endpoint.training.run import TrainingRequest
from cloudft.errors import UnknownModel
from cloudft.spec.load import LoadedJob, load_spec
from cloudft.types import role_field

WITHOUT_EFFECT = {"amazon.nova": {"batchSize": "1"}}
"""Hyperparameters that the user guide does not list and AWS accepts, by the beginning of a model's
id. Source: hyperParameters in aws-samples/amazon-nova-samples, customization/bedrock-finetuning/
text-to-sql/nova-micro-text-to-sql-bedrock-custom-model.ipynb (f94e6d1)."""
STAND_IN_RATE = "local.hyperparameters.learningRate"


def load_requested_job(
    request: TrainingRequest, settings: Mapping[str, object] | None = None
) -> LoadedJob:
    """Return the job of a request. Raises SpecError for settings that its model does not have.

    `settings` are values of the job file, by dotted name, that win over all others.
    """
    created = request.request
    flags: dict[str, object] = {
        "name": request.name,
        "base_model": created["baseModelIdentifier"],
        "customization_type": request.customization_type,
        **{role_field(role): str(path) for role, path in request.data.items()},
        **{f"hyperparameters.{k}": v for k, v in _effective_hyperparameters(created).items()},
        **_type_settings(request),
        **(settings or {}),
    }
    # Not load_job: it would add the job file of the folder in which the endpoint was started.
    return _with_records_quota(load_spec({}, flags=flags), request.records_max)


def _with_records_quota(job: LoadedJob, records_max: int | None) -> LoadedJob:
    """Return the job with the account's quota in place of the documented limit on records."""
    kind = job.spec.customization_type
    limits = job.model.limits.get(kind)
    if records_max is None or limits is None:
        return job
    raised = {**job.model.limits, kind: replace(limits, records_max=records_max)}
    return replace(job, model=replace(job.model, limits=raised))


def _effective_hyperparameters(request: CreateCustomizationJobRequest) -> dict[str, str]:
    identifier = request["baseModelIdentifier"].rpartition("foundation-model/")[2]
    ignored: dict[str, str] = {}
    for start, values in WITHOUT_EFFECT.items():
        if identifier.startswith(start):
            ignored |= values
    given = request.get("hyperParameters", {})
    return {name: value for name, value in given.items() if ignored.get(name) != value}


def _type_settings(request: TrainingRequest) -> dict[str, object]:
    """Return the values of the section that the customization type needs."""
    if request.customization_type == "DISTILLATION":
        return {"distillation.teacher": "any"}
    if request.customization_type == "REINFORCEMENT_FINE_TUNING":
        return _reinforcement_settings(request)
    return {}


def _reinforcement_settings(request: TrainingRequest) -> dict[str, object]:
    """Return the grader, its limits and the typed hyperparameters."""
    config = request.request.get("customizationConfig", {}).get("rftConfig", {})
    settings: dict[str, object] = {}
    if "graderConfig" in config:
        settings["reinforcement.lambda_arn"] = config["graderConfig"]["lambdaGrader"]["lambdaArn"]
    if request.grader is not None:
        settings |= {
            "reinforcement.grader": str(request.grader.path),
            "reinforcement.timeout_seconds": request.grader.timeout_seconds,
            "reinforcement.memory_mb": request.grader.memory_mb,
        }
    given = config.get("hyperParameters", {})
    return settings | {f"reinforcement.hyperparameters.{k}": v for k, v in given.items()}


def _given_hyperparameters(request: TrainingRequest) -> Mapping[str, int | float | str]:
    """Return the request's hyperparameters: for reinforcement the typed ones."""
    config = request.request.get("customizationConfig", {}).get("rftConfig")
    if config is not None:
        return config.get("hyperParameters", {})
    return request.request.get("hyperParameters", {})


def stand_in_settings(request: TrainingRequest, *, all_weights: bool) -> dict[str, object]:
    """Return the stand-in, and its learning rate: its own, scaled as the request scales the base's.

    The rate of a closed model is for its size and its method, neither of which the stand-in has: at
    Nova's 1e-5 an adapter of a small model learns nothing.
    """
    settings: dict[str, object] = {"local.model": request.stand_in}
    try:
        base = catalogue.find_model(request.request["baseModelIdentifier"])
    except UnknownModel:
        return settings
    row = base.hyperparameters.get("learningRate")
    if base.is_open_weight or row is None or not row.default:
        return settings
    own = catalogue.load_local_hyperparameters()["learningRate"]
    default = FULL_LEARNING_RATE if all_weights else own.default
    try:
        given = float(_given_hyperparameters(request).get("learningRate", row.default))
    except ValueError:  # load_requested_job names the value
        return settings
    rate = min(max(default * given / row.default, own.min), own.max)
    return settings | {STAND_IN_RATE: float(f"{rate:.3g}")}

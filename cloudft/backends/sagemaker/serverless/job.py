"""A serverless job as the SageMaker backend sees it: its plan, its marks, its cost, its state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from cloudft.aws.client import Aws
from cloudft.aws.tags import JOB_TAG, PLAN_TAG, TOKEN_TAG
from cloudft.backends.aws_base.api_call import AwsRequest
from cloudft.backends.base import StagedJob
from cloudft.backends.sagemaker import request
from cloudft.backends.sagemaker.responses import TrainingJob
from cloudft.backends.sagemaker.serverless import request as serverless
from cloudft.catalogue import cost, load_serverless
from cloudft.catalogue.serverless import SERVICE
from cloudft.spec.load import LoadedJob
from cloudft.spec.serialize import to_portable_values
from cloudft.types import (
    BilledPart,
    DataVolume,
    Estimate,
    MissingPrice,
    Plan,
    UnknownAmount,
)

MARKS = {JOB_TAG: request.JOB_KEY, TOKEN_TAG: request.TOKEN_KEY, PLAN_TAG: request.PLAN_KEY}
"""Tag of a serverless job -> the hyperparameter that is the same mark of a trainer's job."""
PRICE_NAME = "training_per_1k_tokens"
FORMAT = "recordsAre"
"""Key of the plan's request: the format of the staged records, where they are converted."""


def is_serverless(description: Mapping[str, Any]) -> bool:
    """Return whether SageMaker itself tunes the model of a training job."""
    return bool(description.get("ServerlessJobConfig"))


def with_marks(aws: Aws, description: TrainingJob) -> TrainingJob:
    """Return a serverless job with cloudft's marks among its hyperparameters, from its tags.

    Raise CloudRefused and CloudUnreachable.
    """
    if not is_serverless(description):
        return description
    name, arn = description["TrainingJobName"], description["TrainingJobArn"]
    tags = aws.paginate(
        f"the tags of {name} can't be read", "sagemaker", "list_tags", "Tags", ResourceArn=arn
    )
    marks = {MARKS[tag["Key"]]: tag["Value"] for tag in tags if tag["Key"] in MARKS}
    return cast(
        "TrainingJob",
        {**description, "HyperParameters": {**(description.get("HyperParameters") or {}), **marks}},
    )


def epochs_of(job: LoadedJob) -> int | None:
    """Return how often the data is trained on; None where the job file leaves it to the recipe."""
    text = serverless.resolve_hyperparameters(job).get("max_epochs", "")
    return int(text) if text.isdecimal() else None


def estimate(job: LoadedJob, volumes: Mapping[str, DataVolume]) -> Estimate:
    """Return tokens and epochs. The price of a token is the job file's: no source has one.

    Where the recipe counts steps, it is not known how many tokens are trained.
    """
    tokens, epochs, own = volumes["train"].tokens, epochs_of(job), job.spec.prices
    usd = None if own is None else own.training_per_1k_tokens
    what = f"training tokens of {serverless.hub_content(job)} by {SERVICE}"
    part = BilledPart(
        what, None if epochs is None else tokens * epochs, "token", None, price_name=PRICE_NAME
    )
    if usd is not None and own is not None:
        price = cost.to_unit_price(usd, own.price_source, "stated", None)
        part = cost.priced(part, price)
    unknown = UnknownAmount(what, "hyperparameters.epochCount", "3") if epochs is None else None
    blank = Estimate(
        backend="sagemaker",
        train_tokens=tokens,
        epochs=epochs or 1,
        usd={"training": None, "storagePerMonth": None, "servingPerHour": 0.0},
        seconds=None,
        price_source="",
        price_date="",
        unpriced=MissingPrice(what, PRICE_NAME, load_serverless().price_list)
        if usd is None
        else None,
        unknown=unknown,
    )
    return cost.with_parts(blank, [part])


def make_plan(staged: StagedJob) -> Plan:
    """Return the calls of a serverless job, in order, with everything that is in them."""
    job = staged.job
    converted = {FORMAT: staged.manifest.format} if serverless.uses_messages(staged) else {}
    return Plan(
        backend="sagemaker",
        token=serverless.request_token(staged),
        name=job.spec.name,
        request={
            **AwsRequest(
                hyper_parameters=serverless.hyperparameter_numbers(job),
                place=request.location_of(job),
                calls=serverless.api_calls(staged).in_order,
            ).to_json(),
            **converted,
        },
        files=_files(staged),
        manifest=staged.manifest,
        estimate=estimate(job, staged.manifest.files),
        spec=to_portable_values(job),
    )


def _files(staged: StagedJob) -> dict[str, Path]:
    files = serverless.staged_files(staged)
    return {role: staged.folder / file.name for role, file in files.items()}


def steps_per_epoch(description: TrainingJob, records: int | None) -> int | None:
    """Return how many steps an epoch has; None where the records or the batch are not known."""
    batch = (description.get("HyperParameters") or {}).get("global_batch_size", "")
    if not records or not batch.isdecimal() or not int(batch):
        return None
    return -(-records // int(batch))

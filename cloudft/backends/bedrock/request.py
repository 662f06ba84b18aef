"""A job as the calls that Bedrock gets. Pure: the same job gives the same calls on any machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from cloudft import catalogue
from cloudft.aws import tags as tag_names
from cloudft.aws.s3 import s3_uri, split_s3_uri
from cloudft.backends.aws_base import discovered_plan
from cloudft.backends.base import StagedJob
from cloudft.backends.bedrock import customizations
from cloudft.catalogue import CUSTOMIZATION_TYPES
from cloudft.spec.load import LoadedJob
from cloudft.spec.serialize import to_portable_values
from cloudft.types import StagedFile, job_id, to_json

TAG_JOB, TAG_TOKEN = tag_names.JOB_TAG, tag_names.TOKEN_TAG
PLAN = "plan.json"
"""Beside a job's output in S3: what another machine needs to know of it."""
JOB_NAME = re.compile(r".*-[0-9a-f]{8}")
"""The form of the job names that cloudft gives. Others may have it too: the tag is the proof."""
STAGED_URI = re.compile(r"s3://.+/data/[0-9a-f]{64}/[^/]+\.jsonl")
"""Where staged data lies."""
UPLOADED_ROLES = ("train", "validation")
"""What goes to Bedrock. Test data stays here."""
CREATE = "create_model_customization_job"
NUMBER = r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?"


@dataclass(frozen=True)
class StagedObject:
    """A staged file, and its place in S3."""

    role: str
    file: StagedFile
    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """`s3://BUCKET/KEY`."""
        return s3_uri(self.bucket, self.key)


def location_of(job: LoadedJob) -> dict[str, Any]:
    """Where the job runs."""
    spec = job.spec.bedrock
    return {"region": spec.region, "profile": spec.profile, "endpoint_url": spec.endpoint_url}


def s3_prefix(job: LoadedJob) -> tuple[str, str]:
    """Bucket and key prefix of the job file's s3_uri; the prefix ends with a slash or is empty."""
    return _prefix_of_uri(job.spec.bedrock.s3_uri)


def output_s3_prefix(job: LoadedJob) -> tuple[str, str]:
    """Bucket and key prefix of what jobs leave: those of the data unless output_s3_uri is given."""
    return _prefix_of_uri(job.spec.bedrock.output_s3_uri or job.spec.bedrock.s3_uri)


def _prefix_of_uri(uri: str | None) -> tuple[str, str]:
    bucket, prefix = split_s3_uri(uri or "")
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


def expected_bucket_owner(job: LoadedJob) -> str | None:
    """The account that the bucket must belong to: the one named, else the role's."""
    spec = job.spec.bedrock
    found = re.match(r"arn:aws[^:]*:iam::(\d{12}):", spec.role_arn or "")
    return spec.bucket_owner or (found[1] if found else None)


def staged_objects(staged: StagedJob) -> list[StagedObject]:
    """The staged files that the job reads, under names that follow from their content."""
    bucket, prefix = s3_prefix(staged.job)
    return [
        StagedObject(role, file, bucket, f"{prefix}data/{file.sha256}/{file.name}")
        for role in UPLOADED_ROLES
        if (file := staged.manifest.files.get(role))
    ]


def resolve_hyperparameters(job: LoadedJob) -> dict[str, int | float]:
    """What is sent: the job's own, and the documented defaults of the rest.

    A default that is only assumed is not sent: the service knows it better.
    """
    known = job.model.hyperparameters.items()
    values = {name: row.default for name, row in known if not row.assumed}
    given = dict(job.spec.hyperparameters)
    if job.spec.early_stopping:
        given["earlyStoppingPatience"] = job.spec.early_stopping.patience
        given["earlyStoppingThreshold"] = job.spec.early_stopping.threshold
    return values | given


def count_epochs(job: LoadedJob) -> int:
    """How often the data is gone through."""
    row = job.model.hyperparameters.get("epochCount")
    default = row.default if row else 1
    return int(resolve_hyperparameters(job).get("epochCount", default))


def to_api_text(value: int | float) -> str:
    """A hyperparameter as the API takes it: text, without an exponent."""
    return str(value) if isinstance(value, int) else f"{Decimal(repr(value)):f}"


def parse_hyperparameters(sent: Mapping[str, str] | None) -> dict[str, int | float] | None:
    """What `word` made of hyperparameters, as numbers again; None where there are none."""
    if not sent:
        return None
    return {name: _number(text) for name, text in sent.items() if re.fullmatch(NUMBER, text)}


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def base_model_alias(given: str, arn: str | None) -> str | None:
    """The name that a plan gives a base model, where it means the model of `arn`; else `arn`."""
    if arn is None:
        return None
    named = catalogue.find_catalogue_model(given)
    return given if named is not None and named is catalogue.find_catalogue_model(arn) else arn


def custom_model_name(name: str) -> str:
    """A custom model's name from a job's: no dot, no plus, no two separators in a row."""
    return re.sub(r"[^0-9a-zA-Z]+", "-", name).strip("-")


def request_token(staged: StagedJob) -> str:
    """The name of the request: 32 hex digits that follow from all of it and of the data."""
    place = {k: v for k, v in location_of(staged.job).items() if k != "profile"}
    content = {
        "attempt": staged.attempt,
        "name": staged.job.spec.name,
        "place": place,
        "request": _create_parameters(staged, "NAME", "TOKEN"),
        "owner": expected_bucket_owner(staged.job),
        "s3Key": staged.job.spec.bedrock.s3_kms_key_id,
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def create_request(staged: StagedJob) -> dict[str, Any]:
    """The parameters of CreateModelCustomizationJob."""
    name = request_token(staged)
    made = _create_parameters(staged, job_id(staged.job.spec.name, name), name)
    for tags in ("jobTags", "customModelTags"):  # not of the token: older builds had no such tag
        if tags in made:
            made[tags] = [
                *made[tags],
                {"key": tag_names.PLAN_TAG, "value": plan_digest(staged, name)},
            ]
    return made


def plan_digest(staged: StagedJob, token: str) -> str:
    """The plan's digest, which the job carries as a tag."""
    return discovered_plan.plan_digest(
        {
            "backend": "bedrock",
            "name": staged.job.spec.name,
            "token": token,
            "request": {"hyperParameters": resolve_hyperparameters(staged.job)},
            "manifest": to_json(staged.manifest),
            "spec": to_portable_values(staged.job),
        }
    )


def _create_parameters(staged: StagedJob, name: str, client_token: str) -> dict[str, Any]:
    job, spec = staged.job, staged.job.spec.bedrock
    bucket, prefix = output_s3_prefix(job)
    by_role = {item.role: item.uri for item in staged_objects(staged)}
    marks = {TAG_JOB: name, TAG_TOKEN: client_token}
    tags = [{"key": key, "value": value} for key, value in (dict(job.spec.tags) | marks).items()]
    request: dict[str, Any] = {
        "jobName": name,
        "customModelName": spec.custom_model_name or custom_model_name(name),
        "roleArn": spec.role_arn,
        "clientRequestToken": client_token,
        "baseModelIdentifier": base_model_identifier(job),
        "customizationType": job.spec.customization_type,
        "hyperParameters": {k: to_api_text(v) for k, v in resolve_hyperparameters(job).items()},
        "trainingDataConfig": {"s3Uri": by_role["train"]},
        "outputDataConfig": {"s3Uri": f"s3://{bucket}/{prefix}jobs/{name}/output/"},
        "jobTags": tags,
        "customModelTags": tags,
    }
    if CUSTOMIZATION_TYPES[job.spec.customization_type].has_own_hyperparameters:
        del request["hyperParameters"]
    if config := customizations.build_config(job):
        request["customizationConfig"] = config
    if "validation" in by_role:
        request["validationDataConfig"] = {"validators": [{"s3Uri": by_role["validation"]}]}
    if spec.kms_key_id:
        request["customModelKmsKeyId"] = spec.kms_key_id
    if spec.vpc:
        request["vpcConfig"] = {
            "subnetIds": list(spec.vpc.subnet_ids),
            "securityGroupIds": list(spec.vpc.security_group_ids),
        }
    return request | dict(spec.request)


def base_model_identifier(job: LoadedJob) -> str:
    """What baseModelIdentifier gets: an ARN as it was given, else the customization id."""
    given = job.spec.base_model
    return given if given.startswith("arn:") else job.model.bedrock_id or given


def api_calls(staged: StagedJob) -> list[dict[str, Any]]:
    """Every call that changes something, in order, as `--dry-run` shows it."""
    job = staged.job
    owner = {"ExpectedBucketOwner": o} if (o := expected_bucket_owner(job)) else {}
    key = job.spec.bedrock.s3_kms_key_id
    sse = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}
    made: list[dict[str, Any]] = [
        {
            "service": "s3",
            "operation": "put_object",
            "unless": "the object is there with this content; above 16 MiB in parts",
            "parameters": {
                "Bucket": item.bucket,
                "Key": item.key,
                "Metadata": {"cloudft-sha256": item.file.sha256},
                "Body": f"<{item.file.name}, {item.file.bytes} bytes>",
                **sse,
                **owner,
            },
        }
        for item in staged_objects(staged)
    ]
    request = create_request(staged)
    bucket, output = split_s3_uri(request["outputDataConfig"]["s3Uri"])
    plan = {
        "Bucket": bucket,
        "Key": output.removesuffix("output/") + PLAN,
        "Body": "<this plan>",
        **sse,
        **owner,
    }
    made.append({"service": "s3", "operation": "put_object", "parameters": plan})
    made.append({"service": "bedrock", "operation": CREATE, "parameters": request})
    return made


def output_location(request: Mapping[str, Any]) -> tuple[str, str]:
    """Bucket and key prefix of a job's output."""
    return split_s3_uri(request["outputDataConfig"]["s3Uri"])

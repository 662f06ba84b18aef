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
from cloudft.backends import found
from cloudft.backends.base import StagedJob
from cloudft.spec.load import LoadedJob
from cloudft.spec.portable import portable
from cloudft.types import DataFile, job_id, to_json

TAG_JOB, TAG_TOKEN = tag_names.JOB, tag_names.TOKEN
PLAN = "plan.json"
"""Beside a job's output in S3: what another machine needs to know of it."""
NAMES = re.compile(r".*-[0-9a-f]{8}")
"""The form of the job names that cloudft gives. Others may have it too: the tag is the proof."""
STAGED = re.compile(r"s3://.+/data/[0-9a-f]{64}/[^/]+\.jsonl")
"""Where staged data lies."""
ROLES = ("train", "validation")
"""What goes to Bedrock. Test data stays here."""
CREATE = "create_model_customization_job"
NUMBER = r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?"


@dataclass(frozen=True)
class Object:
    """A staged file, and its place in S3."""

    role: str
    file: DataFile
    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """`s3://BUCKET/KEY`."""
        return f"s3://{self.bucket}/{self.key}"


def place_of(job: LoadedJob) -> dict[str, Any]:
    """Where the job runs."""
    spec = job.spec.bedrock
    return {"region": spec.region, "profile": spec.profile, "endpoint_url": spec.endpoint_url}


def prefix_of(job: LoadedJob) -> tuple[str, str]:
    """Bucket and key prefix of the job file's s3_uri; the prefix ends with a slash or is empty."""
    return _place(job.spec.bedrock.s3_uri)


def output_prefix_of(job: LoadedJob) -> tuple[str, str]:
    """Bucket and key prefix of what jobs leave: those of the data unless output_s3_uri is given."""
    return _place(job.spec.bedrock.output_s3_uri or job.spec.bedrock.s3_uri)


def _place(uri: str | None) -> tuple[str, str]:
    bucket, prefix = _bucket_and_key(uri or "")
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


def bucket_owner(job: LoadedJob) -> str | None:
    """The account that the bucket must belong to: the one named, else the role's."""
    spec = job.spec.bedrock
    found = re.match(r"arn:aws[^:]*:iam::(\d{12}):", spec.role_arn or "")
    return spec.bucket_owner or (found[1] if found else None)


def objects(staged: StagedJob) -> list[Object]:
    """The staged files that the job reads, under names that follow from their content."""
    bucket, prefix = prefix_of(staged.job)
    return [
        Object(role, file, bucket, f"{prefix}data/{file.sha256}/{file.name}")
        for role in ROLES
        if (file := staged.manifest.files.get(role))
    ]


def hyper_parameters(job: LoadedJob) -> dict[str, int | float]:
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


def epochs(job: LoadedJob) -> int:
    """How often the data is gone through."""
    row = job.model.hyperparameters.get("epochCount")
    default = row.default if row else 1
    return int(hyper_parameters(job).get("epochCount", default))


def word(value: int | float) -> str:
    """A hyperparameter as the API takes it: text, without an exponent."""
    return str(value) if isinstance(value, int) else f"{Decimal(repr(value)):f}"


def numbers(sent: Mapping[str, str] | None) -> dict[str, int | float] | None:
    """What `word` made of hyperparameters, as numbers again; None where there are none."""
    if not sent:
        return None
    return {name: _number(text) for name, text in sent.items() if re.fullmatch(NUMBER, text)}


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def alias_of(given: str, arn: str | None) -> str | None:
    """The name that a plan gives a base model, where it means the model of `arn`; else `arn`."""
    if arn is None:
        return None
    named = catalogue.known(given)
    return given if named is not None and named is catalogue.known(arn) else arn


def model_name(name: str) -> str:
    """A custom model's name from a job's: no dot, no plus, no two separators in a row."""
    return re.sub(r"[^0-9a-zA-Z]+", "-", name).strip("-")


def token(staged: StagedJob) -> str:
    """The name of the request: 32 hex digits that follow from all of it and of the data."""
    place = {k: v for k, v in place_of(staged.job).items() if k != "profile"}
    content = {
        "attempt": staged.attempt,
        "name": staged.job.spec.name,
        "place": place,
        "request": _create(staged, "NAME", "TOKEN"),
        "owner": bucket_owner(staged.job),
        "s3Key": staged.job.spec.bedrock.s3_kms_key_id,
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def create(staged: StagedJob) -> dict[str, Any]:
    """The parameters of CreateModelCustomizationJob."""
    name = token(staged)
    made = _create(staged, job_id(staged.job.spec.name, name), name)
    for tags in ("jobTags", "customModelTags"):  # not of the token: older builds had no such tag
        if tags in made:
            made[tags] = [*made[tags], {"key": tag_names.PLAN, "value": digest(staged, name)}]
    return made


def digest(staged: StagedJob, token: str) -> str:
    """The plan's digest, which the job carries as a tag."""
    return found.digest(
        {
            "backend": "bedrock",
            "name": staged.job.spec.name,
            "token": token,
            "request": {"hyperParameters": hyper_parameters(staged.job)},
            "manifest": to_json(staged.manifest),
            "spec": portable(staged.job),
        }
    )


def _create(staged: StagedJob, name: str, client_token: str) -> dict[str, Any]:
    job, spec = staged.job, staged.job.spec.bedrock
    bucket, prefix = output_prefix_of(job)
    by_role = {item.role: item.uri for item in objects(staged)}
    marks = {TAG_JOB: name, TAG_TOKEN: client_token}
    tags = [{"key": key, "value": value} for key, value in (dict(job.spec.tags) | marks).items()]
    request: dict[str, Any] = {
        "jobName": name,
        "customModelName": spec.custom_model_name or model_name(name),
        "roleArn": spec.role_arn,
        "clientRequestToken": client_token,
        "baseModelIdentifier": base_model(job),
        "customizationType": job.spec.customization_type,
        "hyperParameters": {k: word(v) for k, v in hyper_parameters(job).items()},
        "trainingDataConfig": {"s3Uri": by_role["train"]},
        "outputDataConfig": {"s3Uri": f"s3://{bucket}/{prefix}jobs/{name}/output/"},
        "jobTags": tags,
        "customModelTags": tags,
    }
    if job.spec.customization_type == "REINFORCEMENT_FINE_TUNING":
        del request["hyperParameters"]
    if config := _config(job):
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


def _config(job: LoadedJob) -> dict[str, Any] | None:
    """customizationConfig: the teacher, or the grader and its typed hyperparameters."""
    if teaching := job.spec.distillation:
        teacher: dict[str, Any] = {"teacherModelIdentifier": teaching.teacher}
        if teaching.max_response_length is not None:
            teacher["maxResponseLengthForInference"] = teaching.max_response_length
        return {"distillationConfig": {"teacherModelConfig": teacher}}
    if judging := job.spec.reinforcement:
        grader = {"lambdaGrader": {"lambdaArn": judging.lambda_arn}}
        config: dict[str, Any] = {"graderConfig": grader}
        if judging.hyperparameters:
            config["hyperParameters"] = dict(judging.hyperparameters)
        return {"rftConfig": config}
    return None


def base_model(job: LoadedJob) -> str:
    """What baseModelIdentifier gets: an ARN as it was given, else the customization id."""
    given = job.spec.base_model
    return given if given.startswith("arn:") else job.model.bedrock_id or given


def calls(staged: StagedJob) -> list[dict[str, Any]]:
    """Every call that changes something, in order, as `--dry-run` shows it."""
    job = staged.job
    owner = {"ExpectedBucketOwner": o} if (o := bucket_owner(job)) else {}
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
        for item in objects(staged)
    ]
    request = create(staged)
    bucket, output = _bucket_and_key(request["outputDataConfig"]["s3Uri"])
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


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def output_of(request: Mapping[str, Any]) -> tuple[str, str]:
    """Bucket and key prefix of a job's output."""
    return _bucket_and_key(request["outputDataConfig"]["s3Uri"])

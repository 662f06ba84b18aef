"""Judge answers by evaluation jobs of Bedrock: one for the base model and one for the tuned model.

The answers are part of the dataset (`precomputedInferenceSource`), because a job takes no model
that is deployed on demand, and only one model. A job's name follows from the answers, the metrics
and the judge. So a repeated evaluation finds the job under way, and the results of one that has
ended. Source of the formats: see catalogue/evaluation_metrics.py.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import msgspec
import orjson
from tenacity import Retrying, retry_if_result, wait_exponential

from cloudft.aws.client import Aws
from cloudft.aws.s3 import ObjectStream, list_objects, split_s3_uri
from cloudft.aws.tags import JOB_TAG, TOKEN_TAG, to_tag_list
from cloudft.backends.bedrock.api_shapes import EvaluationJob
from cloudft.backends.bedrock.batch_inference import BatchLocation
from cloudft.backends.capabilities import ProgressCallback
from cloudft.backends.evaluation_jobs import (
    AnsweredRecord,
    EvaluationPlan,
    JudgedAnswers,
    JudgeSettings,
    Judgment,
    PlannedEvaluationJob,
    RecordJudgments,
)
from cloudft.catalogue import evaluation_metrics as facts
from cloudft.errors import BadDocument, JobStateConflict, ResourceConflict
from cloudft.storage.documents import decode_python_json

RUNNING_STATUSES = ("InProgress", "Stopping")
USABLE_STATUSES = ("InProgress", "Completed")
"""Statuses of a job that need not be created again."""
POLL_S, LONGEST_POLL_S = 0.2, 60.0
JOB_NAME_PREFIX = "cloudft-eval"
DATASET_NAME = "held-out"
TOKEN_LENGTH = 24
"""Digits of the digest in a job's name, which has 63 characters at most."""
LOST_RESULTS = "aws bedrock batch-delete-evaluation-job --job-identifiers"


@dataclass(frozen=True)
class EvaluationLocation(BatchLocation):
    """S3 location and role of the evaluation jobs of a customization job, and its name."""

    job_name: str


@dataclass(frozen=True)
class _Attempt:
    """A job of one request, by its name: an attempt that failed makes the next another name."""

    number: int
    arn: str
    status: str


def plan_evaluation(
    aws: Aws,
    location: EvaluationLocation,
    answers: Mapping[str, Sequence[AnsweredRecord]],
    settings: JudgeSettings,
) -> EvaluationPlan:
    """Return the exact requests; look up which jobs the account has. Change nothing.

    Raise UsageError for a model that is no judge.
    """
    region = str(aws.region)
    settings = replace(settings, judge=facts.resolve_judge(settings.judge, region))
    jobs = []
    for variant, records in answers.items():
        dataset = encode_dataset(variant, records)
        token = _request_token(location, dataset, settings)
        attempts = _list_attempts(aws, token)
        usable = [one for one in attempts if one.status in USABLE_STATUSES]
        number = 1 + max((one.number for one in attempts), default=-1)
        key = f"{location.prefix}{token}/{DATASET_NAME}.jsonl"
        job = PlannedEvaluationJob(
            variant,
            location.uri(key),
            dataset,
            _request(location, variant, token, number, settings),
            usable[-1].arn if usable else None,
        )
        jobs.append(job)
    return EvaluationPlan(settings, region, tuple(jobs))


def encode_dataset(source: str, records: Sequence[AnsweredRecord]) -> bytes:
    """Return the dataset: a line for each record with its answer. `source` names the model."""
    lines = [
        orjson.dumps(
            {
                "prompt": record.prompt,
                "referenceResponse": record.reference,
                "modelResponses": [{"response": record.response, "modelIdentifier": source}],
            }
        )
        for record in records
    ]
    return b"\n".join([*lines, b""])


def _request_token(location: EvaluationLocation, dataset: bytes, settings: JudgeSettings) -> str:
    content = [location.uri(location.prefix), sorted(settings.metrics), settings.judge]
    digest = hashlib.sha256(orjson.dumps(content))
    digest.update(dataset)
    return digest.hexdigest()[:TOKEN_LENGTH]


def _request(
    location: EvaluationLocation, variant: str, token: str, attempt: int, settings: JudgeSettings
) -> dict[str, Any]:
    """Return the parameters of CreateEvaluationJob."""
    name = f"{JOB_NAME_PREFIX}-{token}-{attempt}"
    folder = f"{location.prefix}{token}/"
    config = {
        "taskType": facts.JUDGE_TASK_TYPE,
        "dataset": {
            "name": DATASET_NAME,
            "datasetLocation": {"s3Uri": location.uri(f"{folder}{DATASET_NAME}.jsonl")},
        },
        "metricNames": [facts.JUDGE_METRICS[name].api_name for name in settings.metrics],
    }
    judge = {"bedrockEvaluatorModels": [{"modelIdentifier": settings.judge}]}
    source = {"precomputedInferenceSource": {"inferenceSourceIdentifier": variant}}
    return {
        "jobName": name,
        "clientRequestToken": name,
        "roleArn": location.role_arn,
        "applicationType": "ModelEvaluation",
        "evaluationConfig": {
            "automated": {"datasetMetricConfigs": [config], "evaluatorModelConfig": judge}
        },
        "inferenceConfig": {"models": [source]},
        "outputDataConfig": {"s3Uri": location.uri(f"{folder}output/")},
        "jobTags": to_tag_list({JOB_TAG: location.job_name, TOKEN_TAG: token}),
    }


def _list_attempts(aws: Aws, token: str) -> list[_Attempt]:
    """Return the account's jobs of one request, the oldest first."""
    failure, name = "the evaluation jobs can't be listed", f"{JOB_NAME_PREFIX}-{token}"
    jobs: Iterator[EvaluationJob] = aws.paginate(
        failure, "bedrock", "list_evaluation_jobs", "jobSummaries", nameContains=name
    )
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    matched = ((pattern.fullmatch(job["jobName"]), job) for job in jobs)
    attempts = [_Attempt(int(m[1]), job["jobArn"], job["status"]) for m, job in matched if m]
    return sorted(attempts, key=lambda attempt: attempt.number)


def run_evaluation(
    aws: Aws, location: EvaluationLocation, plan: EvaluationPlan, progress: ProgressCallback
) -> list[JudgedAnswers]:
    """Create the jobs that do not exist, wait until all have ended, and return their results.

    The jobs continue when the caller is interrupted. Raise JobStateConflict for one that failed.
    """
    # Both first: they run side by side.
    arns = [_create(aws, location, job) for job in plan.jobs]
    judged, label = [], f"Bedrock judges by {plan.settings.judge}"
    progress(label, 0, len(arns))
    for done, (job, arn) in enumerate(zip(plan.jobs, arns, strict=True), 1):
        ended = _wait(aws, arn)
        judged.append(JudgedAnswers(job.variant, arn, _read_results(aws, location, ended, job)))
        progress(label, done, len(arns))
    return judged


def _create(aws: Aws, location: EvaluationLocation, job: PlannedEvaluationJob) -> str:
    """Return the ARN of the job; upload its dataset and create it unless it exists."""
    if job.existing is not None:
        return job.existing
    _upload_once(aws, location, job)
    name = str(job.parameters["jobName"])
    failure = f"the evaluation job {name} can't be created"
    try:
        response = aws.call(failure, "bedrock", "create_evaluation_job", **job.parameters)
    except ResourceConflict:
        # The response of an earlier call was lost, or another evaluation runs beside this one.
        token = name.split("-")[-2]
        same = [one for one in _list_attempts(aws, token) if one.status in USABLE_STATUSES]
        if not same:
            raise
        return same[-1].arn
    return str(response["jobArn"])


def _upload_once(aws: Aws, location: EvaluationLocation, job: PlannedEvaluationJob) -> None:
    """Write the dataset unless it is there: its key has a digest of its content."""
    _, key = split_s3_uri(job.dataset_uri)
    found = dict(list_objects(aws, location.bucket_parameters, key))
    if found.get(key) == len(job.dataset):
        return
    failure = f"{job.dataset_uri} can't be written"
    parameters = location.bucket_parameters
    aws.call(failure, "s3", "put_object", Key=key, Body=job.dataset, **parameters)


def _wait(aws: Aws, arn: str) -> EvaluationJob:
    """Return a job when it has completed. Raise JobStateConflict for one that ended otherwise."""
    retrying = Retrying(
        retry=retry_if_result(lambda job: job["status"] in RUNNING_STATUSES),
        wait=wait_exponential(multiplier=POLL_S, max=LONGEST_POLL_S),
    )
    job: EvaluationJob = retrying(_get, aws, arn)
    if job["status"] != "Completed":
        reasons = "; ".join(job.get("failureMessages") or ()) or "Bedrock gives no reason"
        raise JobStateConflict(
            f"the evaluation job {job['jobName']} is {job['status']}: {reasons}",
            fix="fix that and evaluate again, which creates a new job.",
        )
    return job


def _get(aws: Aws, arn: str) -> EvaluationJob:
    failure = f"can't read the evaluation job {arn.rpartition('/')[2]}"
    response = aws.call(failure, "bedrock", "get_evaluation_job", jobIdentifier=arn)
    return cast("EvaluationJob", response)


class _Details(msgspec.Struct):
    explanation: str | None = None


class _Score(msgspec.Struct, rename="camel"):
    metric_name: str
    result: float | None = None
    evaluator_details: list[_Details] = []


class _Result(msgspec.Struct):
    scores: list[_Score]


class _Response(msgspec.Struct):
    response: str


class _Input(msgspec.Struct, rename="camel"):
    prompt: str
    reference_response: str = ""
    model_responses: list[_Response] = []


class _ResultLine(msgspec.Struct, rename="camel"):
    automated_evaluation_result: _Result
    input_record: _Input
    model_responses: list[_Response] = []


def _read_results(
    aws: Aws, location: EvaluationLocation, job: EvaluationJob, planned: PlannedEvaluationJob
) -> list[RecordJudgments]:
    """Return the judgments in the order of the dataset; empty for a record without a result."""
    records = [_parse_record(line) for line in planned.dataset.splitlines()]
    # The results are in no particular order, and equal records have equal results.
    waiting: dict[AnsweredRecord, deque[int]] = defaultdict(deque)
    for index, record in enumerate(records):
        waiting[record].append(index)
    found: list[RecordJudgments] = [{} for _ in records]
    for record, judgments in _iter_results(aws, location, job):
        if waiting[record]:
            found[waiting[record].popleft()] = judgments
    if not any(found):
        raise JobStateConflict(
            f"the evaluation job {job['jobName']} is Completed, and its results are not in"
            f" {job['outputDataConfig']['s3Uri']}",
            fix=f"delete it, and evaluate again: `{LOST_RESULTS} {job['jobArn']}`",
        )
    return found


def _parse_record(line: bytes) -> AnsweredRecord:
    one = decode_python_json(line, _Input, file="dataset")
    return AnsweredRecord(one.prompt, one.reference_response, one.model_responses[0].response)


def _iter_results(
    aws: Aws, location: EvaluationLocation, job: EvaluationJob
) -> Iterator[tuple[AnsweredRecord, RecordJudgments]]:
    """Yield each record of the results with its judgments; nothing for a damaged line."""
    _, prefix = split_s3_uri(f"{job['outputDataConfig']['s3Uri']}{job['jobName']}/")
    job_id = job["jobArn"].rpartition("/")[2]
    for key, _ in list_objects(aws, location.bucket_parameters, prefix):
        if f"/{job_id}/models/" not in key or not key.endswith("_output.jsonl"):
            continue
        uri = location.uri(key)
        with io.BufferedReader(ObjectStream(uri, aws.client("s3"))) as lines:
            for line in lines:
                try:
                    yield _parse_result(line, uri)
                except BadDocument:
                    continue


def _parse_result(line: bytes, uri: str) -> tuple[AnsweredRecord, RecordJudgments]:
    """Return a record of the results and its judgments. Raise BadDocument."""
    parsed = decode_python_json(line, _ResultLine, file=uri)
    given = parsed.input_record
    # Jobs with a judge were seen to write the answer in either place.
    [response, *_] = [*parsed.model_responses, *given.model_responses, _Response("")]
    record = AnsweredRecord(given.prompt, given.reference_response, response.response)
    return record, {
        score.metric_name.removeprefix(facts.PREFIX): _to_judgment(score)
        for score in parsed.automated_evaluation_result.scores
    }


def _to_judgment(score: _Score) -> Judgment:
    # "Not applicable" is NaN in the judge's scale, and null in results that were seen.
    result = None if score.result is None or math.isnan(score.result) else score.result
    explanations = [one.explanation or "" for one in score.evaluator_details]
    return Judgment(result, "\n".join(filter(None, explanations)))


def evaluation_location(location: BatchLocation, job_name: str) -> EvaluationLocation:
    """Return the location of a job's evaluation jobs, next to that of its batches."""
    prefix = f"{location.prefix.removesuffix('batches/')}evaluations/"
    owner, role = location.bucket_owner, location.role_arn
    return EvaluationLocation(location.bucket, prefix, owner, role, job_name)

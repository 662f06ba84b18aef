"""Generate with a tuned model and its base by batch inference jobs: no deployment is needed.

A batch takes a custom model by its own ARN. A batch's name follows from the model and its records,
and a record's id from the request in it. So a repeated evaluation finds the batch under
way, and every answer of those that have ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

import msgspec
import orjson
from tenacity import Retrying, retry_if_result, wait_exponential

from cloudft.aws import s3
from cloudft.aws.client import Aws
from cloudft.aws.s3 import list_objects, read_object, s3_uri, split_s3_uri
from cloudft.aws.tags import to_tag_list
from cloudft.backends.bedrock import request
from cloudft.backends.bedrock.api_shapes import BatchJob, CustomizationJob
from cloudft.backends.bedrock.converse import (
    ConverseRequest,
    ConverseResponse,
    converse_request,
    parse_converse_response,
)
from cloudft.backends.bedrock.inference import endpoint_answer_keys
from cloudft.errors import BadDocument, JobStateConflict, ResourceConflict, UsageError
from cloudft.inference import Answer, GenerationConfig, InferenceSession, Prompt
from cloudft.storage.documents import Count, decode

TERMINAL_STATUSES = {"Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired"}
STATUSES_WITH_OUTPUT = {"Completed", "PartiallyCompleted"}
POLL_S, LONGEST_POLL_S = 0.2, 60.0
JOB_NAME_PREFIX = "cloudft-ask"
BATCHES = "batches"
"""Folder of a job's batches, beside that of its output."""
Records = Mapping[str, ConverseRequest]
"""Requests by record id."""


class _RecordError(TypedDict, total=False):
    errorMessage: str


class OutputRecord(TypedDict, total=False):
    """A line of a batch's output: the answer to a record, or why it has none."""

    recordId: str
    modelOutput: ConverseResponse
    error: _RecordError


@dataclass(frozen=True)
class BatchLocation:
    """S3 location of a job's batches, and the role that reads and writes there."""

    bucket: str
    prefix: str
    bucket_owner: str | None
    role_arn: str

    @property
    def bucket_parameters(self) -> dict[str, str]:
        """Return the bucket as S3's operations take it."""
        return s3.bucket_parameters(self.bucket, self.bucket_owner)

    def uri(self, key: str) -> str:
        """Return `s3://BUCKET/KEY`."""
        return s3_uri(self.bucket, key)


def batch_location(job: CustomizationJob, bucket_owner: str | None) -> BatchLocation:
    """Return the location of batches, next to the output of a customization job."""
    bucket, output_prefix = request.output_location(job["outputDataConfig"])
    prefix = f"{output_prefix.removesuffix('output/')}{BATCHES}/"
    return BatchLocation(bucket, prefix, bucket_owner, job["roleArn"])


class BatchInferenceSession(InferenceSession):
    """A job's base and tuned model, each of which answers by batches."""

    def __init__(self, aws: Aws, ids: Mapping[str, str], location: BatchLocation) -> None:
        self._aws, self._ids, self._location = aws, ids, location

    def model_identities(self) -> Mapping[str, str]:
        """Return the model id or ARN of each variant."""
        return self._ids

    def answer_keys(self) -> Mapping[str, str]:
        """Return the model id or ARN of each variant, with the endpoint that answers."""
        return endpoint_answer_keys(self._aws, self._ids)

    def generate(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        """Yield the answers of one batch per variant; wait for its end.

        A batch continues when the caller is interrupted. Raise JobStateConflict for a batch that
        failed and for prompts without an answer, UsageError for raw text: these batches are
        conversations.
        """
        if any(prompt.text is not None for prompt in prompts):
            raise UsageError(
                "a batch holds conversations, and this job's model continues raw text",
                fix="remove --batch: `cloudft deploy JOB`, then evaluate.",
            )
        for variant in variants:
            yield from self._answer_variant(variant, prompts, decoding)

    def _answer_variant(
        self, variant: str, prompts: Sequence[Prompt], config: GenerationConfig
    ) -> Iterator[Answer]:
        model = self._ids[variant]
        requests = [converse_request(prompt, config, model) for prompt in prompts]
        records = {_record_id(one): one for one in requests}
        answers = self._existing_answers(model, records)
        missing = {key: body for key, body in records.items() if key not in answers}
        if missing:
            answers |= self._read_output(self._run_batch(model, missing))
        for index, one in enumerate(requests):
            record = answers.get(_record_id(one))
            if record is None or "modelOutput" not in record:
                raise _no_answer_error(index, record)
            yield parse_converse_response(record["modelOutput"], index, variant)

    def _existing_answers(self, model: str, records: Records) -> dict[str, OutputRecord]:
        """Return the answers of earlier batches of this model to these records."""
        answers: dict[str, OutputRecord] = {}
        for batch in self._list_batches(model, JOB_NAME_PREFIX):
            if batch["status"] in STATUSES_WITH_OUTPUT:
                output = self._read_output(batch).items()
                answers |= {k: v for k, v in output if k in records and "modelOutput" in v}
        return answers

    def _list_batches(self, model: str, name: str) -> list[BatchJob]:
        """Return the job's batches of a model whose name contains `name`, the oldest first."""
        failure, operation = "the batches can't be listed", "list_model_invocation_jobs"
        batches: Iterator[BatchJob] = self._aws.paginate(
            failure, "bedrock", operation, "invocationJobSummaries", nameContains=name
        )
        prefix = self._location.uri(self._location.prefix)
        # The list may have the ARN of a model that the request named by its id.
        name = model.rpartition("/")[2]
        of_model = [batch for batch in batches if batch["modelId"].rpartition("/")[2] == name]
        of_job = [batch for batch in of_model if _output_uri(batch).startswith(prefix)]
        return sorted(of_job, key=lambda batch: str(batch["submitTime"]))

    def _run_batch(self, model: str, records: Records) -> BatchJob:
        """Return the batch of these records when it has ended; create it unless it is under way."""
        # One token for one set of records of a job: a repeated evaluation finds the batch by its
        # name, and each batch that ended without all answers makes the next attempt another name.
        # Another job with these records has a batch of its own, whose output is beside that job's.
        prefix = self._location.uri(self._location.prefix)
        content = orjson.dumps([model, prefix, sorted(records)])
        token = hashlib.sha256(content).hexdigest()[:32]
        batches = self._list_batches(model, f"{JOB_NAME_PREFIX}-{token}")
        running = [batch for batch in batches if batch["status"] not in TERMINAL_STATUSES]
        if running:
            arn = running[-1]["jobArn"]
        else:
            arn = self._create_batch(model, token, len(batches), records)
        retrying = Retrying(
            retry=retry_if_result(lambda batch: batch["status"] not in TERMINAL_STATUSES),
            wait=wait_exponential(multiplier=POLL_S, max=LONGEST_POLL_S),
        )
        ended: BatchJob = retrying(self._get_batch, arn)
        if ended["status"] not in STATUSES_WITH_OUTPUT:
            raise JobStateConflict(
                f"the batch {ended['jobName']} is {ended['status']}:"
                f" {ended.get('message') or 'Bedrock gives no reason'}",
                fix="fix that and evaluate again, which creates a new batch.",
            )
        return ended

    def _create_batch(self, model: str, token: str, attempt: int, records: Records) -> str:
        """Upload the records and create the batch; return its ARN."""
        location, name = self._location, f"{JOB_NAME_PREFIX}-{token}-{attempt}"
        key = f"{location.prefix}{token}/input.jsonl"
        output_key = f"{location.prefix}{token}/{attempt}/"
        lines = [orjson.dumps({"recordId": k, "modelInput": v}) for k, v in records.items()]
        body = b"\n".join([*lines, b""])
        failure = f"{location.uri(key)} can't be written"
        parameters = location.bucket_parameters
        self._aws.call(failure, "s3", "put_object", Key=key, Body=body, **parameters)
        data = {"s3InputFormat": "JSONL", "s3Uri": location.uri(key)}
        try:
            response = self._aws.call(
                f"the batch {name} can't be created",
                "bedrock",
                "create_model_invocation_job",
                jobName=name,
                roleArn=location.role_arn,
                modelId=model,
                modelInvocationType="Converse",
                clientRequestToken=f"{token}-{attempt}",
                inputDataConfig={"s3InputDataConfig": data},
                outputDataConfig={"s3OutputDataConfig": {"s3Uri": location.uri(output_key)}},
                tags=to_tag_list({request.TAG_TOKEN: token}),
            )
        except ResourceConflict:
            # The response of an earlier call was lost, or another evaluation runs beside this one.
            same = [b for b in self._list_batches(model, name) if b["jobName"] == name]
            if not same:
                raise
            return same[0]["jobArn"]
        return str(response["jobArn"])

    def _get_batch(self, arn: str) -> BatchJob:
        failure = f"can't read the batch {arn.rpartition('/')[2]}"
        operation = "get_model_invocation_job"
        response = self._aws.call(failure, "bedrock", operation, jobIdentifier=arn)
        return cast("BatchJob", response)

    def _read_output(self, batch: BatchJob) -> dict[str, OutputRecord]:
        """Return a batch's output by record id; its order is not that of the input."""
        _, prefix = split_s3_uri(_output_uri(batch))
        parameters = self._location.bucket_parameters
        output: dict[str, OutputRecord] = {}
        for key, _ in list_objects(self._aws, parameters, prefix):
            if key.endswith(".jsonl.out"):
                for line in read_object(self._aws, parameters, key).splitlines():
                    output.update(_parse_output_line(line, key))
        return output

    def close(self) -> None:
        """Do nothing: no model is loaded here."""


class _Usage(msgspec.Struct, rename="camel"):
    output_tokens: Count


class _Message(msgspec.Struct):
    content: list[dict[str, object]]


class _Output(msgspec.Struct):
    message: _Message


class _Answer(msgspec.Struct, rename="camel"):
    output: _Output
    stop_reason: str
    usage: _Usage


class _Error(msgspec.Struct, rename="camel"):
    error_message: str | None = None


class _OutputLine(msgspec.Struct, rename="camel"):
    record_id: str
    model_output: _Answer | None = None
    error: _Error | None = None


def _parse_output_line(line: bytes, key: str) -> Iterator[tuple[str, OutputRecord]]:
    """Yield a line of a batch's output by its record id; nothing for a damaged line.

    The structs above only validate: the answer is used as it is in the line.
    """
    try:
        record_id = decode(line, _OutputLine, file=key).record_id
    except BadDocument:
        return
    record = {name: value for name, value in orjson.loads(line).items() if value is not None}
    yield record_id, cast("OutputRecord", record)


def _output_uri(batch: BatchJob) -> str:
    return batch["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"]


def _record_id(body: ConverseRequest) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def _no_answer_error(index: int, record: OutputRecord | None) -> JobStateConflict:
    error: _RecordError = (record or {}).get("error", {})
    reason = error.get("errorMessage") or "its output has no such record"
    return JobStateConflict(
        f"the batch did not answer prompt {index + 1}: {reason}",
        fix="evaluate again: answers that exist are kept, only the rest is sent again.",
    )

"""Questions to a tuned model and its base as batch inference jobs: nothing has to serve the model.

A batch takes a custom model by its own ARN. Its name follows from the model and the questions, and
each question's record id from what is asked, so that whoever asks again finds the batch under way,
and of those that have ended every answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
from tenacity import Retrying, retry_if_result, wait_exponential

from cloudft.aws.client import Aws
from cloudft.backends.bedrock import output, request
from cloudft.backends.bedrock.converse import converse_request, parse_converse_response
from cloudft.errors import BadDocument, JobStateConflict, ResourceConflict, UsageError
from cloudft.inference import Answer, GenerationConfig, InferenceSession, Prompt
from cloudft.storage.documents import Count, decode

TERMINAL_STATUSES = {"Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired"}
STATUSES_WITH_OUTPUT = {"Completed", "PartiallyCompleted"}
POLL_S, LONGEST_POLL_S = 0.2, 60.0
JOB_NAME_PREFIX = "cloudft-ask"


@dataclass(frozen=True)
class BatchLocation:
    """Where a job's batches lie, and the role that reads and writes there."""

    bucket: str
    prefix: str
    bucket_owner: str | None
    role_arn: str

    @property
    def bucket_parameters(self) -> dict[str, str]:
        """The bucket, as S3's operations take it."""
        owner = {"ExpectedBucketOwner": self.bucket_owner} if self.bucket_owner else {}
        return {"Bucket": self.bucket, **owner}

    def uri(self, key: str) -> str:
        """`s3://BUCKET/KEY`."""
        return f"s3://{self.bucket}/{key}"


def batch_location(job: Mapping[str, Any], bucket_owner: str | None) -> BatchLocation:
    """Beside the output of a customization job."""
    bucket, prefix = request.output_location(job)
    return BatchLocation(
        bucket, f"{prefix.removesuffix('output/')}batches/", bucket_owner, job["roleArn"]
    )


class BatchInferenceSession(InferenceSession):
    """The base and the tuned model of a job, each asked by batches."""

    def __init__(self, aws: Aws, ids: Mapping[str, str], location: BatchLocation) -> None:
        self._aws, self._ids, self._location = aws, ids, location

    def model_identities(self) -> Mapping[str, str]:
        """The models' own ids."""
        return self._ids

    def generate(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        """A batch a variant, followed to its end. Whoever breaks off leaves it to go on.

        Raises JobStateConflict for a batch that failed and for questions without an answer,
        UsageError for raw text: batches here are conversations.
        """
        if any(prompt.text is not None for prompt in prompts):
            raise UsageError(
                "a batch asks conversations, and this job's model goes on with raw text",
                fix="leave --batch out: `cloudft deploy JOB`, then evaluate.",
            )
        for variant in variants:
            yield from self._answer_variant(variant, prompts, decoding)

    def _answer_variant(
        self, variant: str, prompts: Sequence[Prompt], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        model = self._ids[variant]
        records = {
            _record_id(body): body for body in (converse_request(p, decoding) for p in prompts)
        }
        found = self._existing_answers(model, records)
        missing = {key: body for key, body in records.items() if key not in found}
        if missing:
            found |= self._read_answers(self._run_batch(model, missing))
        for index, prompt in enumerate(prompts):
            told = found.get(_record_id(converse_request(prompt, decoding)))
            if told is None or "modelOutput" not in told:
                raise _no_answer_error(index, told)
            yield parse_converse_response(told["modelOutput"], index, variant)

    def _existing_answers(
        self, model: str, wanted: Mapping[str, Any]
    ) -> dict[str, Mapping[str, Any]]:
        """What earlier batches of this model have answered."""
        found: dict[str, Mapping[str, Any]] = {}
        for summary in self._list_batches(model, ""):
            if summary["status"] in STATUSES_WITH_OUTPUT:
                answers = self._read_answers(summary)
                found |= {k: v for k, v in answers.items() if k in wanted and "modelOutput" in v}
        return found

    def _list_batches(self, model: str, name: str) -> list[Mapping[str, Any]]:
        """The job's batches of a model whose name holds `name`, the oldest first."""
        what, operation = "the batches can't be listed", "list_model_invocation_jobs"
        summaries = self._aws.paginate(
            what,
            "bedrock",
            operation,
            "invocationJobSummaries",
            nameContains=name or JOB_NAME_PREFIX,
        )
        ours = self._location.uri(self._location.prefix)
        mine = [s for s in summaries if s["modelId"] == model and _output_uri(s).startswith(ours)]
        return sorted(mine, key=lambda s: str(s["submitTime"]))

    def _run_batch(self, model: str, records: Mapping[str, Any]) -> Mapping[str, Any]:
        """The batch of these questions, at its end."""
        token = hashlib.sha256(orjson.dumps([model, sorted(records)])).hexdigest()[:32]
        before = self._list_batches(model, f"{JOB_NAME_PREFIX}-{token}")
        going = [s for s in before if s["status"] not in TERMINAL_STATUSES]
        arn = (
            going[-1]["jobArn"] if going else self._create_batch(model, token, len(before), records)
        )
        waits = Retrying(
            retry=retry_if_result(lambda answer: answer["status"] not in TERMINAL_STATUSES),
            wait=wait_exponential(multiplier=POLL_S, max=LONGEST_POLL_S),
        )
        ended: Mapping[str, Any] = waits(self._get_batch, arn)
        if ended["status"] not in STATUSES_WITH_OUTPUT:
            raise JobStateConflict(
                f"the batch {ended['jobName']} is {ended['status']}:"
                f" {ended.get('message') or 'no reason is told'}",
                fix="mend that and ask again, which makes a new batch.",
            )
        return ended

    def _create_batch(
        self, model: str, token: str, attempt: int, records: Mapping[str, Any]
    ) -> str:
        """Stage the questions and create the batch; its ARN."""
        place, name = self._location, f"{JOB_NAME_PREFIX}-{token}-{attempt}"
        key, out = f"{place.prefix}{token}/input.jsonl", f"{place.prefix}{token}/{attempt}/"
        lines = [orjson.dumps({"recordId": k, "modelInput": v}) for k, v in records.items()]
        body = b"\n".join([*lines, b""])
        what = f"{place.uri(key)} can't be written"
        self._aws.call(what, "s3", "put_object", Key=key, Body=body, **place.bucket_parameters)
        given = {"s3InputFormat": "JSONL", "s3Uri": place.uri(key)}
        try:
            answer = self._aws.call(
                f"the batch {name} can't be created",
                "bedrock",
                "create_model_invocation_job",
                jobName=name,
                roleArn=place.role_arn,
                modelId=model,
                modelInvocationType="Converse",
                clientRequestToken=f"{token}-{attempt}",
                inputDataConfig={"s3InputDataConfig": given},
                outputDataConfig={"s3OutputDataConfig": {"s3Uri": place.uri(out)}},
                tags=[{"key": request.TAG_TOKEN, "value": token}],
            )
        except ResourceConflict:  # a try whose answer was lost, or another evaluation beside this
            same = [s for s in self._list_batches(model, name) if s["jobName"] == name]
            if not same:
                raise
            answer = same[0]
        return str(answer["jobArn"])

    def _get_batch(self, arn: str) -> Mapping[str, Any]:
        what = f"the batch {arn.rpartition('/')[2]} can't be looked at"
        return self._aws.call(what, "bedrock", "get_model_invocation_job", jobIdentifier=arn)

    def _read_answers(self, batch: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """The lines of a batch's output, by record id; their order is not the input's."""
        prefix = _output_uri(batch).removeprefix(f"s3://{self._location.bucket}/")
        found: dict[str, Mapping[str, Any]] = {}
        for key, _ in output.list_objects(self._aws, self._location.bucket_parameters, prefix):
            if key.endswith(".jsonl.out"):
                content = output.read_object(self._aws, self._location.bucket_parameters, key)
                lines = content.splitlines()
                found |= {
                    name: answer for line in lines for name, answer in _parse_output_line(line, key)
                }
        return found

    def close(self) -> None:
        """Nothing is held."""


class _Usage(msgspec.Struct, rename="camel"):
    output_tokens: Count


class _Message(msgspec.Struct):
    content: list[dict[str, Any]]


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


def _parse_output_line(line: bytes, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A line of a batch's output by its record's id; a damaged one is no answer."""
    try:
        record_id = decode(line, _OutputLine, file=key).record_id
    except BadDocument:
        return
    whole = orjson.loads(line)
    yield record_id, {name: value for name, value in whole.items() if value is not None}


def _output_uri(batch: Mapping[str, Any]) -> str:
    return str(batch["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"])


def _record_id(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def _no_answer_error(index: int, told: Mapping[str, Any] | None) -> JobStateConflict:
    error = (told or {}).get("error", {})
    reason = error.get("errorMessage") or "its output has no such record"
    return JobStateConflict(
        f"the batch did not answer question {index + 1}: {reason}",
        fix="evaluate again: what was answered is kept, the rest is asked anew.",
    )

"""Batch inference: CreateModelInvocationJob over one file in S3, or over all files of a folder.

Source of the file formats: Bedrock user guide, "Format and upload your batch inference data" and
"View the results of a batch inference job".
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import orjson

from cloudft.aws.s3 import split_s3_uri
from cloudft.backends.aws_base.requests import split_prefix
from cloudft.endpoint.bedrock import invoke_bodies
from cloudft.endpoint.bedrock.body_checks import JsonObject, as_malformed, parse_json_object
from cloudft.endpoint.bedrock.converse_requests import parse_converse_request
from cloudft.endpoint.bedrock.converse_responses import converse_output
from cloudft.endpoint.bedrock.local_inference import BATCH_IN_FLIGHT
from cloudft.endpoint.bedrock.pagination import filter_by_name_and_time, paginate
from cloudft.endpoint.bedrock.runtime import BedrockRuntime, ResolvedModel
from cloudft.endpoint.bedrock.shapes import (
    ConverseInput,
    CreateBatchRequest,
    JobIdentifier,
    ListBatchesRequest,
)
from cloudft.endpoint.iam.authorizer import RoleClientFactory
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.state import (
    Model,
    State,
    Task,
    find_by_arn_or_name,
    require_resource,
    require_unused_job_name,
)

if TYPE_CHECKING:
    from botocore.client import BaseClient

RUNNING = ("Submitted", "InProgress", "Stopping")
REQUEST_MEMBERS = (
    *("roleArn", "modelId", "inputDataConfig", "outputDataConfig", "vpcConfig"),
    *("clientRequestToken", "timeoutDurationInHours", "modelInvocationType"),
)
"""Members of the request that Get and List return."""


class BatchInference:
    """Operations on model invocation jobs."""

    def __init__(self, state: State, s3: RoleClientFactory, runtime: BedrockRuntime) -> None:
        self.state = state
        self.s3 = s3
        self.runtime = runtime

    def resume(self) -> None:
        """Restart the batches that were running when the endpoint ended."""
        # From the first record: output files are written whole, so nothing of an interrupted
        # batch is left that could be counted twice.
        for task in self.state.batches.values():
            if task.status in RUNNING:
                self._start_thread(task)

    def _start_thread(self, task: Task) -> None:
        threading.Thread(target=self._run_job, args=(task,), daemon=True).start()

    def create_model_invocation_job(self, request: CreateBatchRequest) -> Response:
        """Answer every record of a file in S3."""
        state = self.state

        def make() -> Task:
            require_unused_job_name(state.batches, request["jobName"])
            self._resolve_model(request["modelId"])
            arn = state.arn("model-invocation-job")
            return Task(arn, request["jobName"], dict(request), status="Submitted")

        arn, task = state.create("batch", state.batches, request, make)
        if task is not None:
            self._start_thread(task)
        return {"jobArn": arn}

    def _resolve_model(self, identifier: str) -> ResolvedModel:
        """Return what answers; unlike Converse, a batch takes a custom model without deployment."""
        model: Model | None = find_by_arn_or_name(self.state.models, identifier)
        if model is not None:
            return self.runtime.resolve_custom_model(model)
        return self.runtime.resolve_model(identifier)

    def _run_job(self, task: Task) -> None:
        """Answer the records of every input file, and write the output files and the manifest."""
        try:
            with self.state.lock:
                task.status = "InProgress" if task.status == "Submitted" else task.status
            output = task.request["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"]
            bucket, prefix = split_prefix(output)
            total = {"totalRecordCount": 0, "successRecordCount": 0, "errorRecordCount": 0}
            s3 = self.s3(task.request["roleArn"], task.arn)
            # Of a model's own id the role needs no permission (user guide, "Create a custom service
            # role for batch inference").
            through_profile = self.runtime.profiles.invoke_requests(task.request["modelId"])
            self.s3.require_allowed(task.request["roleArn"], through_profile)
            for key, content in self._read_inputs(s3, task):
                lines = []
                for is_answered, line in self._process_records(task, content):
                    lines.append(line)
                    total["totalRecordCount"] += 1
                    total["successRecordCount" if is_answered else "errorRecordCount"] += 1
                name = f"{prefix}{task.id}/{key.rpartition('/')[2]}.out"
                s3.put_object(Bucket=bucket, Key=name, Body=b"\n".join([*lines, b""]))
            manifest = f"{prefix}{task.id}/manifest.json.out"
            s3.put_object(Bucket=bucket, Key=manifest, Body=orjson.dumps(total))
            with self.state.lock:
                task.counts = total | {"processedRecordCount": total["totalRecordCount"]}
                task.finish("Stopped" if task.status == "Stopping" else "Completed")
                self.state.save()
        except Exception as error:  # a thread has no caller: the job carries the failure
            with self.state.lock:
                task.finish("Failed", str(getattr(error, "message", error)))
                self.state.save()

    def _read_inputs(self, s3: BaseClient, task: Task) -> Iterator[tuple[str, bytes]]:
        """Yield key and content of each input file. Raises ValidationException if there is none."""
        uri = task.request["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
        bucket, key = split_s3_uri(uri)
        keys = [key]
        if not key.endswith(".jsonl"):
            answer = s3.list_objects_v2(Bucket=bucket, Prefix=key)
            keys = [o["Key"] for o in answer.get("Contents", ()) if o["Key"].endswith(".jsonl")]
        if not keys:
            raise ServiceError("ValidationException", f"There is no .jsonl file at {uri}")
        for name in keys:
            yield name, s3.get_object(Bucket=bucket, Key=name)["Body"].read()

    def _process_records(self, task: Task, content: bytes) -> Iterator[tuple[bool, bytes]]:
        """Yield what `_process_record` returns for each record of a file, in order."""
        # A thread for each of so many: the engine answers them in one batch.
        with ThreadPoolExecutor(BATCH_IN_FLIGHT) as threads:
            records = filter(None, content.splitlines())
            yield from threads.map(functools.partial(self._process_record, task), records)

    def _process_record(self, task: Task, line: bytes) -> tuple[bool, bytes]:
        """Return whether a record has an answer, and it with its answer or its error."""
        record: JsonObject = {}
        try:
            if task.status == "Stopping":
                raise ServiceError("ValidationException", "The job was stopped")
            record = parse_json_object(line)
            output = self._generate(task, record["modelInput"])
            return True, orjson.dumps({**record, "modelOutput": output})
        except (ServiceError, KeyError, TypeError, ValueError, AttributeError) as error:
            # As on Bedrock, a record that can't be answered is an error of that record alone.
            failure = {"errorCode": 400, "errorMessage": str(error)}
            return False, orjson.dumps({**record, "error": failure})

    def _generate(self, task: Task, model_input: JsonObject) -> JsonObject:
        model, body_format, raw_text, name = self._resolve_model(task.request["modelId"])
        inference = self.runtime.inference
        if task.request.get("modelInvocationType") == "Converse":
            # Unlike Converse's own requests, a record is validated by parsing it.
            with as_malformed():
                request = parse_converse_request(cast(ConverseInput, model_input))
            return converse_output(inference.generate(model, request))
        parsed = invoke_bodies.parse_request(body_format, model_input, raw=raw_text)
        result = replace(inference.generate(model, parsed), model_id=name)
        return body_format.format_response(result)

    def get_model_invocation_job(self, request: JobIdentifier) -> Response:
        """Return one batch."""
        with self.state.lock:
            identifier = request["jobIdentifier"]
            return self._job_response(require_resource(self.state.batches, identifier, "batch job"))

    def _job_response(self, task: Task) -> Response:
        return {
            "jobArn": task.arn,
            "jobName": task.name,
            **{name: task.request.get(name) for name in REQUEST_MEMBERS},
            "status": task.status,
            "message": task.failure,
            "submitTime": task.created,
            "lastModifiedTime": task.modified,
            "endTime": task.ended,
            **task.counts,
        }

    def list_model_invocation_jobs(self, request: ListBatchesRequest) -> Response:
        """Return summaries of the batches, paginated."""
        # This list names its time filters differently from all others.
        after, before = request.get("submitTimeAfter"), request.get("submitTimeBefore")
        times = {"creationTimeAfter": after, "creationTimeBefore": before}
        with self.state.lock:
            tasks = [
                task
                for task in filter_by_name_and_time(
                    self.state.batches.values(), {**request, **times}
                )
                if request.get("statusEquals", task.status) == task.status
            ]
            shown, next_page = paginate(tasks, request)
            summaries = [self._job_response(task) for task in shown]
            return {"invocationJobSummaries": summaries, **next_page}

    def stop_model_invocation_job(self, request: JobIdentifier) -> Response:
        """Stop a batch. Raises ConflictException for one that has ended."""
        with self.state.lock:
            identifier = request["jobIdentifier"]
            task: Task = require_resource(self.state.batches, identifier, "batch job")
            if task.status not in RUNNING:
                raise ServiceError("ConflictException", f"The job is {task.status}")
            task.status = "Stopping"
        return {}

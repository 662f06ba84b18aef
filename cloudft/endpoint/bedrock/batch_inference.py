"""Batch inference: CreateModelInvocationJob over a file of S3, or all files of a folder.

Source of the files' form: Bedrock user guide, "Format and upload your batch inference data" and
"View the results of a batch inference job".
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from cloudft.endpoint.bedrock import invoke_bodies
from cloudft.endpoint.bedrock.invoke_bodies import BodyFormat
from cloudft.endpoint.bedrock.local_inference import ModelRef
from cloudft.endpoint.bedrock.pagination import filter_by_name_and_time, paginate
from cloudft.endpoint.bedrock.runtime import BedrockRuntime, parse_converse_request
from cloudft.endpoint.iam.authorizer import RoleClientFactory
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.s3_uri import split_s3_uri
from cloudft.endpoint.state import (
    Model,
    State,
    Task,
    find_by_arn_or_name,
    require_resource,
    require_unused_job_name,
)

RUNNING = ("Submitted", "InProgress", "Stopping")


class BatchInference:
    """The operations of model invocation jobs."""

    def __init__(self, state: State, s3: RoleClientFactory, runtime: BedrockRuntime) -> None:
        self.state = state
        self.s3 = s3
        self.runtime = runtime

    def begin(self) -> None:
        """Begin again with what was under way."""
        for task in self.state.batches.values():
            if task.status in RUNNING:
                self._start_thread(task)

    def _start_thread(self, task: Task) -> None:
        threading.Thread(target=self._run_job, args=(task,), daemon=True).start()

    def create_model_invocation_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Ask a model every question of a file."""
        state = self.state

        def make() -> Task:
            require_unused_job_name(state.batches, given["jobName"])
            self._resolve_model(given["modelId"])
            arn = state.arn("model-invocation-job")
            return Task(arn, given["jobName"], dict(given), status="Submitted")

        arn, task = state.create("batch", state.batches, given, make)
        if task is not None:
            self._start_thread(task)
        return {"jobArn": arn}

    def _resolve_model(self, identifier: str) -> tuple[ModelRef, BodyFormat, bool]:
        """Resolve a model id; unlike Converse, batches take a custom model without a deployment."""
        model: Model | None = find_by_arn_or_name(self.state.models, identifier)
        if model is not None:
            return self.runtime.resolve_custom_model(model)
        return self.runtime.resolve_model(identifier)

    def _run_job(self, task: Task) -> None:
        try:
            with self.state.lock:
                task.status = "InProgress" if task.status == "Submitted" else task.status
            bucket, prefix = split_s3_uri(
                task.request["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"]
            )
            total = {"totalRecordCount": 0, "successRecordCount": 0, "errorRecordCount": 0}
            s3 = self.s3(task.request["roleArn"], task.arn)
            for key, content in self._read_inputs(s3, task):
                lines = [
                    self._process_record(task, line, total) for line in content.splitlines() if line
                ]
                name = f"{prefix}{task.id}/{key.rpartition('/')[2]}.out"
                s3.put_object(Bucket=bucket, Key=name, Body=b"\n".join([*lines, b""]))
            manifest = f"{prefix}{task.id}/manifest.json.out"
            s3.put_object(Bucket=bucket, Key=manifest, Body=orjson.dumps(total))
            with self.state.lock:
                task.counts = total | {"processedRecordCount": total["totalRecordCount"]}
                task.finish("Stopped" if task.status == "Stopping" else "Completed")
                self.state.save()
        except Exception as error:  # whatever it is, the job says so
            with self.state.lock:
                task.finish("Failed", str(getattr(error, "message", error)))
                self.state.save()

    def _read_inputs(self, s3: Any, task: Task) -> Iterator[tuple[str, bytes]]:
        uri = task.request["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
        bucket, key = split_s3_uri(uri, folder=False)
        keys = [key]
        if not key.endswith(".jsonl"):
            answer = s3.list_objects_v2(Bucket=bucket, Prefix=key)
            keys = [o["Key"] for o in answer.get("Contents", ()) if o["Key"].endswith(".jsonl")]
        if not keys:
            raise ServiceError("ValidationException", f"There is no .jsonl file at {uri}")
        for name in keys:
            yield name, s3.get_object(Bucket=bucket, Key=name)["Body"].read()

    def _process_record(self, task: Task, line: bytes, total: dict[str, int]) -> bytes:
        """One record with its answer, or with its error."""
        total["totalRecordCount"] += 1
        record: dict[str, Any] = {}
        try:
            if task.status == "Stopping":
                raise ServiceError("ValidationException", "The job was stopped")
            record = dict(invoke_bodies.parse_json_object(line))
            output = self._generate(task, record["modelInput"])
            total["successRecordCount"] += 1
            return orjson.dumps(record | {"modelOutput": output})
        except (ServiceError, KeyError, TypeError, ValueError, AttributeError) as error:
            total["errorRecordCount"] += 1
            told = {"errorCode": 400, "errorMessage": str(error)}
            return orjson.dumps(record | {"error": told})

    def _generate(self, task: Task, asked: Mapping[str, Any]) -> Any:
        model, body_format, raw = self._resolve_model(task.request["modelId"])
        if task.request.get("modelInvocationType") == "Converse":
            reply = self.runtime.inference.generate(model, parse_converse_request(asked))
            message = {"role": "assistant", "content": [{"text": reply.text}]}
            usage = invoke_bodies.converse_usage(reply)
            return {"output": {"message": message}, "stopReason": reply.stop_reason, "usage": usage}
        reply = self.runtime.inference.generate(
            model, invoke_bodies.parse_request(body_format, asked, raw=raw)
        )
        return body_format.format_response(reply)

    def get_model_invocation_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One batch."""
        with self.state.lock:
            return self._job_response(
                require_resource(self.state.batches, given["jobIdentifier"], "batch job")
            )

    def _job_response(self, task: Task) -> dict[str, Any]:
        names = ("roleArn", "modelId", "inputDataConfig", "outputDataConfig", "vpcConfig")
        more = ("clientRequestToken", "timeoutDurationInHours", "modelInvocationType")
        return {
            "jobArn": task.arn,
            "jobName": task.name,
            **{name: task.request.get(name) for name in (*names, *more)},
            "status": task.status,
            "message": task.failure,
            "submitTime": task.created,
            "lastModifiedTime": task.modified,
            "endTime": task.ended,
            **task.counts,
        }

    def list_model_invocation_jobs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Summaries, a page at a time."""
        after, before = given.get("submitTimeAfter"), given.get("submitTimeBefore")
        times = {"creationTimeAfter": after, "creationTimeBefore": before}
        with self.state.lock:
            tasks = [
                task
                for task in filter_by_name_and_time(self.state.batches.values(), {**given, **times})
                if given.get("statusEquals", task.status) == task.status
            ]
            shown, more = paginate(tasks, given)
            return {"invocationJobSummaries": [self._job_response(task) for task in shown], **more}

    def stop_model_invocation_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer no more. Raises ConflictException for a job that has ended."""
        with self.state.lock:
            task: Task = require_resource(self.state.batches, given["jobIdentifier"], "batch job")
            if task.status not in RUNNING:
                raise ServiceError("ConflictException", f"The job is {task.status}")
            task.status = "Stopping"
        return {}

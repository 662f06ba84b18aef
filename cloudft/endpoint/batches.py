"""Batch inference: CreateModelInvocationJob over a file of S3, or all files of a folder.

Source of the files' form: Bedrock user guide, "Format and upload your batch inference data" and
"View the results of a batch inference job".
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from cloudft.endpoint import bodies
from cloudft.endpoint.authority import Hands
from cloudft.endpoint.pages import chosen, page
from cloudft.endpoint.places import split
from cloudft.endpoint.runtime import Runtime, conversation
from cloudft.endpoint.state import State, Task, found, refuse_taken_name, require
from cloudft.endpoint.wire import WireError

RUNNING = ("Submitted", "InProgress", "Stopping")


class Batches:
    """The operations of model invocation jobs."""

    def __init__(self, state: State, s3: Hands, runtime: Runtime) -> None:
        self.state = state
        self.s3 = s3
        self.runtime = runtime

    def begin(self) -> None:
        """Begin again with what was under way."""
        for task in self.state.batches.values():
            if task.status in RUNNING:
                self._go(task)

    def _go(self, task: Task) -> None:
        threading.Thread(target=self._run, args=(task,), daemon=True).start()

    def create_model_invocation_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Ask a model every question of a file."""
        state = self.state

        def make() -> Task:
            refuse_taken_name(state.batches, given["jobName"])
            self._who(given["modelId"])
            arn = state.arn("model-invocation-job")
            return Task(arn, given["jobName"], dict(given), status="Submitted")

        arn, task = state.create("batch", state.batches, given, make)
        if task is not None:
            self._go(task)
        return {"jobArn": arn}

    def _who(self, identifier: str) -> Any:
        """Batches take custom models by their own ARN, without a deployment."""
        model = found(self.state.models, identifier)
        if model is not None:
            return self.runtime.of(model)
        return self.runtime.served(identifier)

    def _run(self, task: Task) -> None:
        try:
            with self.state.lock:
                task.status = "InProgress" if task.status == "Submitted" else task.status
            bucket, prefix = split(task.request["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"])
            total = {"totalRecordCount": 0, "successRecordCount": 0, "errorRecordCount": 0}
            s3 = self.s3(task.request["roleArn"], task.arn)
            for key, content in self._inputs(s3, task):
                lines = [self._line(task, line, total) for line in content.splitlines() if line]
                name = f"{prefix}{task.id}/{key.rpartition('/')[2]}.out"
                s3.put_object(Bucket=bucket, Key=name, Body=b"\n".join([*lines, b""]))
            manifest = f"{prefix}{task.id}/manifest.json.out"
            s3.put_object(Bucket=bucket, Key=manifest, Body=orjson.dumps(total))
            with self.state.lock:
                task.counts = total | {"processedRecordCount": total["totalRecordCount"]}
                task.end("Stopped" if task.status == "Stopping" else "Completed")
                self.state.save()
        except Exception as error:  # whatever it is, the job says so
            with self.state.lock:
                task.end("Failed", str(getattr(error, "message", error)))
                self.state.save()

    def _inputs(self, s3: Any, task: Task) -> Iterator[tuple[str, bytes]]:
        uri = task.request["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
        bucket, key = split(uri, folder=False)
        keys = [key]
        if not key.endswith(".jsonl"):
            answer = s3.list_objects_v2(Bucket=bucket, Prefix=key)
            keys = [o["Key"] for o in answer.get("Contents", ()) if o["Key"].endswith(".jsonl")]
        if not keys:
            raise WireError("ValidationException", f"There is no .jsonl file at {uri}")
        for name in keys:
            yield name, s3.get_object(Bucket=bucket, Key=name)["Body"].read()

    def _line(self, task: Task, line: bytes, total: dict[str, int]) -> bytes:
        """One record with its answer, or with its error."""
        total["totalRecordCount"] += 1
        record: dict[str, Any] = {}
        try:
            if task.status == "Stopping":
                raise WireError("ValidationException", "The job was stopped")
            record = dict(bodies.parse(line))
            output = self._answer(task, record["modelInput"])
            total["successRecordCount"] += 1
            return orjson.dumps(record | {"modelOutput": output})
        except (WireError, KeyError, TypeError, ValueError, AttributeError) as error:
            total["errorRecordCount"] += 1
            told = {"errorCode": 400, "errorMessage": str(error)}
            return orjson.dumps(record | {"error": told})

    def _answer(self, task: Task, asked: Mapping[str, Any]) -> Any:
        who, family, raw = self._who(task.request["modelId"])
        if task.request.get("modelInvocationType") == "Converse":
            reply = self.runtime.answers.reply(who, conversation(asked))
            message = {"role": "assistant", "content": [{"text": reply.text}]}
            usage = bodies.usage(reply)
            return {"output": {"message": message}, "stopReason": reply.stop, "usage": usage}
        reply = self.runtime.answers.reply(who, bodies.read(family, asked, raw=raw))
        return family.tell(reply)

    def get_model_invocation_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One batch."""
        with self.state.lock:
            return self._told(require(self.state.batches, given["jobIdentifier"], "batch job"))

    def _told(self, task: Task) -> dict[str, Any]:
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
                for task in chosen(self.state.batches.values(), {**given, **times})
                if given.get("statusEquals", task.status) == task.status
            ]
            shown, more = page(tasks, given)
            return {"invocationJobSummaries": [self._told(task) for task in shown], **more}

    def stop_model_invocation_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Answer no more. Raises ConflictException for a job that has ended."""
        with self.state.lock:
            task: Task = require(self.state.batches, given["jobIdentifier"], "batch job")
            if task.status not in RUNNING:
                raise WireError("ConflictException", f"The job is {task.status}")
            task.status = "Stopping"
        return {}

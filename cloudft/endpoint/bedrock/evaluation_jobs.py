"""Evaluation jobs: answers are scored by a judge model, or by computed metrics.

Source of the output: Bedrock user guide, "Understand how the results of your model evaluation job
are saved in Amazon S3". The names of its files, and `evaluatorDetails`, are those that jobs with a
judge were seen to write.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from cloudft.aws.s3 import split_s3_uri
from cloudft.backends.aws_base.requests import split_prefix
from cloudft.catalogue import evaluation_metrics as facts
from cloudft.endpoint.bedrock import evaluation_scores as scores
from cloudft.endpoint.bedrock.body_checks import JsonObject, parse_json_object
from cloudft.endpoint.bedrock.converse_requests import refuse
from cloudft.endpoint.bedrock.evaluation_scores import Judge, Judged
from cloudft.endpoint.bedrock.inference_request import InferenceRequest
from cloudft.endpoint.bedrock.pagination import filter_by_name_and_time, paginate
from cloudft.endpoint.bedrock.runtime import BedrockRuntime
from cloudft.endpoint.bedrock.shapes import (
    AutomatedEvaluationConfig,
    CreateEvaluationJobRequest,
    DatasetMetricConfig,
    DeleteEvaluationJobsRequest,
    EvaluationModelConfig,
    JobIdentifier,
    ListEvaluationJobsRequest,
)
from cloudft.endpoint.iam.authorizer import RoleClientFactory
from cloudft.endpoint.iam.policies import AccessRequest
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.state import (
    RUNNING,
    State,
    Task,
    find_by_arn_or_name,
    require_resource,
    require_unused_job_name,
)

PERMISSION_CHECK = "amazon-bedrock-evaluations-permission-check"
"""The empty object by which a job finds out whether it may write."""
REQUEST_MEMBERS = (
    *("jobName", "jobDescription", "roleArn", "customerEncryptionKeyId", "applicationType"),
    *("evaluationConfig", "inferenceConfig", "outputDataConfig"),
)
"""Members of the request that Get returns."""


class _JobStopped(Exception):
    """The job was stopped, or the endpoint ends."""


class EvaluationJobs:
    """Operations on evaluation jobs."""

    def __init__(self, state: State, s3: RoleClientFactory, runtime: BedrockRuntime) -> None:
        self.state = state
        self.s3 = s3
        self.runtime = runtime

    def resume(self) -> None:
        """Restart the jobs that were running when the endpoint ended."""
        # From the first record: results are written whole, at the end of a dataset.
        for task in self.state.evaluations.values():
            if task.status in RUNNING:
                self._start_thread(task)

    def _start_thread(self, task: Task) -> None:
        threading.Thread(target=self._run_job, args=(task,), daemon=True).start()

    def create_evaluation_job(self, request: CreateEvaluationJobRequest) -> Response:
        """Score the answers of a dataset in S3 by a judge model, or by computed metrics."""
        state = self.state

        def make() -> Task:
            require_unused_job_name(state.evaluations, request["jobName"])
            self._check(request)
            return Task(state.arn("evaluation-job"), request["jobName"], dict(request))

        arn, task = state.create("evaluation", state.evaluations, request, make, "jobTags")
        if task is not None:
            self._start_thread(task)
        return {"jobArn": arn}

    def _check(self, request: CreateEvaluationJobRequest) -> None:
        """Raise ServiceError (ValidationException) for what can't be evaluated."""
        if "automated" not in request["evaluationConfig"]:
            raise refuse("There is no team of workers here: use evaluationConfig.automated.")
        if "models" not in request["inferenceConfig"]:
            raise refuse("Retrieval is not evaluated here: use inferenceConfig.models.")
        models = request["inferenceConfig"]["models"]
        if len(models) != 1:
            raise refuse("An automated evaluation job evaluates one model.")
        automated = request["evaluationConfig"]["automated"]
        if "customMetricConfig" in automated:
            raise refuse("Custom metrics are not offered here.")
        for judge in _judges(automated):
            if facts.judge_model_id(judge) is None:
                raise refuse(f"The model {judge} is not supported as an evaluator model.")
            self.runtime.resolve_model(judge)
        if "bedrockModel" in models[0]:
            self.runtime.resolve_model(models[0]["bedrockModel"]["modelIdentifier"])
        for config in automated["datasetMetricConfigs"]:
            _check_metrics(config, models[0], with_judge=bool(_judges(automated)))

    def _run_job(self, task: Task) -> None:
        try:
            self._evaluate(task)
            self._finish(task, "Completed")
        except _JobStopped:
            self._finish(task, "Stopped")
        except Exception as error:  # a thread has no caller: the job carries the failure
            self._finish(task, "Failed", str(getattr(error, "message", error)))

    def _finish(self, task: Task, status: str, failure: str | None = None) -> None:
        with self.state.lock:
            if self.state.evaluations.get(task.arn) is task:
                task.finish("Stopped" if task.status == "Stopping" else status, failure)
                self.state.save()

    def _evaluate(self, task: Task) -> None:
        """Write the results of every dataset. Raise _JobStopped, ServiceError, ClientError."""
        s3 = self.s3(task.request["roleArn"], task.arn)
        bucket, prefix = split_prefix(task.request["outputDataConfig"]["s3Uri"])
        check = f"{prefix}{task.name}/{PERMISSION_CHECK}"
        s3.put_object(Bucket=bucket, Key=check, Body=b"")
        automated = task.request["evaluationConfig"]["automated"]
        [model] = task.request["inferenceConfig"]["models"]
        judge = self._open_judge(task, automated)
        for config in automated["datasetMetricConfigs"]:
            dataset = config["dataset"]
            source, key = split_s3_uri(dataset["datasetLocation"]["s3Uri"])
            content = s3.get_object(Bucket=source, Key=key)["Body"].read()
            lines = [
                orjson.dumps(self._result(task, config, judge, record))
                for record in _parse_dataset(content, model)
            ]
            name = (
                f"{prefix}{task.name}/{task.id}/models/{_model_name(model)}"
                f"/taskTypes/{config['taskType']}/datasets/{dataset['name']}"
                f"/{uuid.uuid4()}_output.jsonl"
            )
            s3.put_object(Bucket=bucket, Key=name, Body=b"\n".join([*lines, b""]))

    def _open_judge(self, task: Task, automated: AutomatedEvaluationConfig) -> Judge | None:
        for identifier in _judges(automated):
            self._require_invocation(task, identifier)
            model = self.runtime.resolve_model(identifier).model
            return Judge(self.runtime.inference, model, identifier)
        return None

    def _require_invocation(self, task: Task, identifier: str) -> None:
        """Raise ClientError unless the role may invoke a model, and the profile that names it."""
        if self.s3.authorizer is None:
            return
        role, foundation = task.request["roleArn"], self.runtime.foundation
        base = self.runtime.profiles.find_model(identifier)
        base = base or foundation.find_model(identifier)
        for arn in dict.fromkeys((foundation.arn_of(base.on_demand_id), identifier)):
            if arn.startswith("arn:"):
                request = AccessRequest("bedrock:InvokeModel", arn, {})
                self.s3.authorizer.require_allowed(role, request, "InvokeModel")

    def _result(
        self, task: Task, config: DatasetMetricConfig, judge: Judge | None, record: dict[str, Any]
    ) -> JsonObject:
        """Return a line of the results: the scores of a record, the record and the answer."""
        if task.status == "Stopping":
            raise _JobStopped
        [model] = task.request["inferenceConfig"]["models"]
        responses = record.pop("modelResponses", None)
        if responses is None:
            text = self._ask(model, record["prompt"])
            responses = [{"response": text, "modelIdentifier": _model_name(model)}]
        found = [
            self._score(name, config["taskType"], model, judge, record, responses[0]["response"])
            for name in config["metricNames"]
        ]
        return {
            "automatedEvaluationResult": {"scores": found},
            "inputRecord": record,
            "modelResponses": responses,
        }

    def _score(
        self,
        metric: str,
        task_type: str,
        model: EvaluationModelConfig,
        judge: Judge | None,
        record: JsonObject,
        response: str,
    ) -> JsonObject:
        reference = record.get("referenceResponse", "")
        name = metric.removeprefix(facts.PREFIX)
        if judge is not None:
            judged = Judged(record["prompt"], response, reference)
            result, explanation = judge.rate(facts.JUDGE_METRICS[name], judged)
            details = {"modelIdentifier": judge.identifier, "explanation": explanation}
            return {"metricName": metric, "result": result, "evaluatorDetails": [details]}
        if name == "Accuracy":
            return {"metricName": name, "result": scores.accuracy(task_type, response, reference)}
        changed = scores.robustness(
            task_type, record["prompt"], response, reference, lambda text: self._ask(model, text)
        )
        return {"metricName": name, "result": changed}

    def _ask(self, model: EvaluationModelConfig, prompt: str) -> str:
        """Return a model's answer. Raise ServiceError."""
        evaluated = model["bedrockModel"]
        resolved = self.runtime.resolve_model(evaluated["modelIdentifier"])
        parameters = parse_json_object(evaluated.get("inferenceParams", "{}").encode())
        config = parameters.get("inferenceConfig")
        if resolved.raw_text:
            request = InferenceRequest(text=prompt, inference_config=config)
        else:
            messages = ({"role": "user", "content": prompt},)
            request = InferenceRequest(messages, inference_config=config)
        return self.runtime.inference.generate(resolved.model, request).text

    def get_evaluation_job(self, request: JobIdentifier) -> Response:
        """Return one evaluation job."""
        with self.state.lock:
            task: Task = require_resource(
                self.state.evaluations, request["jobIdentifier"], "evaluation job"
            )
            return {
                **{name: task.request.get(name) for name in REQUEST_MEMBERS},
                "jobArn": task.arn,
                "status": task.status,
                "jobType": "Automated",
                "creationTime": task.created,
                "lastModifiedTime": task.modified,
                "failureMessages": [task.failure] if task.failure else None,
            }

    def list_evaluation_jobs(self, request: ListEvaluationJobsRequest) -> Response:
        """Return summaries of the evaluation jobs, paginated."""
        with self.state.lock:
            tasks = [
                task
                for task in filter_by_name_and_time(self.state.evaluations.values(), request)
                if request.get("statusEquals", task.status) == task.status
                and request.get("applicationTypeEquals", "ModelEvaluation") == "ModelEvaluation"
            ]
            shown, next_page = paginate(tasks, request)
            return {"jobSummaries": [_summary(task) for task in shown], **next_page}

    def stop_evaluation_job(self, request: JobIdentifier) -> Response:
        """Stop an evaluation job. Raises ConflictException for one that has ended."""
        with self.state.lock:
            task: Task = require_resource(
                self.state.evaluations, request["jobIdentifier"], "evaluation job"
            )
            if task.status != "InProgress":
                raise ServiceError("ConflictException", f"The job is {task.status}")
            task.status = "Stopping"
        return {}

    def batch_delete_evaluation_job(self, request: DeleteEvaluationJobsRequest) -> Response:
        """Delete evaluation jobs that have ended; their results in S3 stay."""
        errors, deleted = [], []
        with self.state.lock:
            for arn in request["jobIdentifiers"]:
                task = find_by_arn_or_name(self.state.evaluations, arn)
                if task is not None and task.status not in RUNNING:
                    del self.state.evaluations[arn]
                    self.state.tags.pop(arn, None)
                    deleted.append({"jobIdentifier": arn, "jobStatus": "Deleting"})
                    continue
                code = "ResourceNotFoundException" if task is None else "ConflictException"
                message = "There is no such job" if task is None else f"The job is {task.status}"
                errors.append({"jobIdentifier": arn, "code": code, "message": message})
            self.state.save()
        return {"errors": errors, "evaluationJobs": deleted}


def _judges(automated: AutomatedEvaluationConfig) -> list[str]:
    models = automated.get("evaluatorModelConfig", {}).get("bedrockEvaluatorModels", ())
    return [model["modelIdentifier"] for model in models]


def _model_name(model: EvaluationModelConfig) -> str:
    """Return what results call the model that answered."""
    if "bedrockModel" in model:
        return model["bedrockModel"]["modelIdentifier"]
    return model["precomputedInferenceSource"]["inferenceSourceIdentifier"]


def _check_metrics(
    config: DatasetMetricConfig, model: EvaluationModelConfig, *, with_judge: bool
) -> None:
    """Raise ServiceError (ValidationException) for metrics that a job of this kind lacks."""
    if "datasetLocation" not in config["dataset"]:
        raise refuse("Built-in datasets are not here: give datasetLocation.")
    kind = config["taskType"]
    if (kind == facts.JUDGE_TASK_TYPE) is not with_judge:
        raise refuse(f"The task type {kind} is not supported for this evaluation job.")
    known = facts.JUDGE_METRICS if with_judge else facts.COMPUTED_METRICS
    for metric in config["metricNames"]:
        if metric.removeprefix(facts.PREFIX) not in known or not metric.startswith(facts.PREFIX):
            raise refuse(f"The metric {metric} is not supported for this evaluation job.")
    if with_judge:
        return
    if "bedrockModel" not in model:
        raise refuse("Answers of your own are evaluated by a judge: give evaluatorModelConfig.")
    if f"{facts.PREFIX}Toxicity" in config["metricNames"]:
        raise refuse("Builtin.Toxicity needs the detoxify model, which is not here.")


def _parse_dataset(content: bytes, model: EvaluationModelConfig) -> Iterator[dict[str, Any]]:
    """Yield the records of a dataset. Raise ServiceError (ValidationException) for a bad one."""
    lines = [line for line in content.splitlines() if line.strip()]
    if not 1 <= len(lines) <= facts.MAX_PROMPTS:
        raise refuse(f"The dataset has {len(lines)} prompts; 1 to {facts.MAX_PROMPTS} are allowed.")
    for number, line in enumerate(lines, 1):
        record = dict(parse_json_object(line))
        texts = [record.get("prompt"), record.get("referenceResponse", "")]
        if not all(isinstance(text, str) for text in texts) or not texts[0]:
            raise refuse(f"Line {number} of the dataset has no prompt.")
        if "precomputedInferenceSource" in model:
            _check_response(record.get("modelResponses"), _model_name(model), number)
        else:
            record.pop("modelResponses", None)
        yield record


def _check_response(responses: object, source: str, number: int) -> None:
    if not isinstance(responses, list) or len(responses) != 1:
        raise refuse(f"Line {number} of the dataset must have one element in modelResponses.")
    [response] = responses
    if not isinstance(response, Mapping) or not isinstance(response.get("response"), str):
        raise refuse(f"Line {number} of the dataset has no response.")
    if response.get("modelIdentifier") != source:
        raise refuse(f"Line {number} of the dataset has a modelIdentifier other than {source}.")


def _summary(task: Task) -> Response:
    automated = task.request["evaluationConfig"]["automated"]
    [model] = task.request["inferenceConfig"]["models"]
    name = _model_name(model)
    invoked = [name] if "bedrockModel" in model else []
    given = [name] if "precomputedInferenceSource" in model else []
    return {
        "jobArn": task.arn,
        "jobName": task.name,
        "status": task.status,
        "creationTime": task.created,
        "jobType": "Automated",
        "evaluationTaskTypes": [c["taskType"] for c in automated["datasetMetricConfigs"]],
        "modelIdentifiers": invoked,
        "evaluatorModelIdentifiers": _judges(automated),
        "inferenceConfigSummary": {
            "modelConfigSummary": {
                "bedrockModelIdentifiers": invoked,
                "precomputedInferenceSourceIdentifiers": given,
            }
        },
        "applicationType": "ModelEvaluation",
    }

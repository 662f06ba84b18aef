"""Copy jobs: another custom model with the same weights."""

from __future__ import annotations

from cloudft.endpoint.bedrock.pagination import filter_by_name_and_time, paginate
from cloudft.endpoint.bedrock.shapes import (
    CopyJobArn,
    CreateCopyJobRequest,
    ListCopyJobsRequest,
)
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.service_quotas import require_quota_for
from cloudft.endpoint.state import (
    Model,
    State,
    Task,
    find_by_arn_or_name,
    new_id,
    require_resource,
)


class ModelCopyJobs:
    """Operations on copy jobs. A copy is done at once: both models share the job that made them."""

    def __init__(self, state: State) -> None:
        self.state = state

    def create_model_copy_job(self, request: CreateCopyJobRequest) -> Response:
        """Copy a custom model."""
        state, name = self.state, request["targetModelName"]

        def make() -> Task:
            source: Model = require_resource(
                state.models, request["sourceModelArn"], "custom model"
            )
            if source.job_arn is None:
                message = "A model that CreateCustomModel made can't be copied here"
                raise ServiceError("ValidationException", message)
            if find_by_arn_or_name(state.models, name):
                raise ServiceError("ConflictException", f"The model name {name} is in use")
            require_quota_for(state, "custom-models", len(state.models))
            arn = state.arn("custom-model", source.base_model_arn.rpartition("/")[2])
            state.models[arn] = Model(arn, name, source.base_model_arn, source.job_arn)
            state.tag(arn, request.get("targetModelTags", ()))
            task = Task(state.arn("model-copy-job"), new_id(), dict(request), model_arn=arn)
            task.finish("Completed")
            return task

        arn, _ = state.create("copy", state.copies, request, make, "")
        return {"jobArn": arn}

    def get_model_copy_job(self, request: CopyJobArn) -> Response:
        """Return one copy job."""
        with self.state.lock:
            return self._job_response(
                require_resource(self.state.copies, request["jobArn"], "copy job")
            )

    def list_model_copy_jobs(self, request: ListCopyJobsRequest) -> Response:
        """Return summaries of the copy jobs, paginated."""
        source = request.get("sourceModelArnEquals")
        account = request.get("sourceAccountEquals")
        with self.state.lock:
            responses = {arn: self._job_response(task) for arn, task in self.state.copies.items()}
            tasks = [
                task
                for task in filter_by_name_and_time(self.state.copies.values(), request)
                if request.get("statusEquals", task.status) == task.status
                and source in (None, task.request["sourceModelArn"])
                and account in (None, responses[task.arn]["sourceAccountId"])
                and request.get("targetModelNameContains", "") in task.request["targetModelName"]
            ]
        shown, next_page = paginate(tasks, request)
        return {"modelCopyJobSummaries": [responses[task.arn] for task in shown], **next_page}

    def _job_response(self, task: Task) -> Response:
        source = task.request["sourceModelArn"]
        model = self.state.models.get(source)
        return {
            "jobArn": task.arn,
            "status": task.status,
            "creationTime": task.created,
            "targetModelArn": task.model_arn,
            "targetModelName": task.request["targetModelName"],
            "sourceAccountId": source.split(":")[4],
            "sourceModelArn": source,
            "sourceModelName": model.name if model else None,
            "targetModelKmsKeyArn": task.request.get("modelKmsKeyId"),
            "failureMessage": task.failure,
        }

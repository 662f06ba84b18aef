"""Copy jobs: another custom model with the same weights, in this Region.

The source may be in any Region of the endpoint. The endpoint has one account: a model of another
one does not exist.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from cloudft.endpoint.bedrock.pagination import filter_by_name_and_time, paginate
from cloudft.endpoint.bedrock.shapes import (
    CopyJobArn,
    CreateCopyJobRequest,
    ListCopyJobsRequest,
)
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.state import (
    Model,
    State,
    Task,
    find_by_arn_or_name,
    new_id,
    region_of,
    require_resource,
)
from cloudft.endpoint.state_file import CUSTOM_FOLDER

SOURCE_GONE = "The source model was deleted before it was copied"


class ModelCopyJobs:
    """Operations on copy jobs. A copy takes `seconds`; both models share the job that made them.

    The files of a model that CreateCustomModel made are copied, below `folder`.
    """

    def __init__(self, state: State, folder: Path, seconds: float = 0.0) -> None:
        self.state = state
        self.folder = folder / CUSTOM_FOLDER
        self.seconds = seconds

    def resume(self) -> None:
        """Continue the copies that were under way when the endpoint ended."""
        for task in self._running():
            self._start_timer(task)

    def _running(self) -> Iterator[Task]:
        return (task for task in list(self.state.copies.values()) if task.ended is None)

    def _start_timer(self, task: Task) -> None:
        timer = threading.Timer(self.seconds, self._finish, args=(task,))
        timer.daemon = True
        timer.start()

    def create_model_copy_job(self, request: CreateCopyJobRequest) -> Response:
        """Copy a custom model to this Region."""
        state, name = self.state, request["targetModelName"]

        def make() -> Task:
            source = self._require_source(request["sourceModelArn"])
            taken = [task.request["targetModelName"] for task in self._running()]
            if find_by_arn_or_name(state.models, name) or name in taken:
                raise ServiceError("ConflictException", f"The model name {name} is in use")
            kind = source.arn.split("/")[-2]
            target = state.arn("custom-model", kind)
            return Task(state.arn("model-copy-job"), new_id(), dict(request), model_arn=target)

        arn, task = state.create("copy", state.copies, request, make, "")
        if task is not None and self.seconds:
            self._start_timer(task)
        elif task is not None:
            self._finish(task)
        return {"jobArn": arn}

    def _require_source(self, arn: str) -> Model:
        model = self.state.find_model(arn)
        if model is None or model.status != "Active":
            message = f"Could not find the custom model {arn}"
            raise ServiceError("ResourceNotFoundException", message)
        return model

    def _finish(self, task: Task) -> None:
        """Record the copy and the end of the job in one save: there is both or neither."""
        state, source_arn = self.state, task.request["sourceModelArn"]
        source = state.find_model(source_arn)
        folder: Path | None = None
        if source is not None and source.folder is not None:
            folder = self.folder / str(task.model_arn).rpartition("/")[2]
            shutil.copytree(source.folder, folder, dirs_exist_ok=True)
        with state.lock:
            if source is None:
                task.finish("Failed", SOURCE_GONE)
            else:
                self._add_model(task, source, folder)
                task.finish("Completed")
            state.save()

    def _add_model(self, task: Task, source: Model, folder: Path | None) -> None:
        arn = str(task.model_arn)
        # The base model is another resource in each Region; its id is the same.
        base = source.base_model_arn.replace(f":{region_of(source.arn)}:", f":{self.state.region}:")
        self.state.models[arn] = Model(
            arn,
            task.request["targetModelName"],
            base,
            source.job_arn,
            folder=str(folder.absolute()) if folder else None,
            architecture=source.architecture,
        )
        self.state.tag(arn, task.request.get("targetModelTags", ()))

    def get_model_copy_job(self, request: CopyJobArn) -> Response:
        """Return one copy job."""
        with self.state.lock:
            return self._job_response(
                require_resource(self.state.copies, request["jobArn"], "copy job")
            )

    def list_model_copy_jobs(self, request: ListCopyJobsRequest) -> Response:
        """Return summaries of the copy jobs to this Region, paginated."""
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
        model = self.state.find_model(source)
        return {
            "jobArn": task.arn,
            "status": task.status,
            "creationTime": task.created,
            "targetModelArn": task.model_arn,
            "targetModelName": task.request["targetModelName"],
            "targetModelTags": task.request.get("targetModelTags"),
            "sourceAccountId": source.split(":")[4],
            "sourceModelArn": source,
            "sourceModelName": model.name if model else None,
            "targetModelKmsKeyArn": task.request.get("modelKmsKeyId"),
            "failureMessage": task.failure,
        }

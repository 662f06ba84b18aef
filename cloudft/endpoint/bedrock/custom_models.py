"""CreateCustomModel: a custom model from weights in S3 instead of a customization job."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

from cloudft.endpoint.bedrock.model_import_jobs import download_folder, read_architecture
from cloudft.endpoint.bedrock.shapes import CreateCustomModelRequest
from cloudft.endpoint.iam.authorizer import RoleClientFactory
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.service_quotas import require_quota_for
from cloudft.endpoint.state import Model, State, find_by_arn_or_name
from cloudft.endpoint.state_file import CUSTOM_FOLDER

CREATION_FAILED = "The model can't be created"


class CustomModels:
    """The operation CreateCustomModel. Weights are kept below `folder`.

    On AWS the source is a bucket of SageMaker's that holds a Nova; here it is a model folder as
    Hugging Face's libraries write it.
    """

    def __init__(self, state: State, s3: RoleClientFactory, folder: Path) -> None:
        self.state = state
        self.s3 = s3
        self.folder = folder / CUSTOM_FOLDER

    def resume(self) -> None:
        """Restart the creations that were under way when the endpoint ended."""
        for model in self.state.models.values():
            if model.status == "Creating":
                self._start_thread(model)

    def _start_thread(self, model: Model) -> None:
        threading.Thread(target=self._create, args=(model,), daemon=True).start()

    def create_custom_model(self, request: CreateCustomModelRequest) -> Response:
        """Create a custom model from a model folder in S3; it is Active when it has been read."""

        def make() -> Model:
            uri = _source_uri(request)
            if "roleArn" not in request:
                raise ServiceError("ValidationException", "roleArn is required for a source in S3")
            name, arn = request["modelName"], self.state.arn("custom-model", "imported")
            if not find_by_arn_or_name(self.state.models, name):  # else the name is the error
                require_quota_for(self.state, "custom-models", len(self.state.models))
            folder = self.folder / arn.rpartition("/")[2]
            source = {"s3Uri": uri, "roleArn": request["roleArn"]}
            return Model(
                arn, name, "", folder=str(folder.absolute()), status="Creating", source=source
            )

        arn, model = self.state.create("model", self.state.models, request, make, "modelTags")
        if model is not None:
            self._start_thread(model)
        return {"modelArn": arn}

    def _create(self, model: Model) -> None:
        source, folder = model.source or {}, Path(str(model.folder))
        failure: str | None = None
        try:
            download_folder(self.s3(source["roleArn"], model.arn), source["s3Uri"], folder)
            model.architecture = read_architecture(folder)
        except Exception as error:  # a thread has no caller: the model carries the failure
            failure = f"{CREATION_FAILED}: {getattr(error, 'message', error)}"
            shutil.rmtree(folder, ignore_errors=True)
        with self.state.lock:
            model.status, model.failure = "Failed" if failure else "Active", failure
            self.state.save()


def _source_uri(request: CreateCustomModelRequest) -> str:
    """Return the folder in S3. Raises ServiceError (ValidationException) for another source."""
    if "customModelDataSource" in request:
        what = "customModelDataSource: this endpoint takes no model package, only a folder in S3"
        raise ServiceError("ValidationException", what)
    source: dict[str, Any] = dict(request.get("modelSourceConfig", {}))
    if "s3DataSource" not in source:
        raise ServiceError("ValidationException", "modelSourceConfig.s3DataSource is required")
    return str(source["s3DataSource"]["s3Uri"])

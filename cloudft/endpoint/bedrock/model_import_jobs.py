"""Import jobs (Custom Model Import from a folder in S3) and the imported models."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from cloudft.backends.aws_base.requests import split_prefix
from cloudft.endpoint.bedrock.pagination import filter_by_name_and_time, paginate
from cloudft.endpoint.bedrock.shapes import (
    CreateImportJobRequest,
    JobIdentifier,
    ListRequest,
    ModelIdentifier,
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
from cloudft.endpoint.state_file import IMPORTED_FOLDER

if TYPE_CHECKING:
    from botocore.client import BaseClient

IMPORTABLE_ARCHITECTURES = ("Llama", "Mistral", "Mixtral", "Qwen", "GptOss", "MllamaForConditional")
"""What Bedrock imports, by the beginning of config.json's `architectures` (user guide, "Import a
customized model")."""
IMPORT_FAILED = "The model can't be imported"


class ModelImportJobs:
    """Operations on import jobs and imported models, whose weights are kept below `folder`."""

    def __init__(self, state: State, s3: RoleClientFactory, folder: Path) -> None:
        self.state = state
        self.s3 = s3
        self.folder = folder / IMPORTED_FOLDER

    def resume(self) -> None:
        """Restart the imports that were running when the endpoint ended."""
        for task in self.state.imports.values():
            if task.status == "InProgress":
                self._start_thread(task)

    def _start_thread(self, task: Task) -> None:
        threading.Thread(target=self._import, args=(task,), daemon=True).start()

    def create_model_import_job(self, request: CreateImportJobRequest) -> Response:
        """Import a folder in S3 as a model."""
        state, name = self.state, request["importedModelName"]

        def make() -> Task:
            require_unused_job_name(state.imports, request["jobName"])
            if "s3DataSource" not in request["modelDataSource"]:
                raise ServiceError(
                    "ValidationException", "modelDataSource.s3DataSource is required"
                )
            # The name of a model that is being imported is taken, too.
            taken = [t.request["importedModelName"] for t in state.imports.values() if not t.ended]
            if find_by_arn_or_name(state.imported, name) or name in taken:
                raise ServiceError("ConflictException", f"The model name {name} is in use")
            return Task(state.arn("model-import-job"), request["jobName"], dict(request))

        arn, task = state.create("import", state.imports, request, make, "jobTags")
        if task is not None:
            self._start_thread(task)
        return {"jobArn": arn}

    def _import(self, task: Task) -> None:
        folder = self.folder / task.id
        try:
            s3 = self.s3(task.request["roleArn"], task.arn)
            download_folder(s3, task.request["modelDataSource"]["s3DataSource"]["s3Uri"], folder)
            architecture = read_architecture(folder)
        except ServiceError as error:
            self._fail(task, f"{IMPORT_FAILED}: {error.message}")
        except Exception as error:  # a thread has no caller: the job carries the failure
            self._fail(task, f"{IMPORT_FAILED}: {error}")
        else:
            self._complete(task, folder, architecture)

    def _fail(self, task: Task, message: str) -> None:
        shutil.rmtree(self.folder / task.id, ignore_errors=True)
        with self.state.lock:
            task.finish("Failed", message)
            self.state.save()

    def _complete(self, task: Task, folder: Path, architecture: str) -> None:
        """Record the model and the end of the job in one save: there is both or neither."""
        state = self.state
        with state.lock:
            arn = state.arn("imported-model")
            name = task.request["importedModelName"]
            state.imported[arn] = Model(
                arn, name, "", folder=str(folder.absolute()), architecture=architecture
            )
            state.tag(arn, task.request.get("importedModelTags", ()))
            task.model_arn = arn
            task.finish("Completed")
            state.save()

    def get_model_import_job(self, request: JobIdentifier) -> Response:
        """Return one import job."""
        with self.state.lock:
            identifier = request["jobIdentifier"]
            task: Task = require_resource(self.state.imports, identifier, "import job")
            created = task.request
            return {
                "jobArn": task.arn,
                "jobName": task.name,
                "importedModelName": created["importedModelName"],
                "importedModelArn": task.model_arn,
                "roleArn": created["roleArn"],
                "modelDataSource": created["modelDataSource"],
                "status": task.status,
                "failureMessage": task.failure,
                "creationTime": task.created,
                "lastModifiedTime": task.modified,
                "endTime": task.ended,
                "vpcConfig": created.get("vpcConfig"),
                "importedModelKmsKeyArn": created.get("importedModelKmsKeyId"),
            }

    def list_model_import_jobs(self, request: ListRequest) -> Response:
        """Return summaries of the import jobs, paginated."""
        with self.state.lock:
            tasks = [
                task
                for task in filter_by_name_and_time(self.state.imports.values(), request)
                if request.get("statusEquals", task.status) == task.status
            ]
        shown, next_page = paginate(tasks, request)
        summaries = [
            {
                "jobArn": task.arn,
                "jobName": task.name,
                "status": task.status,
                "lastModifiedTime": task.modified,
                "creationTime": task.created,
                "endTime": task.ended,
                "importedModelArn": task.model_arn,
                "importedModelName": task.request["importedModelName"],
            }
            for task in shown
        ]
        return {"modelImportJobSummaries": summaries, **next_page}

    def _model(self, request: ModelIdentifier) -> Model:
        identifier = request["modelIdentifier"]
        model: Model = require_resource(self.state.imported, identifier, "imported model")
        return model

    def get_imported_model(self, request: ModelIdentifier) -> Response:
        """Return one imported model."""
        with self.state.lock:
            model = self._model(request)
            task = next(t for t in self.state.imports.values() if t.model_arn == model.arn)
            return {
                "modelArn": model.arn,
                "modelName": model.name,
                "jobName": task.name,
                "jobArn": task.arn,
                "modelDataSource": task.request["modelDataSource"],
                "creationTime": model.created,
                "modelArchitecture": model.architecture,
                "instructSupported": _has_chat_template(Path(str(model.folder))),
                "customModelUnits": {
                    "customModelUnitsPerModelCopy": 1,
                    "customModelUnitsVersion": "v1.0",
                },
            }

    def list_imported_models(self, request: ListRequest) -> Response:
        """Return summaries of the imported models, paginated."""
        with self.state.lock:
            models = filter_by_name_and_time(self.state.imported.values(), request)
        shown, next_page = paginate(models, request)
        summaries = [
            {
                "modelArn": model.arn,
                "modelName": model.name,
                "creationTime": model.created,
                "modelArchitecture": model.architecture,
                "instructSupported": _has_chat_template(Path(str(model.folder))),
            }
            for model in shown
        ]
        return {"modelSummaries": summaries, **next_page}

    def delete_imported_model(self, request: ModelIdentifier) -> Response:
        """Delete an imported model; its files in S3 stay."""
        with self.state.lock:
            model = self._model(request)
            del self.state.imported[model.arn]
            self.state.tags.pop(model.arn, None)
        shutil.rmtree(str(model.folder), ignore_errors=True)
        return {}


def download_folder(s3: BaseClient, uri: str, folder: Path) -> None:
    """Download the files of a folder in S3, without those of its subfolders."""
    bucket, prefix = split_prefix(uri)
    folder.mkdir(parents=True, exist_ok=True)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    for key in keys:
        name = key.removeprefix(prefix)
        if name and "/" not in name:
            with (folder / name).open("wb") as stream:
                s3.download_fileobj(bucket, key, stream)


def read_architecture(folder: Path) -> str:
    """Return the architecture of a model folder. Raises ServiceError if Bedrock would refuse it."""
    config = folder / "config.json"
    if not config.is_file():
        raise ServiceError("ValidationException", "there is no config.json in that folder")
    if not list(folder.glob("*.safetensors")):
        raise ServiceError("ValidationException", "there are no weights (*.safetensors)")
    if not (folder / "tokenizer_config.json").is_file():
        raise ServiceError("ValidationException", "there is no tokenizer_config.json")
    names = orjson.loads(config.read_bytes()).get("architectures") or ["none"]
    if not str(names[0]).startswith(IMPORTABLE_ARCHITECTURES):
        what = f"the architecture {names[0]} is not supported"
        raise ServiceError("ValidationException", what)
    return str(names[0])


def _has_chat_template(folder: Path) -> bool:
    """Return whether a model has a chat template, which Converse requires.

    transformers 5 writes it to a file of its own, older versions into tokenizer_config.json.
    """
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    try:
        return b'"chat_template"' in (folder / "tokenizer_config.json").read_bytes()
    except OSError:
        return False

"""Models that come from elsewhere: import jobs (a merged folder in S3) and copies."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from cloudft.endpoint.bedrock.pagination import filter_by_name_and_time, paginate
from cloudft.endpoint.iam.authorizer import RoleClientFactory
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.s3_uri import split_s3_uri
from cloudft.endpoint.state import (
    Model,
    State,
    Task,
    find_by_arn_or_name,
    new_id,
    require_resource,
    require_unused_job_name,
)
from cloudft.endpoint.state_file import IMPORTED_FOLDER

IMPORTABLE_ARCHITECTURES = ("Llama", "Mistral", "Mixtral", "Qwen", "GptOss", "MllamaForConditional")
"""What Bedrock imports, by the start of config.json's `architectures` (user guide, "Import a
customized model")."""
IMPORT_FAILED = "The model can't be imported"


class ModelImportJobs:
    """The operations of import jobs, imported models and copy jobs."""

    def __init__(self, state: State, s3: RoleClientFactory, folder: Path) -> None:
        self.state = state
        self.s3 = s3
        self.folder = folder / IMPORTED_FOLDER

    def begin(self) -> None:
        """Begin again with imports that were under way."""
        for task in self.state.imports.values():
            if task.status == "InProgress":
                self._start_thread(task)

    def _start_thread(self, task: Task) -> None:
        threading.Thread(target=self._import, args=(task,), daemon=True).start()

    def create_model_import_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Read a folder of S3 as a model."""
        state, wanted = self.state, given["importedModelName"]

        def make() -> Task:
            require_unused_job_name(state.imports, given["jobName"])
            if "s3DataSource" not in given["modelDataSource"]:
                raise ServiceError("ValidationException", "modelDataSource.s3DataSource is needed")
            taken = [t.request["importedModelName"] for t in state.imports.values() if not t.ended]
            if find_by_arn_or_name(state.imported, wanted) or wanted in taken:
                raise ServiceError("ConflictException", f"The model name {wanted} is in use")
            return Task(state.arn("model-import-job"), given["jobName"], dict(given))

        arn, task = state.create("import", state.imports, given, make, "jobTags")
        if task is not None:
            self._start_thread(task)
        return {"jobArn": arn}

    def _import(self, task: Task) -> None:
        folder = self.folder / task.id
        try:
            self._download(task, folder)
            architecture = _read_architecture(folder)
        except ServiceError as error:
            self._fail(task, f"{IMPORT_FAILED}: {error.message}")
        except Exception as error:  # whatever it is, the job says so
            self._fail(task, f"{IMPORT_FAILED}: {error}")
        else:
            self._complete(task, folder, architecture)

    def _fail(self, task: Task, why: str) -> None:
        shutil.rmtree(self.folder / task.id, ignore_errors=True)
        with self.state.lock:
            task.finish("Failed", why)
            self.state.save()

    def _complete(self, task: Task, folder: Path, architecture: str) -> None:
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

    def _download(self, task: Task, folder: Path) -> None:
        bucket, prefix = split_s3_uri(task.request["modelDataSource"]["s3DataSource"]["s3Uri"])
        folder.mkdir(parents=True, exist_ok=True)
        s3 = self.s3(task.request["roleArn"], task.arn)
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        for key in keys:
            name = key.removeprefix(prefix)
            if name and "/" not in name:
                with (folder / name).open("wb") as stream:
                    s3.download_fileobj(bucket, key, stream)

    def get_model_import_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One import."""
        with self.state.lock:
            task: Task = require_resource(self.state.imports, given["jobIdentifier"], "import job")
            request = task.request
            return {
                "jobArn": task.arn,
                "jobName": task.name,
                "importedModelName": request["importedModelName"],
                "importedModelArn": task.model_arn,
                "roleArn": request["roleArn"],
                "modelDataSource": request["modelDataSource"],
                "status": task.status,
                "failureMessage": task.failure,
                "creationTime": task.created,
                "lastModifiedTime": task.modified,
                "endTime": task.ended,
                "vpcConfig": request.get("vpcConfig"),
                "importedModelKmsKeyArn": request.get("importedModelKmsKeyId"),
            }

    def list_model_import_jobs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Summaries, a page at a time."""
        with self.state.lock:
            tasks = _filter_by_status(
                filter_by_name_and_time(self.state.imports.values(), given), given
            )
        shown, more = paginate(tasks, given)
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
        return {"modelImportJobSummaries": summaries, **more}

    def get_imported_model(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One imported model."""
        with self.state.lock:
            model: Model = require_resource(
                self.state.imported, given["modelIdentifier"], "imported model"
            )
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

    def list_imported_models(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Summaries, a page at a time."""
        with self.state.lock:
            models = filter_by_name_and_time(self.state.imported.values(), given)
        shown, more = paginate(models, given)
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
        return {"modelSummaries": summaries, **more}

    def delete_imported_model(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Remove an imported model; what lies in S3 stays."""
        with self.state.lock:
            model: Model = require_resource(
                self.state.imported, given["modelIdentifier"], "imported model"
            )
            del self.state.imported[model.arn]
            self.state.tags.pop(model.arn, None)
        shutil.rmtree(str(model.folder), ignore_errors=True)
        return {}

    def create_model_copy_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Another model with the same weights."""
        state, name = self.state, given["targetModelName"]

        def make() -> Task:
            source: Model = require_resource(state.models, given["sourceModelArn"], "custom model")
            if find_by_arn_or_name(state.models, name):
                raise ServiceError("ConflictException", f"The model name {name} is in use")
            arn = state.arn("custom-model", source.base_model_arn.rpartition("/")[2])
            state.models[arn] = Model(arn, name, source.base_model_arn, source.job_arn)
            state.tag(arn, given.get("targetModelTags", ()))
            task = Task(state.arn("model-copy-job"), new_id(), dict(given), model_arn=arn)
            task.finish("Completed")
            return task

        arn, _ = state.create("copy", state.copies, given, make, "")
        return {"jobArn": arn}

    def get_model_copy_job(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """One copy."""
        with self.state.lock:
            return self._copy_job_response(
                require_resource(self.state.copies, given["jobArn"], "copy job")
            )

    def list_model_copy_jobs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Summaries, a page at a time."""
        wanted = given.get("sourceModelArnEquals"), given.get("sourceAccountEquals")
        with self.state.lock:
            told = {arn: self._copy_job_response(task) for arn, task in self.state.copies.items()}
            tasks = [
                task
                for task in _filter_by_status(
                    filter_by_name_and_time(self.state.copies.values(), given), given
                )
                if wanted[0] in (None, task.request["sourceModelArn"])
                and wanted[1] in (None, told[task.arn]["sourceAccountId"])
                and given.get("targetModelNameContains", "") in task.request["targetModelName"]
            ]
        shown, more = paginate(tasks, given)
        return {"modelCopyJobSummaries": [told[task.arn] for task in shown], **more}

    def _copy_job_response(self, task: Task) -> dict[str, Any]:
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


def _filter_by_status(tasks: list[Task], given: Mapping[str, Any]) -> list[Task]:
    return [task for task in tasks if given.get("statusEquals", task.status) == task.status]


def _read_architecture(folder: Path) -> str:
    """What the folder holds. Raises WireError for one that is no model Bedrock would import."""
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
    """Converse needs a chat template."""
    if (folder / "chat_template.jinja").is_file():
        return True
    try:
        return b'"chat_template"' in (folder / "tokenizer_config.json").read_bytes()
    except OSError:
        return False

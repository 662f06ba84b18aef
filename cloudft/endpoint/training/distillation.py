"""Distillation: the teacher answers the prompts, and the student trains on its answers."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import orjson

from cloudft.data.staging.stage import stage_data
from cloudft.endpoint.bedrock.inference_request import InferenceRequest
from cloudft.endpoint.bedrock.shapes import CreateCustomizationJobRequest, InferenceConfig
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.training import failure_messages
from cloudft.endpoint.training.job_settings import load_requested_job
from cloudft.endpoint.training.run import FailedRun, RunStatus, TrainingRequest, TrainingRun
from cloudft.errors import CheckFailed, CloudftError
from cloudft.inference import Message as PromptMessage

Teacher = Callable[[str, Sequence[InferenceRequest]], Iterable[str]]
"""Model id or ARN, requests -> the teacher's answers, in order."""
TEACHER_BATCH_SIZE = 16
"""Requests that the teacher gets at once: a stop is noticed between two batches."""


class Message(TypedDict):
    """A turn of a conversation, in the form of bedrock-conversation-2024."""

    role: str
    content: list[dict[str, Any]]


class ConversationRecord(TypedDict, total=False):
    """A canonical distillation record: the last message is the user's, or a known answer."""

    system: list[dict[str, Any]]
    messages: list[Message]
    toolConfig: dict[str, Any]


class DistillationRun(TrainingRun):
    """A run with two stages: the teacher's answers (as data processing), then the training."""

    def __init__(
        self,
        request: TrainingRequest,
        teacher: Teacher,
        train: Callable[[TrainingRequest], TrainingRun],
    ) -> None:
        self._training: TrainingRun | None = None
        self._stop_requested = threading.Event()
        arguments = (request, teacher, train)
        threading.Thread(target=self._answer_then_train, args=arguments, daemon=True).start()

    @property
    def local_job_id(self) -> str | None:
        """Return the id of the student's training, once it has started."""
        return self._training.local_job_id if self._training else None

    def poll(self) -> RunStatus:
        """Return data processing until the teacher is done, then the training's own status."""
        if self._training is not None:
            return self._training.poll()
        details = {"validationDetails": "Completed", "dataProcessingDetails": "InProgress"}
        if self._stop_requested.is_set():
            return RunStatus("Stopped", details | {"dataProcessingDetails": "Stopped"})
        return RunStatus("InProgress", details)

    def stop(self) -> None:
        """Stop the teacher before its next batch, or the training."""
        self._stop_requested.set()
        if self._training is not None:
            self._training.stop()

    def _answer_then_train(
        self,
        request: TrainingRequest,
        teacher: Teacher,
        train: Callable[[TrainingRequest], TrainingRun],
    ) -> None:
        try:
            data = {
                role: self._write_answered(request, teacher, path, role)
                for role, path in request.data.items()
            }
            # What the student does is supervised fine-tuning on records that are complete now.
            fine_tuning: CreateCustomizationJobRequest = {
                **request.request,
                "customizationType": "FINE_TUNING",
            }
            if not self._stop_requested.is_set():
                self._training = train(dataclasses.replace(request, request=fine_tuning, data=data))
        except CheckFailed as error:
            self._training = FailedRun(failure_messages.failure_message_of(request, error))
        except (CloudftError, ServiceError) as error:
            self._training = FailedRun(error.message)

    def _write_answered(
        self, request: TrainingRequest, teacher: Teacher, path: Path, role: str
    ) -> Path:
        """Write a file's records with the teacher's answers, and return the new file.

        Records that have an answer keep it. A stop leaves the rest unanswered.
        """
        config = request.request["customizationConfig"]["distillationConfig"]["teacherModelConfig"]
        limits = InferenceConfig(maxTokens=config.get("maxResponseLengthForInference", 256))
        records = list(_read_records(request, path))
        unanswered = [r for r in records if r["messages"][-1]["role"] == "user"]
        if any(map(_has_tools, unanswered)):
            raise ServiceError(
                "ValidationException",
                "A prompt has tools: the teacher's answers are texts here. Give it its answer.",
            )
        to = request.folder / f"answered-{role}.jsonl"
        for start in range(0, len(unanswered), TEACHER_BATCH_SIZE):
            if self._stop_requested.is_set():
                break
            batch = unanswered[start : start + TEACHER_BATCH_SIZE]
            requests = [
                InferenceRequest(messages=_to_messages(record), inference_config=limits)
                for record in batch
            ]
            answers = teacher(config["teacherModelIdentifier"], requests)
            for record, answer in zip(batch, answers, strict=True):
                # An empty answer would be refused as training data.
                block = {"text": answer.strip() or "."}
                record["messages"].append({"role": "assistant", "content": [block]})
        lines = [orjson.dumps(record) for record in records]
        to.write_bytes(b"\n".join(lines) + b"\n")
        return to


def _read_records(request: TrainingRequest, path: Path) -> Iterator[ConversationRecord]:
    """Yield the canonical records of a file. Raises CheckFailed, as `cloudft check` does."""
    job = load_requested_job(dataclasses.replace(request, data={"train": path}))
    staged = stage_data(
        job.spec.data,
        customization_type="DISTILLATION",
        format="distillation",
        seed=job.spec.seed,
        base_dir=job.base_dir,
        root=request.folder / "staged",
    )
    for line in (staged.folder / staged.manifest.files["train"].name).read_bytes().splitlines():
        yield orjson.loads(line)


def _to_messages(record: ConversationRecord) -> tuple[PromptMessage, ...]:
    """Return a prompt as role and text, the system message first; earlier reasoning is kept."""
    system = record.get("system")
    first = ({"role": "system", "content": _join_texts(system)},) if system else ()
    return (*first, *map(_to_message, record["messages"]))


def _to_message(message: Message) -> PromptMessage:
    is_text = all("text" in block for block in message["content"])
    content = _join_texts(message["content"]) if is_text else message["content"]
    return {"role": message["role"], "content": content}


def _join_texts(blocks: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(block["text"] for block in blocks)


def _has_tools(record: ConversationRecord) -> bool:
    blocks = (block for message in record["messages"] for block in message["content"])
    return "toolConfig" in record or any("toolUse" in block for block in blocks)

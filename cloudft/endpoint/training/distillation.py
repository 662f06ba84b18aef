"""Distillation: the teacher answers the questions, the student trains on its answers."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from cloudft.data.staging.stage import stage_data
from cloudft.endpoint.bedrock.local_inference import InferenceRequest
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.training import failure_messages
from cloudft.endpoint.training.run import FailedRun, RunStatus, TrainingRequest, TrainingRun
from cloudft.errors import CheckFailed, CloudftError
from cloudft.spec.load import load_job

Teacher = Callable[[str, Sequence[InferenceRequest]], Iterable[str]]
"""Model id or ARN, questions -> the teacher's answers, in order."""
TEACHER_BATCH_SIZE = 16
"""Questions that the teacher gets at once."""


class DistillationRun(TrainingRun):
    """First the teacher's answers, as data processing; then the training on them."""

    def __init__(
        self,
        order: TrainingRequest,
        teacher: Teacher,
        train: Callable[[TrainingRequest], TrainingRun],
    ) -> None:
        self._inner: TrainingRun | None = None
        self._stopped = threading.Event()
        work = (order, teacher, train)
        threading.Thread(target=self._answer_then_train, args=work, daemon=True).start()

    @property
    def local_job_id(self) -> str | None:
        """The student's training, once it has begun."""
        return self._inner.local_job_id if self._inner else None

    def poll(self) -> RunStatus:
        """Data processing until the teacher has answered; then the training's own look."""
        if self._inner is not None:
            return self._inner.poll()
        details = {"validationDetails": "Completed", "dataProcessingDetails": "InProgress"}
        if self._stopped.is_set():
            return RunStatus("Stopped", details | {"dataProcessingDetails": "Stopped"})
        return RunStatus("InProgress", details)

    def stop(self) -> None:
        """The teacher answers no more, or the training ends."""
        self._stopped.set()
        if self._inner is not None:
            self._inner.stop()

    def _answer_then_train(
        self,
        order: TrainingRequest,
        teacher: Teacher,
        train: Callable[[TrainingRequest], TrainingRun],
    ) -> None:
        try:
            data = {
                role: self._write_answered(order, teacher, path, role)
                for role, path in order.data.items()
            }
            request = dict(order.request) | {"customizationType": "FINE_TUNING"}
            if not self._stopped.is_set():
                self._inner = train(dataclasses.replace(order, request=request, data=data))
        except CheckFailed as error:
            self._inner = FailedRun(failure_messages.failure_message_of(order, error))
        except (CloudftError, ServiceError) as error:
            self._inner = FailedRun(error.message)

    def _write_answered(
        self, order: TrainingRequest, teacher: Teacher, path: Path, role: str
    ) -> Path:
        """The file of questions as a file of questions and answers."""
        config = order.request["customizationConfig"]["distillationConfig"]["teacherModelConfig"]
        limits = {"maxTokens": config.get("maxResponseLengthForInference", 256)}
        records = list(_read_questions(order, path))
        open_ended = [r for r in records if r["messages"][-1]["role"] == "user"]
        to = order.folder / f"answered-{role}.jsonl"
        for at in range(0, len(open_ended), TEACHER_BATCH_SIZE):
            if self._stopped.is_set():
                break
            part = open_ended[at : at + TEACHER_BATCH_SIZE]
            asked = [
                InferenceRequest(messages=_to_messages(record), inference_config=limits)
                for record in part
            ]
            answers = teacher(config["teacherModelIdentifier"], asked)
            for record, answer in zip(part, answers, strict=True):
                block = {"text": answer.strip() or "."}
                record["messages"].append({"role": "assistant", "content": [block]})
        lines = [orjson.dumps(record) for record in records]
        to.write_bytes(b"\n".join(lines) + b"\n")
        return to


def _read_questions(order: TrainingRequest, path: Path) -> Iterator[dict[str, Any]]:
    """The canonical records of a file. Raises CheckFailed, in the words of `cloudft check`."""
    flags = {
        "name": order.name,
        "base_model": order.request["baseModelIdentifier"],
        "customization_type": "DISTILLATION",
        "distillation.teacher": "any",
        "data.train": str(path),
    }
    job = load_job(None, flags=flags)
    staged = stage_data(
        job.spec.data,
        customization_type="DISTILLATION",
        format="distillation",
        seed=job.spec.seed,
        base_dir=job.base_dir,
        root=order.folder / "staged",
    )
    for line in (staged.folder / staged.manifest.files["train"].name).read_bytes().splitlines():
        yield orjson.loads(line)


def _to_messages(record: Mapping[str, Any]) -> tuple[Mapping[str, str], ...]:
    def text(blocks: Any) -> str:
        return "\n".join(block["text"] for block in blocks)

    system = record.get("system")
    first = ({"role": "system", "content": text(system)},) if system else ()
    turns = tuple({"role": m["role"], "content": text(m["content"])} for m in record["messages"])
    return (*first, *turns)

"""Distillation: a teacher on this machine answers the prompts that have no answer.

Each batch of answers is appended to `teacher/answers.jsonl` and made durable, so a run that was
killed or stopped continues with the batch behind. Batches and seeds follow from the prompts, so the
answers do not depend on where a run was interrupted. The student trains on copies of the staged
files in `teacher/` that have these answers; records that had one keep it.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from local_backend.data.chat_messages import Conversation, Record
from local_backend.data.encode import read_records
from local_backend.device import choose_device, choose_dtype, trim_heap
from local_backend.errors import StopRequested, TrainerError
from local_backend.file_digest import sha256_file
from local_backend.inference.completion import (
    Completion,
    Prompt,
    Request,
    decode_completion,
    encode_prompt,
    generate_batch,
)
from local_backend.job_dir import JobDir, write_bytes
from local_backend.libraries import silence_libraries
from local_backend.models.load_model import LoadedModel, load_model
from local_backend.models.load_tokenizer import fix_template_date
from local_backend.models.weights import locate_weights
from local_backend.progress import ProgressReporter
from local_backend.settings import DataFile, DistillationSettings, Settings
from local_backend.training.objectives.distillation import Distillation

FOLDER = "teacher"
ANSWERS = "answers.jsonl"
BATCH = 16
"""Prompts that are answered at once; a kill loses one batch."""
POLL_S = 0.2
UNANSWERED_REMEDY = (
    "give these records an answer of your own, which is kept, or leave them out; or name another"
    " distillation.teacher."
)
NAMED_RECORDS = 5


@dataclass(frozen=True)
class _Question:
    """A prompt without an answer, and the first place where it is."""

    key: str
    record: Record
    place: str


def complete_records(job_dir: JobDir, settings: Settings, reporter: ProgressReporter) -> Settings:
    """Return the settings with data files in which every record has an answer.

    Raise TrainerError for prompts that the teacher gives no answer to, and StopRequested.
    """
    if settings.customization_type != Distillation.customization_type:
        return settings
    questions = _find_questions(settings)
    if not questions:
        return settings
    if settings.distillation is None:
        raise TrainerError(
            f"{len(questions)} prompts have no answer ({questions[0].place}), and the job has no"
            " teacher on this machine.",
            fix="submit the job with cloudft, which collects the answers of a teacher on Bedrock"
            " before it starts the trainer.",
        )
    folder = job_dir / FOLDER
    if reporter.process_group.is_rank_zero:
        folder.mkdir(mode=0o700, exist_ok=True)
        answers = _answer_all(folder / ANSWERS, questions, settings, reporter)
        _check_answers(questions, answers)
        for role, file in settings.data.items():
            _write_completed(file.path, folder / f"{role}.jsonl", answers)
        reporter.summary["teacher"] = _summarize(settings.distillation, answers)
    else:
        _wait_for([folder / f"{role}.jsonl" for role in settings.data], reporter)
    return _with_files(settings, folder)


def sample_answers(folder: Path, settings: Settings) -> tuple[Settings, float]:
    """Let the teacher answer one batch; return data with these answers, and seconds for all.

    They stand for the answers to the other prompts, in files in `folder`. For a probe.
    """
    questions = [] if settings.distillation is None else _find_questions(settings)
    if not questions or settings.distillation is None:
        return settings, 0.0
    started = time.monotonic()
    teacher = _load_teacher(settings.distillation, settings)
    middle = max(0, (len(questions) - BATCH) // 2)
    loaded = time.monotonic()
    batch = questions[middle : middle + BATCH]
    known = list(_answer_batch(teacher, batch, settings.distillation, settings.seed).values())
    batch_seconds = time.monotonic() - loaded
    del teacher
    _free_memory()
    # An empty answer would be refused as training data.
    texts = [{**answer, "text": answer["text"].strip() or "."} for answer in known]
    answers = {q.key: cast(Completion, texts[n % len(texts)]) for n, q in enumerate(questions)}
    for role, file in settings.data.items():
        _write_completed(file.path, folder / f"{role}.jsonl", answers)
    batches = -(-len(questions) // BATCH)
    return _with_files(settings, folder), loaded - started + batches * batch_seconds


def _with_files(settings: Settings, folder: Path) -> Settings:
    """Return the settings with the data files in `folder`, which have the same records."""
    files = {role: folder / f"{role}.jsonl" for role in settings.data}
    data = {
        role: DataFile(path, sha256_file(path), settings.data[role].records)
        for role, path in files.items()
    }
    return replace(settings, data=data)


def prompt_key(record: Record) -> str:
    """Return the digest of a record, by which its answer is found again."""
    content = json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _find_questions(settings: Settings) -> list[_Question]:
    """Return the prompts without an answer, each once, the shortest first."""
    found: dict[str, _Question] = {}
    for _, file in sorted(settings.data.items()):
        for line, record in enumerate(read_records(file.path), start=1):
            if _is_answered(record):
                continue
            if _has_tools(record):
                raise TrainerError(
                    f"{file.path.name}, line {line}: the prompt has tools, and a teacher's answers"
                    " are texts here.",
                    fix="give this record the answer that the student shall learn.",
                )
            key = prompt_key(record)
            found.setdefault(key, _Question(key, record, f"{file.path.name}, line {line}"))
    return sorted(found.values(), key=lambda one: (len(json.dumps(one.record)), one.key))


def _is_answered(record: Record) -> bool:
    return cast(Conversation, record)["messages"][-1]["role"] == "assistant"


def _has_tools(record: Record) -> bool:
    blocks = [
        block
        for turn in cast(Conversation, record)["messages"]
        if not isinstance(turn["content"], str)
        for block in turn["content"]
    ]
    return bool(record.get("toolConfig")) or any("toolUse" in block for block in blocks)


def _answer_all(
    path: Path, questions: Sequence[_Question], settings: Settings, reporter: ProgressReporter
) -> dict[str, Completion]:
    """Return an answer to each question by its key; those in `path` are not generated again."""
    answers = _read_answers(path)
    batches = [questions[at : at + BATCH] for at in range(0, len(questions), BATCH)]
    missing = [n for n, batch in enumerate(batches) if any(q.key not in answers for q in batch)]
    if not missing:
        return answers
    _raise_if_stopped(reporter)
    distillation = settings.distillation
    assert distillation is not None
    teacher = _load_teacher(distillation, settings)
    reporter.log(
        f"the teacher {distillation.teacher} answers {len(questions)} prompts"
        f" ({len(answers)} are answered)"
    )
    with path.open("ab") as file:
        for number in missing:
            _raise_if_stopped(reporter)
            batch = batches[number]
            completions = _answer_batch(teacher, batch, distillation, settings.seed + number)
            new = {k: c for k, c in completions.items() if k not in answers}
            lines = [json.dumps({"key": key, **answer}) + "\n" for key, answer in new.items()]
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())
            answers |= new
            _report(reporter, len(answers), len(questions))
    del teacher
    _free_memory()
    return answers


def _read_answers(path: Path) -> dict[str, Completion]:
    """Return the answers so far; a last line that a kill cut off is removed."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
    answers: dict[str, Completion] = {}
    for line in content[:end].splitlines():
        value: dict[str, Any] = json.loads(line)
        answers[value.pop("key")] = cast(Completion, value)
    return answers


def _load_teacher(distillation: DistillationSettings, settings: Settings) -> LoadedModel:
    silence_libraries()
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    source = locate_weights(distillation.teacher, distillation.weights)
    loaded = load_model(source, dtype, device)
    fix_template_date(loaded.tokenizer, settings.created_on)
    loaded.model.eval()
    loaded.model.config.use_cache = True
    return loaded


def _answer_batch(
    teacher: LoadedModel,
    questions: Sequence[_Question],
    distillation: DistillationSettings,
    seed: int,
) -> dict[str, Completion]:
    """Return the teacher's answers by key. Raise TrainerError with the place of a prompt."""
    request: Request = {
        "maxNewTokens": distillation.max_response_length,
        "temperature": distillation.temperature,
    }
    prompts = [cast(Prompt, question.record) for question in questions]
    rows = []
    for question, prompt in zip(questions, prompts, strict=True):
        try:
            rows.append(encode_prompt(teacher, prompt))
        except TrainerError as error:
            message = f"{question.place}: the teacher can't answer. {error.message}"
            raise TrainerError(message, fix=error.fix) from error
    torch.manual_seed(seed)
    replies = generate_batch(teacher, rows, request)
    return {
        question.key: decode_completion(teacher, prompt, ids)
        for question, prompt, ids in zip(questions, prompts, replies, strict=True)
    }


def _report(reporter: ProgressReporter, answered: int, prompts: int) -> None:
    reporter.progress = {
        "step": 0,
        "totalSteps": 0,
        "epoch": 0,
        "loss": None,
        "tokensPerSecond": None,
        "secondsLeft": None,
        "activity": f"the teacher has answered {answered} of {prompts} prompts",
    }
    reporter.write_state()


def _check_answers(questions: Sequence[_Question], answers: Mapping[str, Completion]) -> None:
    """Raise TrainerError if the teacher gave an empty answer: there is nothing to learn."""
    empty = [one.place for one in questions if not answers[one.key]["text"].strip()]
    if empty:
        more = f" and {len(empty) - NAMED_RECORDS} more" if len(empty) > NAMED_RECORDS else ""
        raise TrainerError(
            f"The teacher's answer is empty for {len(empty)} of {len(questions)} prompts:"
            f" {'; '.join(empty[:NAMED_RECORDS])}{more}.",
            fix=UNANSWERED_REMEDY,
        )


def _write_completed(source: Path, to: Path, answers: Mapping[str, Completion]) -> None:
    lines = [json.dumps(record, ensure_ascii=False) for record in _completed(source, answers)]
    write_bytes(to, ("\n".join(lines) + "\n").encode(), durable=True)


def _completed(source: Path, answers: Mapping[str, Completion]) -> Iterator[Record]:
    for record in read_records(source):
        if _is_answered(record):
            yield record
            continue
        text = answers[prompt_key(record)]["text"]
        answer = {"role": "assistant", "content": [{"text": text}]}
        yield {**record, "messages": [*cast(Conversation, record)["messages"], answer]}


def _summarize(
    distillation: DistillationSettings, answers: Mapping[str, Completion]
) -> dict[str, object]:
    return {
        "model": distillation.teacher,
        "answers": len(answers),
        "tokens": sum(answer["tokens"] for answer in answers.values()),
        "cutAtMaxResponseLength": sum(one["finishReason"] == "length" for one in answers.values()),
    }


def _wait_for(files: Sequence[Path], reporter: ProgressReporter) -> None:
    """Wait until rank 0 has written the files. No collective: the teacher may take hours."""
    while not all(path.is_file() for path in files):
        _raise_if_stopped(reporter)
        time.sleep(POLL_S)


def _raise_if_stopped(reporter: ProgressReporter) -> None:
    if reporter.is_stop_signaled or reporter.job_dir.is_stop_requested():
        raise StopRequested


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim_heap()

"""The answers of a teacher on Bedrock: each is kept when it arrives, refusals are one error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import tiny
import yaml

from cloudft.backends.base import StagedJob
from cloudft.backends.observer import SILENT
from cloudft.data.staging.answered import unanswered_records
from cloudft.data.staging.stage import stage_data
from cloudft.errors import CheckFailed, CloudRefused
from cloudft.inference import FILTERED, Answer, GenerationConfig, InferenceSession, Prompt
from cloudft.jobs import teacher_answers
from cloudft.spec.load import load_job
from cloudft.storage.home import Home

PROMPTS = [f"Question {number}" for number in range(12)]


class Teacher(InferenceSession):
    """Answers in capitals; refuses some prompts, and fails after a number of answers."""

    def __init__(self, refused: Sequence[str] = (), fails_after: int = 1000) -> None:
        self.refused, self.fails_after = refused, fails_after
        self.called: list[str] = []

    def generate(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        [prompt] = prompts
        text = prompt.messages[-1]["content"][0]["text"]
        if len(self.called) >= self.fails_after:
            raise CloudRefused("the model can't be invoked: throttled")
        self.called.append(text)
        reason = FILTERED if text in self.refused else "stop"
        yield Answer(0, variants[0], text.upper(), 3, reason)

    def model_identities(self) -> Mapping[str, str]:
        return {"base": "teacher"}

    def answer_keys(self) -> Mapping[str, str]:
        return {"base": "teacher at an endpoint"}

    def close(self) -> None:
        """Do nothing."""


@pytest.fixture
def staged(tmp_path: Path, home: Path) -> StagedJob:
    tiny.write_jsonl(tmp_path / "train.jsonl", [{"prompt": prompt} for prompt in PROMPTS])
    spec = {
        "name": "student",
        "base_model": "smollm2-135m",
        "customization_type": "DISTILLATION",
        "distillation": {"teacher": "nova-pro"},
        "data": {"train": "train.jsonl"},
        "bedrock": {"region": "us-east-1"},
    }
    (tmp_path / "cloudft.yaml").write_text(yaml.safe_dump(spec))
    job = load_job(tmp_path / "cloudft.yaml")
    data = stage_data(
        job.spec.data,
        customization_type="DISTILLATION",
        format="distillation",
        seed=7,
        base_dir=tmp_path,
        root=Home(home).staged,
    )
    return StagedJob(job, data.manifest, data.folder)


def use(monkeypatch: pytest.MonkeyPatch, teacher: Teacher) -> Teacher:
    monkeypatch.setattr(teacher_answers, "_open_teacher", lambda *_: teacher)
    return teacher


def test_what_was_answered_before_a_failure_is_not_sent_again(
    staged: StagedJob, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = use(monkeypatch, Teacher(fails_after=5))
    with pytest.raises(CloudRefused):
        teacher_answers.collect_answers(staged, Home(home), SILENT)
    second = use(monkeypatch, Teacher())
    done = teacher_answers.collect_answers(staged, Home(home), SILENT)
    assert sorted(first.called + second.called) == sorted(PROMPTS)
    assert unanswered_records(done.folder, done.manifest) == {}
    content = (done.folder / done.manifest.files["train"].name).read_text()
    assert all(prompt.upper() in content for prompt in PROMPTS)
    third = use(monkeypatch, Teacher())
    again = teacher_answers.collect_answers(staged, Home(home), SILENT)
    assert again.manifest == done.manifest and third.called == []


def test_refusals_are_one_error_with_their_places_and_cost_nothing_again(
    staged: StagedJob, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Teacher(refused=PROMPTS[2:4]))
    with pytest.raises(CheckFailed) as caught:
        teacher_answers.collect_answers(staged, Home(home), SILENT)
    [finding] = caught.value.findings
    assert finding.code == "TeacherRefuses" and finding.line
    assert "2 of 12 prompts" in finding.message
    assert "record 3 of train, record 4 of train" in finding.message
    again = use(monkeypatch, Teacher())
    with pytest.raises(CheckFailed):
        teacher_answers.collect_answers(staged, Home(home), SILENT)
    assert again.called == []

"""Schemas are compiled beside the answers of others, once each, for a bounded time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny

from local_backend.serving import batch as batch_module
from local_backend.serving.batch import Batch, RunningAnswer
from local_backend.serving.constraint import SchemaCompiler
from local_backend.serving.models import load_models
from local_backend.serving.requests import ServedJob

pytest.importorskip("llguidance")
SLOW = {"enum": ["slow"]}


class Compilations:
    """The compilations of a batch, which wait at a gate once they have begun."""

    def __init__(self, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batch, self.gate = batch, threading.Event()
        self.begun: list[str] = []
        compile_schema = SchemaCompiler._compile

        def compile_at_gate(self_: SchemaCompiler, schema: Mapping[str, Any], text: str) -> Any:
            self.begun.append(text)
            self.gate.wait()
            return compile_schema(self_, schema, text)

        monkeypatch.setattr(SchemaCompiler, "_compile", compile_at_gate)

    def submit(self, schema: Any = None) -> tuple[RunningAnswer, list[dict[str, Any]]]:
        replies: list[dict[str, Any]] = []
        prompt: Any = {"text": "In"}
        request: Any = {"model": "base", "prompt": prompt, "maxNewTokens": 30, "jsonSchema": schema}
        return self.batch.submit(request, replies.append, time.monotonic()), replies

    def run(self) -> None:
        """Work until no request is open."""
        while not self.batch.is_empty:
            self.batch.step()
            if self.batch.is_idle:
                time.sleep(0.001)


@pytest.fixture
def compilations(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Compilations]:
    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, {"train": tiny.pairs(2)})
    job: ServedJob = {"folder": str(folder), "jobId": "job", "name": None, "base": "base"}
    batch = Batch(load_models({"jobs": [job], "dtype": "float32"}), 4)
    found = Compilations(batch, monkeypatch)
    yield found
    found.gate.set()


def test_a_schema_that_is_compiled_delays_no_other_answer(compilations: Compilations) -> None:
    _, constrained = compilations.submit(SLOW)
    _, plain = compilations.submit()
    batch = compilations.batch
    while not batch.is_idle:  # whatever is not compiled
        batch.step()
    assert "end" in plain[-1] and constrained == []
    assert batch.stats()["waiting"] == 1 and not batch.is_empty
    compilations.gate.set()
    compilations.run()
    assert json.loads(constrained[-1]["end"]["text"]) == "slow"


def test_equal_schemas_are_compiled_once(compilations: Compilations) -> None:
    first, second = compilations.submit(SLOW)[1], compilations.submit(dict(SLOW))[1]
    compilations.gate.set()
    compilations.run()
    third = compilations.submit(SLOW)[1]
    compilations.run()
    assert [json.loads(one[-1]["end"]["text"]) for one in (first, second, third)] == ["slow"] * 3
    assert len(compilations.begun) == 1


def test_a_canceled_request_ends_while_its_schema_is_compiled(compilations: Compilations) -> None:
    answers = [compilations.submit({"enum": [f"{number} slow"]}) for number in range(4)]
    shared, canceled = compilations.submit({"enum": ["3 slow"]}), answers[1:]
    for answer, _ in canceled:
        answer.is_canceled = True
    compilations.batch.step()
    assert [replies[-1]["end"]["finishReason"] for _, replies in canceled] == ["canceled"] * 3
    compilations.gate.set()
    compilations.run()
    assert json.loads(answers[0][1][-1]["end"]["text"]) == "0 slow"
    assert json.loads(shared[1][-1]["end"]["text"]) == "3 slow"
    third = json.dumps({"enum": ["2 slow"]})
    assert third not in compilations.begun, "two are compiled at once, and nobody waits for it"


def test_a_request_waits_for_its_schema_no_longer_than_the_bound(
    compilations: Compilations, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = [compilations.submit({"enum": [number]})[1] for number in range(3)]
    while len(compilations.begun) < 2:
        time.sleep(0.001)
    monkeypatch.setattr(batch_module, "COMPILE_S", 0.0)
    compilations.batch.step()
    assert [one[-1]["code"] for one in late] == ["schema", "schema", "modelFailed"]
    assert late[0][-1]["error"].startswith(
        "The JSON schema can't be kept: it has not been compiled"
    )
    assert compilations.batch.is_empty
    monkeypatch.undo()
    compilations.gate.set()
    again = compilations.submit({"enum": [0]})[1]
    compilations.run()
    assert json.loads(again[-1]["end"]["text"]) == 0, "it was compiled in the meantime"

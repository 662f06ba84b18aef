"""wandb's offline file of a job, which `wandb sync` sends, holds one curve."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tracked_jobs import JOB_ID, PlayedTrainer
from tracker_scenarios import Shown, TrackerScenarios

pytest.importorskip("wandb", reason="`make test-trackers` installs wandb")

from wandb.proto.wandb_internal_pb2 import Record

HEADER, BLOCK = 7, 32_768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


class TestWandbOffline(TrackerScenarios):
    tracker = "wandb"

    @pytest.fixture
    def settings(self, tmp_path: Path) -> dict[str, Any]:
        return {"project": "tickets", "entity": None, "mode": "offline"}

    def records(self, trainer: PlayedTrainer) -> list[Any]:
        """Return the records of the run's one file."""
        [file] = trainer.tracking.path.glob(f"wandb/offline-run-*-{JOB_ID}/*.wandb")
        return [Record.FromString(data) for data in _records(file.read_bytes())]

    def read(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> Shown:
        shown: Shown = {}
        numbers = []
        for record in self.records(trainer):
            if record.WhichOneof("record_type") != "history":
                continue
            row = {_key(item): json.loads(item.value_json) for item in record.history.item}
            numbers.append(row["_step"])
            for name, value in row.items():
                if name != "step" and not name.startswith("_"):
                    shown.setdefault(name, []).append((row["step"], value))
        assert numbers == list(range(len(numbers)))
        return shown

    def read_evaluation(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> dict[str, float]:
        found: dict[str, float] = {}
        for record in self.records(trainer):
            for item in record.summary.update:
                name = _key(item)
                value = json.loads(item.value_json)
                if name.startswith("evaluation/") and isinstance(value, float):
                    found[name.removeprefix("evaluation/")] = value
        return found

    def read_gaps(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> str | None:
        return self.config(trainer).get("not_finite.train/loss")

    def config(self, trainer: PlayedTrainer) -> dict[str, Any]:
        """Return the run's config as it ends."""
        found: dict[str, Any] = {}
        for record in self.records(trainer):
            for source in (record.run.config.update, record.config.update):
                found.update({_key(item): json.loads(item.value_json) for item in source})
        return found

    def test_parameters_and_digests(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> None:
        trainer.start()
        trainer.write(range(10))
        trainer.complete()
        trainer.feed(self.tracker)
        config = self.config(trainer)
        assert config["epochCount"] == 2 and "2" * 64 in config["data.train"]


def _records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's format: its reader is in wandb's Go part alone."""
    assert content.startswith(b":W&B")
    at, parts = HEADER, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        at += HEADER
        data = content[at : at + length]
        at += length
        parts = data if kind in (FULL, FIRST) else parts + data
        if kind in (FULL, LAST):
            yield parts


def _key(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


@pytest.mark.parametrize("is_silent", [False, True], ids=["refuses", "never-answers"])
def test_a_dead_service_is_given_up(home: Path, is_silent: bool) -> None:
    online = {"project": "tickets", "entity": None, "mode": "online"}
    trainer = PlayedTrainer(home, {"wandb": online})
    trainer.start()
    trainer.write(range(10))
    trainer.complete()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        if not is_silent:
            silent.close()
        state = trainer.feed(
            "wandb",
            "--pause=0.1",
            "--patience=8",
            WANDB_BASE_URL=address,
            WANDB_API_KEY="0" * 40,
        )
    assert state.status == "failed" and "has not answered within 8 s" in str(state.message)

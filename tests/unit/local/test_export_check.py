"""`check` says what runtimes would read otherwise, before a day is spent training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from processes import Cli, JobFile

from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.backends.local.backend import LocalBackend
from cloudft.jobs import prepare
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from cloudft.types import Finding


def findings(path: Path, home: Path) -> list[Finding]:
    """Return what the local backend finds in a job file."""
    return LocalBackend(Home(home)).check(load_job(path))


@pytest.fixture
def windowed(tiny_model: Path, tmp_path: Path) -> Path:
    """Return a model whose layers have a sliding window."""
    folder = shutil.copytree(tiny_model, tmp_path / "windowed")
    config = json.loads((folder / "config.json").read_text())
    window = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    config |= window | {"sliding_window": 8}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.usefixtures("preloaded_here")
def test_a_runtime_that_would_drop_something_is_refused_before_training(
    job_file: JobFile, home: Path, windowed: Path
) -> None:
    export: dict[str, Any] = {"for": ["transformers", "mlx"]}
    found, note = findings(job_file(base_model=str(windowed), export=export), home)
    assert (note.severity, note.message) == (
        "note",
        "nothing is known that transformers would read otherwise",
    )
    assert (found.code, found.severity, found.field) == ("NotForRuntime", "error", "export.for")
    assert "mlx-lm" in found.message and "a sliding window of 8 tokens" in found.message
    assert "set export.context: 8" in found.fix and found.line
    path = job_file(base_model=str(windowed), export=export | {"context": 8})
    [note] = findings(path, home)
    assert "that transformers, mlx would read otherwise" in note.message


@pytest.mark.usefixtures("preloaded_here")
def test_an_adapter_of_a_job_that_trains_all_weights_is_refused(
    job_file: JobFile, home: Path
) -> None:
    export = {"for": ["vllm"], "format": "adapter"}
    [found] = findings(job_file(local={"method": "full"}, export=export), home)
    assert "leaves no adapter" in found.message and found.fix == "set export.format: merged."


def test_what_can_not_be_looked_at_is_said(job_file: JobFile, home: Path, tmp_path: Path) -> None:
    path = job_file(base_model="nobody/no-such-model", export={"for": ["mlx"]})
    found = [one for one in findings(path, home) if one.field == "export.for"]
    assert [(one.code, one.severity) for one in found] == [("CouldNotCheck", "warning")]


def test_a_job_that_leaves_no_weights_runs_nowhere(job_file: JobFile, home: Path) -> None:
    job = load_job(job_file(export={"for": ["mlx"]}))
    backend = BedrockBackend(Home(home)).for_job(job)
    codes = [one.code for one in prepare.check(job, backend).findings]
    assert "NotExported" in codes


def test_the_runtimes_are_no_part_of_the_job(job_file: JobFile, home: Path, cli: Cli) -> None:
    names = [
        json.loads(cli("plan", str(job_file(**more)), "--output", "json").stdout)["token"]
        for more in ({}, {"export": {"for": ["vllm"]}})
    ]
    assert names[0] == names[1]


def test_a_runtime_is_named_on_the_command_line(
    job_file: JobFile, home: Path, cli: Cli, windowed: Path
) -> None:
    done = cli("check", str(job_file(base_model=str(windowed))), "--for", "mlx", "--for", "vllm")
    assert done.returncode == 3 and "a sliding window of 8 tokens" in done.stdout


@pytest.mark.parametrize(
    ("export", "message"),
    [
        ({"for": ["mlx"], "format": "adapter"}, "mlx does not read the format adapter"),
        ({"for": []}, "export.for"),
        ({"for": ["mlx", "mlx"]}, "twice"),
        ({"for": ["lmstudio"]}, "lmstudio"),
    ],
    ids=str,
)
def test_a_section_that_is_wrong_in_itself_is_refused(
    job_file: JobFile, cli: Cli, export: dict[str, Any], message: str
) -> None:
    done = cli("check", str(job_file(export=export)))
    assert done.returncode == 2 and message in done.stderr, done.stderr

"""check and submit render every record with the template that will train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import text_templates
import tiny
from job_files import write_job_file
from processes import Cli


def chat(number: int, *, system: str = "") -> dict[str, Any]:
    """Return a chat of two turns, with a system message if there is one."""
    messages = [{"role": "system", "content": system}] if system else []
    city = tiny.CITIES[number % len(tiny.CITIES)]
    messages += [
        {"role": "user", "content": f"Where is parcel {number}?"},
        {"role": "assistant", "content": f"In {city}."},
    ]
    return {"messages": messages}


RECORDS = [chat(number, system="Be short." if number == 16 else "") for number in range(24)]


@pytest.fixture(scope="module")
def refusing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a random Llama whose template refuses a system message, and writes the date."""
    template = text_templates.GEMMA.replace("<start_of_turn>", "<|im_start|>")
    template = template.replace("<end_of_turn>", tiny.END) + "{# strftime_now('%Y') #}"
    return tiny.build_model(tmp_path_factory.mktemp("refusing") / "model", chat_template=template)


def test_the_one_record_that_the_template_refuses_is_found_before_training(
    cli: Cli, refusing_model: Path, tmp_path: Path, home: Path
) -> None:
    path = write_job_file(tmp_path / "job", refusing_model, records=RECORDS)
    [data] = json.loads(cli("check", path, "--output", "json").stdout)["files"]
    checked = json.loads(cli("check", path, "--output", "json").stdout)
    [refusal] = [f for f in checked["findings"] if f["code"] == "NotRendered"]
    assert "System role not supported" in refusal["message"]
    assert (Path(refusal["file"]).name, refusal["line"]) == (Path(data["file"]).name, 17)
    assert [f["code"] for f in checked["findings"] if f["severity"] == "note"] == ["TemplateDate"]
    submitted = cli("submit", path)
    assert submitted.returncode == 3
    assert ":17" in submitted.stderr and "System role not supported" in submitted.stderr
    assert not list((home / "jobs").glob("*/job.json"))


def test_tokens_are_counted_once_and_for_all(
    cli: Cli, tiny_model: Path, tmp_path: Path, home: Path
) -> None:
    """What check, stats and the trainer itself call the tokens of a job is one number."""
    path = write_job_file(tmp_path / "job", tiny_model, records=[chat(n) for n in range(12)])
    checked = json.loads(cli("check", path, "--output", "json").stdout)
    assert checked["tokenRule"].startswith("counted by the tokenizer of")
    stats = json.loads(cli("data", "stats", path, "--output", "json").stdout)
    assert checked["tokens"] == sum(role["tokens"]["sum"] for role in stats.values())
    submitted = json.loads(cli("submit", path, "--wait", "--output", "json").stdout)
    [result] = (home / "jobs").glob("*/artifacts/result.json")
    assert submitted["status"] == "Completed"
    assert json.loads(result.read_text())["summary"]["train"]["tokens"] == checked["tokens"]


def test_records_that_will_be_cut_are_named(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    records = [chat(n) for n in range(12)]
    records[7]["messages"][0]["content"] *= 60
    path = write_job_file(tmp_path / "job", tiny_model, records=records)
    checked = cli("check", path, "--output", "json")
    [cut] = [f for f in json.loads(checked.stdout)["findings"] if f["code"] == "RecordsCut"]
    assert (checked.returncode, cut["severity"], cut["line"]) == (3, "error", 8)
    assert cut["message"].startswith(f"1 of 12 train records are longer than {tiny.CONTEXT} tokens")

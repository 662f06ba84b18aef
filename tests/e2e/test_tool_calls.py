"""Tool calls from the data to the answers: checked, trained, generated and evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chat_templates
import pytest
import tiny
from job_files import write_job_file
from processes import Cli

TOOL = {
    "name": "find",
    "description": "Find a parcel.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def record(city: str, number: int, *, answered: bool = False) -> dict[str, Any]:
    """Return a chat whose question is answered by a call, or by what the call returned."""
    arguments = json.dumps({"city": city})
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": arguments}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": f"Where is parcel {number} for {city}?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    if answered:
        messages += [
            {"role": "tool", "tool_call_id": "c", "content": f"In {city}."},
            {"role": "assistant", "content": city},
        ]
    return {"messages": messages, "tools": [{"type": "function", "function": TOOL}]}


RECORDS = [record(city, n, answered=n == 0) for n in range(4) for city in tiny.CITIES]
HELD_OUT = [record(city, 7) for city in tiny.CITIES]


@pytest.fixture(scope="module")
def tool_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a random Llama whose template has tools."""
    folder = tmp_path_factory.mktemp("tools") / "model"
    return tiny.build_model(folder, chat_template=chat_templates.QWEN25, context=384)


def test_a_model_learns_to_call_and_its_answer_is_the_call(
    cli: Cli, tool_model: Path, tmp_path: Path
) -> None:
    path = write_job_file(
        tmp_path / "job",
        tool_model,
        records=RECORDS,
        data={"test": "test.jsonl"},
        hyperparameters={"epochCount": 16, "learningRate": 0.02},
    )
    tiny.write_jsonl(path.parent / "test.jsonl", HELD_OUT)
    shown = cli("data", "preview", path).stdout
    assert '"name": "find"' in shown and '[[<tool_call>\n{"name": "find", "arguments"' in shown
    done = cli("submit", path, "--wait", "--quiet", "--output", "json", timeout=300)
    assert done.returncode == 0, done.stderr
    done = cli("generate", "-", "--file", path.parent / "test.jsonl", "--output", "json")
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [a["prompt"] for a in answers] == [r["messages"][0]["content"] for r in HELD_OUT]
    for answer, held_out in zip(answers, HELD_OUT, strict=True):
        function = held_out["messages"][1]["tool_calls"][0]["function"]
        expected = {**function, "arguments": json.loads(function["arguments"])}
        assert json.loads(answer["reference"]) == expected
        assert json.loads(answer["tuned"]["text"])["name"] == "find"
    right = sum(json.loads(a["tuned"]["text"]) == json.loads(a["reference"]) for a in answers)
    done = cli("evaluate", "-", "--quick", "--output", "json", cwd=path.parent, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["task"] == "json"
    assert result["tuned"]["exactMatch"] == right / len(HELD_OUT)
    assert result["tuned"]["validShare"] == 1 > result["base"]["validShare"]
    assert result["tuned"]["referenceLoss"] < result["base"]["referenceLoss"] / 4


def test_a_template_without_tools_is_named_before_anything_is_trained(
    cli: Cli, tiny_model: Path, plain_model: Path, tmp_path: Path
) -> None:
    records = [*tiny.pairs(3), *RECORDS[:2]]
    for model in (tiny_model, plain_model):
        path = write_job_file(tmp_path / model.name, model, records=records)
        for words in (["check", path], ["submit", path]):
            done = cli(*words, "--output", "json")
            assert done.returncode == 3, done.stdout
            value = json.loads(done.stdout)
            findings = value.get("findings") or value["error"]["findings"]
            first, rest = [f for f in findings if f["code"] == "NotInTemplate"]
            assert "leaves out the list of tools and tool calls" in first["message"]
            assert "such as Qwen/Qwen2.5-0.5B-Instruct" in first["fix"]
            assert (Path(first["file"]).name, first["line"]) == ("train.jsonl", 4)
            assert rest["message"] == "1 more, 2 in all"

"""Pairs of answers: every shape is one canonical record, and what is broken has line and field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
from click.testing import CliRunner
from corpus_cases import CORPUS

from cloudft.cli.main import cloudft
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import PreferencePair
from cloudft.data.formats.registry import encode_record
from cloudft.data.staging.stage import StagedData, stage_data
from cloudft.errors import CheckFailed
from cloudft.spec.model import DataSpec
from cloudft.types import Finding

TARGETS = ("nova-preference", "openai-preference", "preference", "trl-preference")
SHAPES = (
    *("chosen-messages", "chosen-response", "hh-text", "nova-candidates", "openai"),
    *("sharegpt-ranking", "swift-rejected-response", "trl", "trl-chats", "trl-implicit"),
    *("trl-scores", "ultrafeedback"),
)
"""Files of the corpus that say the same two pairs."""
UNMARKED = (
    *("completion-a-b", "conversation-a-b", "generations-ratings", "kto", "kto-chats"),
    *("output-1-2", "response-0-1", "response-j-k"),
)


def stage(folder: Path, path: Path, **data: Any) -> StagedData:
    return stage_data(
        DataSpec(train=(str(path),), **data),
        customization_type="PREFERENCE_OPTIMIZATION",
        format="preference",
        seed=7,
        base_dir=folder,
        root=folder / "staged",
    )


def errors(folder: Path, path: Path) -> list[Finding]:
    with pytest.raises(CheckFailed) as raised:
        stage(folder, path)
    return [finding for finding in raised.value.findings if finding.severity == "error"]


@pytest.mark.parametrize("name", SHAPES)
def test_the_same_pairs_in_every_shape_are_staged_as_the_same_bytes(
    name: str, tmp_path: Path
) -> None:
    staged = stage(tmp_path, CORPUS / "preferences" / f"{name}.jsonl")
    assert (staged.folder / "train.jsonl").read_text().splitlines()[0] == (
        '{"prompt":[{"role":"user","content":[{"text":"Where does the ferry leave?"}]}],'
        '"chosen":[{"role":"assistant","content":[{"text":"From pier four."}]}],'
        '"rejected":[{"role":"assistant","content":[{"text":"Where the ferry always does."}]}]}'
    )
    reference = stage(tmp_path, CORPUS / "preferences" / "trl.jsonl")
    assert staged.manifest.files["train"].sha256 == reference.manifest.files["train"].sha256
    assert staged.manifest.sha256 == reference.manifest.sha256


@pytest.mark.parametrize("name", UNMARKED)
def test_pairs_that_do_not_say_which_is_better_stay_refused(name: str, tmp_path: Path) -> None:
    found = errors(tmp_path, CORPUS / "preferences" / f"{name}.jsonl")
    codes = {finding.code for finding in found if finding.line is not None}
    assert codes <= {"PreferencePairs", "UnpairedPreferences"}
    assert all(finding.fix for finding in found if finding.line is not None)


RICH = {
    "prompt": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Oslo?"},
        {"role": "assistant", "content": "Now?"},
        {"role": "user", "content": "Yes."},
    ],
    "chosen": [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
                }
            ],
        }
    ],
    "rejected": [{"role": "assistant", "content": "I do not know."}],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "Now.",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
    ],
}
PLAIN = {"prompt": "Where?", "chosen": "Here.", "rejected": "Somewhere else."}


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_written_in_a_shape_is_read_as_the_same_pair(target: str) -> None:
    # Nova's candidates take texts alone.
    for value in [PLAIN] if target == "nova-preference" else [PLAIN, RICH]:
        first = parse_record(value, {}, "preference")
        assert isinstance(first, PreferencePair)
        again = parse_record(json.loads(encode_record(first, target)[0]), {}, "preference")
        assert encode_record(again, "preference") == encode_record(first, "preference")


def test_equal_beginnings_of_two_answers_are_part_of_the_prompt() -> None:
    def said(last: str) -> list[dict[str, str]]:
        texts = ["Hello.", "Ask.", "Where?", last]
        return [
            {"role": role, "content": text}
            for role, text in zip(["user", "assistant"] * 2, texts, strict=True)
        ]

    pair = parse_record({"chosen": said("Here."), "rejected": said("Gone.")}, {}, "preference")
    assert isinstance(pair, PreferencePair)
    assert pair.prompt_length == 3
    assert pair.answers() == ("Here.", "Gone.")
    shorter = {"chosen": said("Here.")[:2], "rejected": said("Gone.")}
    pair = parse_record(shorter, {}, "preference")
    assert isinstance(pair, PreferencePair)
    assert pair.answers() == ("Ask.", "Ask.\nWhere?\nGone.")


def ask(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]


def nova(*candidates: object, **further: object) -> dict[str, object]:
    user = {"role": "user", "content": [{"text": "Where?"}]}
    last = {"role": "assistant", "candidates": list(candidates), **further}
    return {"messages": [user, last]}


def candidate(text: str, label: str | None) -> dict[str, object]:
    return {"content": [{"text": text}] if text else [], "preferenceLabel": label}


def openai(**changes: object) -> dict[str, object]:
    value = {
        "input": {"messages": ask("Where?")},
        "preferred_output": [{"role": "assistant", "content": "Here."}],
        "non_preferred_output": [{"role": "assistant", "content": "Gone."}],
    }
    return {key: item for key, item in {**value, **changes}.items() if item is not None}


GOOD_CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BROKEN: dict[str, tuple[Mapping[str, object], str, str | None]] = {
    "answers equal": ({**PLAIN, "rejected": "Here."}, "EqualAnswers", "/rejected"),
    "rejected empty": ({**PLAIN, "rejected": ""}, "EmptyField", "/rejected"),
    "rejected blank": ({**PLAIN, "rejected": " \n"}, "EmptyField", "/rejected"),
    "rejected null": ({**PLAIN, "rejected": None}, "EmptyField", "/rejected"),
    "chosen empty": ({**PLAIN, "chosen": ""}, "EmptyField", "/chosen"),
    "chosen an empty list": ({**PLAIN, "chosen": []}, "EmptyField", "/chosen"),
    "rejected missing": ({"prompt": "Where?", "chosen": "Here."}, "WrongKeys", "/chosen"),
    "chosen missing": ({"prompt": "Where?", "rejected": "Gone."}, "WrongKeys", "/rejected"),
    "chosen a number": ({**PLAIN, "chosen": 4}, "WrongType", "/chosen"),
    "texts without a prompt": ({"chosen": "Here.", "rejected": "Gone."}, "NoPrompt", "/chosen"),
    "prompt blank": ({**PLAIN, "prompt": " "}, "EmptyField", "/prompt"),
    "prompt ends with an answer": (
        {**PLAIN, "prompt": ask("Where?", "There.")},
        "BadTurns",
        "/prompt/1",
    ),
    "two prompts": ({**PLAIN, "question": "Where then?"}, "TwoPrompts", "/question"),
    "a key that may carry meaning": (
        {**PLAIN, "guidelines": "Never name a place that is closed."},
        "UnusedKeys",
        "/guidelines",
    ),
    "no common prompt": (
        {"chosen": ask("Where?", "Here."), "rejected": ask("When?", "Gone.")},
        "NoPrompt",
        "/rejected",
    ),
    "other system prompts": (
        {
            "chosen": [{"role": "system", "content": "A"}, *ask("Where?", "Here.")],
            "rejected": [{"role": "system", "content": "B"}, *ask("Where?", "Gone.")],
        },
        "NoPrompt",
        "/rejected",
    ),
    "conversations equal": (
        {"chosen": ask("Where?", "Here."), "rejected": ask("Where?", "Here.")},
        "EqualAnswers",
        "/rejected",
    ),
    "chosen ends with the user": (
        {"chosen": ask("Where?", "Here.", "Thanks."), "rejected": ask("Where?", "Gone.")},
        "BadTurns",
        "/chosen",
    ),
    "rejected answers as the user": (
        {"prompt": ask("Where?"), "chosen": "Here.", "rejected": ask("Gone.")},
        "BadTurns",
        "/rejected",
    ),
    "rejected has an unknown role": (
        {**PLAIN, "rejected": [{"role": "judge", "content": "Gone."}]},
        "BadTurns",
        "/rejected/0",
    ),
    "rejected has no content": (
        {**PLAIN, "rejected": [{"role": "assistant"}]},
        "WrongKeys",
        "/rejected/0",
    ),
    "prompt has no content": (
        {**PLAIN, "prompt": [{"role": "user"}]},
        "WrongKeys",
        "/prompt/0",
    ),
    "tool call without a name": (
        {
            **PLAIN,
            "chosen": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}],
        },
        "WrongToolCall",
        "/chosen/0/tool_calls/0",
    ),
    "tool result without its call": (
        {
            **PLAIN,
            "chosen": [
                {"role": "tool", "tool_call_id": "z", "content": "4"},
                {"role": "assistant", "content": "Here."},
            ],
        },
        "BadTurns",
        None,
    ),
    "weight 0 in an answer": (
        {
            "chosen": ask("Where?", "Here."),
            "rejected": [*ask("Where?"), {**ask("", "Gone.")[1], "weight": 0}],
        },
        "WrongWeight",
        "/rejected",
    ),
    "OpenAI without input's messages": (openai(input={"tools": []}), "WrongKeys", "/input"),
    "OpenAI with an empty output": (
        openai(non_preferred_output=[]),
        "EmptyField",
        "/non_preferred_output",
    ),
    "OpenAI without the other output": (
        openai(non_preferred_output=None),
        "WrongKeys",
        "/preferred_output",
    ),
    "OpenAI with a bad message": (
        openai(input={"messages": [{"role": "user", "content": ""}]}),
        "EmptyField",
        "/input/messages/0/content",
    ),
    "Nova with one candidate": (
        nova(candidate("Here.", "preferred")),
        "WrongKeys",
        "/messages/1/candidates",
    ),
    "Nova with equal labels": (
        nova(candidate("Here.", "preferred"), candidate("Gone.", "preferred")),
        "WrongLabel",
        "/messages/1/candidates",
    ),
    "Nova with an empty candidate": (
        nova(candidate("Here.", "preferred"), candidate("", "non-preferred")),
        "EmptyField",
        "/messages/1/candidates/1/content",
    ),
    "Nova with equal candidates": (
        nova(candidate("Here.", "preferred"), candidate("Here.", "non-preferred")),
        "EqualAnswers",
        "/messages/1/candidates/1",
    ),
    "Nova with candidates of the user": (
        nova(candidate("A", "preferred"), candidate("B", "non-preferred"), role="user"),
        "BadTurns",
        "/messages/1/role",
    ),
    "one answer alone": ({"prompt": "Where?", "completion": "Here."}, "WrongTask", None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found_with_line_and_field(name: str, tmp_path: Path) -> None:
    value, code, field = BROKEN[name]
    path = tiny.write_jsonl(tmp_path / "pairs.jsonl", [PLAIN, value, {**PLAIN, "prompt": "Why?"}])
    [found] = errors(tmp_path, path)
    assert (found.code, found.line, found.field) == (code, 2, field), found
    assert found.fix


def test_thirty_broken_files_are_enough() -> None:
    assert len(BROKEN) >= 30


def run(*words: str) -> Any:
    done = CliRunner().invoke(cloudft, words)
    assert done.exit_code == 0, done.output
    return done


def write_pairs(path: Path, values: Iterable[Mapping[str, object]]) -> str:
    return str(tiny.write_jsonl(path, values))


def test_pairs_are_split_deduplicated_and_converted(tmp_path: Path) -> None:
    pairs = [{**PLAIN, "prompt": f"Where is {n}?"} for n in range(10)]
    turned = {**pairs[0], "chosen": PLAIN["rejected"], "rejected": PLAIN["chosen"]}
    train = write_pairs(tmp_path / "pairs.jsonl", [*pairs, pairs[3]])
    staged = stage(tmp_path, Path(train), validation=0.2)
    assert {role: file.records for role, file in staged.manifest.files.items()} == {
        "train": 9,
        "validation": 2,
    }
    assert "DuplicateRecords" in {finding.code for finding in staged.findings}
    conflicting = write_pairs(tmp_path / "conflicting.jsonl", [*pairs, turned])
    assert "DifferentAnswers" in {f.code for f in stage(tmp_path, Path(conflicting)).findings}
    out = tmp_path / "openai.jsonl"
    run("data", "convert", train, "--to", "openai-preference", "--out", str(out))
    again = stage(tmp_path, out)
    assert (
        again.manifest.files["train"].sha256
        == stage(tmp_path, Path(train)).manifest.files["train"].sha256
    )

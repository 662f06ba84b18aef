"""The base models' rules: what passes at once has nothing to be said about singly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudft import catalogue
from cloudft.catalogue.model import Limits
from cloudft.catalogue.source import Source
from cloudft.data.checks.check import check_data
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.formats.fast_path import RecordBatch
from cloudft.data.formats.recognizer import parse_record
from cloudft.spec.model import DataSpec
from cloudft.types import DataVolume, StagedFile

NOVA = DatasetLimits.for_model(catalogue.find_model("nova-lite"), "FINE_TUNING", 1)
TITAN = DatasetLimits.for_model(catalogue.find_model("titan-text-lite"), "FINE_TUNING", 4)
HAIKU = DatasetLimits.for_model(catalogue.find_model("claude-3-haiku"), "FINE_TUNING", 1)
COMMAND = DatasetLimits.for_model(catalogue.find_model("command"), "FINE_TUNING", 1)
WORD = st.sampled_from(
    ["user: ", "USER:", "bot", ":", "[eos]", "[", "EOS]", "<image", ">", "\nHuman:", "x"]
)
TEXT = st.lists(WORD, min_size=1, max_size=6).map("".join) | st.integers(1, 30_000).map(
    lambda n: "w" * n
)
LIMITS = Limits(Source("test", "https://example.org", "2026"))


@pytest.mark.parametrize("rules", [NOVA, TITAN, HAIKU, COMMAND, DatasetLimits()])
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
def test_a_block_that_fits_has_no_record_that_does_not(
    rules: DatasetLimits, pairs: list[tuple[str, str]]
) -> None:
    prompts, completions = [a for a, _ in pairs], [b for _, b in pairs]
    longest = max(map(len, prompts)) + max(map(len, completions))
    fits = rules.within_limits(
        RecordBatch(prompts, completions, sum(map(len, prompts + completions)), longest)
    )
    problems = [
        problem
        for a, b in pairs
        for problem in rules.check_record(parse_record({"prompt": a, "completion": b}, {}))
    ]
    assert not fits or problems == []


def test_titans_limit_depends_on_the_batch() -> None:
    record = parse_record({"prompt": "w" * 15_000, "completion": "x"}, {})
    model = catalogue.find_model("titan-text-lite")
    found = {
        batch: [
            p.severity
            for p in DatasetLimits.for_model(model, "FINE_TUNING", batch).check_record(record)
        ]
        for batch in (1, 2, 3, 6, 7)
    }
    assert found == {1: ["warning"], 2: ["warning"], 3: ["error"], 6: ["error"], 7: []}


def test_numbers_and_sizes_are_held_to_their_limits() -> None:
    limits = replace(LIMITS, records_min=8, records_max=20, validation_records_max=5)
    limits = replace(limits, train_bytes_max=100, unsure=("records_min",))

    def codes(train: int, validation: int, size: int = 1) -> list[tuple[str, str, str | None]]:
        file = StagedFile(train, 1, 1, "train.jsonl", "", size)
        volumes = {
            "train": file,
            "validation": DataVolume(validation, 1, 1),
            "test": DataVolume(99, 1, 1),
        }
        return [(p.severity, p.code, p.field) for p in DatasetLimits(limits).check_dataset(volumes)]

    many = "TooMuchDataForModel"
    assert codes(10, 5) == []
    assert codes(3, 2) == [("warning", "TooFewRecordsForModel", "data.train")]
    assert codes(10, 6) == [("error", many, "data.validation")]
    assert codes(16, 5) == [("error", many, "data.train")]
    assert codes(10, 5, size=101) == [("error", many, "data.train")]
    assert list(DatasetLimits().check_dataset({"train": DataVolume(0, 0, 0)})) == []


def found(value: dict[str, Any], model: str, kind: str = "FINE_TUNING") -> list[tuple[str, str]]:
    limits = DatasetLimits.for_model(catalogue.find_model(model), kind, 1)
    record = parse_record(value, {}, catalogue.find_model(model).formats[kind])
    return [(v.severity, v.code) for v in limits.check_record(record)]


def chat(*user: dict[str, Any], answer: dict[str, Any] | None = None) -> dict[str, Any]:
    answers = [answer or {"text": "a"}]
    return {
        "messages": [
            {"role": "user", "content": list(user) or [{"text": "q"}]},
            {"role": "assistant", "content": answers},
        ]
    }


IMAGE = {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/a.png"}}}}


def test_reserved_words_are_found_in_every_text():
    reasoning = {"reasoningContent": {"reasoningText": {"text": "the user: asks"}}}
    assert found({"prompt": "q", "completion": "USER: b"}, "nova-lite") == [
        ("error", "ReservedWord")
    ]
    value = chat(answer=reasoning)
    value["messages"][1]["content"].append({"text": "a"})
    assert found(value, "nova-2-lite") == [("error", "ReservedWord")]
    assert found({"prompt": "q", "completion": "Thought: b"}, "nova-lite") == [
        ("warning", "ReservedWord")
    ]
    assert found({"prompt": "q", "completion": "b\nHuman: c"}, "claude-3-haiku") == [
        ("error", "ReservedWord")
    ]


@pytest.mark.parametrize(
    ("value", "model", "codes"),
    [
        (chat(IMAGE), "nova-lite", []),
        (chat(IMAGE), "llama-3.2-11b-vision", []),
        (chat(IMAGE), "nova-micro", ["MediaData"]),
        (chat(IMAGE), "smollm2-135m", ["MediaData"]),
        (chat({"text": "q"}, *[IMAGE] * 11), "nova-lite", ["TooManyMedia"]),
        (chat({"image": {**IMAGE["image"], "format": "webp"}}), "nova-2-lite", ["WrongMedia"]),
        (
            chat({"image": {"format": "png", "source": {"bytes": "aGk="}}}),
            "nova-lite",
            ["WrongMedia"],
        ),
        (
            chat({"type": "image_url", "image_url": {"url": "https://x/a.png"}}),
            "nova-lite",
            ["WrongMedia"],
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "a", "weight": 0},
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "a"},
                ]
            },
            "nova-lite",
            ["UnsupportedContent"],
        ),
    ],
)
def test_what_is_no_text_is_taken_or_refused_by_name(
    value: dict[str, Any], model: str, codes: list[str]
):
    assert [code for _, code in found(value, model)] == codes


def test_tools_of_nova_2_lite_warn_and_those_of_nova_1_are_refused():
    value = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "find"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "r"},
            {"role": "assistant", "content": "a"},
        ],
        "tools": [{"type": "function", "function": {"name": "find", "description": "finds"}}],
    }
    assert found(value, "nova-2-lite") == [("warning", "UnsureContent")]
    assert found(value, "nova-pro") == [("error", "UnsupportedContent")]
    assert found(value, "smollm2-135m") == []


def test_distillation_has_limits_of_its_own():
    value = chat()
    value["messages"] = [*value["messages"], *value["messages"]]
    assert found(value, "llama-3.1-8b", "DISTILLATION") == [("error", "TooManyTexts")]
    assert found(value, "nova-micro", "DISTILLATION") == []
    long = {"prompt": "\u00e9" * 8_200}
    assert found(long, "nova-micro", "DISTILLATION") == [("error", "LineTooLong")]


def test_two_kinds_of_media_are_no_dataset():
    limits = DatasetLimits.for_model(catalogue.find_model("nova-lite"), "FINE_TUNING", 1)
    video = {"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://bucket/a.mp4"}}}}
    for block in (IMAGE, video):
        assert list(limits.check_record(parse_record(chat(block), {}))) == []
    codes = [v.code for v in limits.check_dataset({"train": DataVolume(9, 1, 1)})]
    assert codes == ["MixedMedia"]


def test_the_whole_file_of_pictures_is_one_finding(tmp_path: Path):
    path = tmp_path / "train.jsonl"
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a"}]
    lines = [{"id": i, "image": f"{i}.jpg", "conversations": turns} for i in range(50)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = check_data(DataSpec(train=(str(path),)), format="converse", base_dir=tmp_path)
    assert [(f.code, f.field) for f in report.findings] == [("MediaData", "/image")]

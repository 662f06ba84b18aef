"""Invocation logs: which records a job uses, and that no damage goes unnoticed."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudft.data.formats import invocation_log
from cloudft.data.formats.record import OmittedRecord
from cloudft.data.invocation_logs import (
    DAMAGED,
    LOG_KEY,
    NO_LOG,
    NOT_JSON,
    OTHER_METADATA,
    OTHER_MODEL,
    UNUSABLE,
    LogCounts,
    Selection,
    matches,
    model_key,
    select_records,
)

PRO = "amazon.nova-pro-v1:0"


def log(model: str = PRO, metadata: Any = None, text: str = "Where?", **more: Any) -> Any:
    content = {"messages": [{"role": "user", "content": [{"text": text}]}]}
    answer = {"output": {"message": {"role": "assistant", "content": [{"text": "There."}]}}}
    record = {
        "schemaType": "ModelInvocationLog",
        "operation": "Converse",
        "modelId": model,
        "input": {"inputBodyJson": content},
        "output": {"outputBodyJson": {**answer, "stopReason": "end_turn"}},
    }
    return record | ({} if metadata is None else {"requestMetadata": metadata}) | more


def packed(*lines: Any) -> bytes:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    return gzip.compress("".join(f"{text}\n" for text in texts).encode())


def select(content: bytes, selection: Selection) -> tuple[list[str], LogCounts]:
    counts = LogCounts()
    records = select_records(io.BytesIO(content), "a.json.gz", selection, counts)
    return [record.turns[-1].text for record in records], counts


@pytest.mark.parametrize(
    ("filters", "metadata", "passes"),
    [
        (None, None, True),
        ({"equals": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"equals": {"a": "1"}}, {"a": "2"}, False),
        ({"equals": {"a": "1"}}, None, False),
        ({"notEquals": {"a": "1"}}, {"a": "2"}, True),
        ({"notEquals": {"a": "1"}}, {"a": "1"}, False),
        ({"notEquals": {"a": "1"}}, None, True),
        ({"andAll": [{"equals": {"a": "1"}}, {"notEquals": {"b": "2"}}]}, {"a": "1"}, True),
        ({"andAll": [{"equals": {"a": "1"}}, {"equals": {"b": "2"}}]}, {"a": "1"}, False),
        ({"orAll": [{"equals": {"a": "1"}}, {"equals": {"b": "2"}}]}, {"b": "2"}, True),
        ({"orAll": [{"equals": {"a": "1"}}, {"equals": {"b": "2"}}]}, {"b": "1"}, False),
    ],
)
def test_a_filter_selects_by_metadata(filters: Any, metadata: Any, passes: bool) -> None:
    assert matches(metadata, filters) is passes


def test_answers_are_those_of_the_teacher_and_prompts_of_any_model() -> None:
    content = packed(log(), log("meta.llama3-1-70b-instruct-v1:0"), log(f"us.{PRO}"))
    texts, counts = select(content, Selection(use_answers=True, teacher=PRO))
    assert texts == ["There."] * 2
    assert (counts.used, counts.ignored[OTHER_MODEL], counts.by_profile) == (2, 1, 1)
    assert counts.examples[OTHER_MODEL] == ("a.json.gz", 2, "meta.llama3-1-70b-instruct-v1:0")
    texts, counts = select(content, Selection(use_answers=False, teacher=PRO))
    assert (texts, counts.used) == (["Where?"] * 3, 3)


def test_every_record_that_is_not_used_has_its_reason_and_place() -> None:
    large = log()
    large["input"] = {"inputBodyS3Path": "s3://b/data/1_input.json.gz"}
    failed = log(errorCode="ThrottlingException", output=None)
    content = packed(
        log(metadata={"a": "1"}),
        log(metadata={"a": "2"}),
        log(metadata={"a": "1"}, **{k: v for k, v in failed.items() if k == "errorCode"}),
        large | {"requestMetadata": {"a": "1"}},
        "{",
        "[1]",
        {"other": 1},
    )
    texts, counts = select(content, Selection({"equals": {"a": "1"}}, use_answers=True))
    assert texts == ["There."]
    assert counts.read == 7 == counts.used + counts.ignored.total()
    assert counts.ignored == {OTHER_METADATA: 1, UNUSABLE: 2, NOT_JSON: 1, NO_LOG: 2}
    lines = {reason: counts.examples[reason][1] for reason in counts.examples}
    assert lines == {OTHER_METADATA: 2, UNUSABLE: 3, NOT_JSON: 5, NO_LOG: 6}
    assert "2 can't be used (the first: a.json.gz:3, the call failed (ThrottlingException))" in (
        list(counts.describe_ignored())
    )


def test_a_file_that_is_cut_is_read_as_far_as_it_goes() -> None:
    whole = packed(*(log(text=f"Where is {n * 7919}?") for n in range(500)))
    texts, counts = select(whole[: len(whole) // 2], Selection())
    assert 0 < len(texts) < 500
    assert counts.ignored[DAMAGED] == 1
    texts, counts = select(b"no gzip at all", Selection())
    assert (texts, counts.ignored[DAMAGED]) == ([], 1)


@given(st.binary(max_size=300), st.booleans())
def test_no_content_of_a_file_breaks_the_reader(content: bytes, is_packed: bool) -> None:
    _, counts = select(gzip.compress(content) if is_packed else content, Selection())
    assert counts.used + counts.ignored.total() - counts.ignored[DAMAGED] == counts.read


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NAMES = ("schemaType", "modelId", "input", "output", "errorCode", "requestMetadata")
BODIES = st.fixed_dictionaries(
    {},
    optional={
        **{f"{side}BodyJson": JSON for side in ("input", "output")},
        "inputBodyS3Path": st.text(max_size=3),
    },
)
MESSAGES = st.fixed_dictionaries({"inputBodyJson": st.fixed_dictionaries({"messages": JSON})})


@given(
    st.fixed_dictionaries(
        {"schemaType": st.just("ModelInvocationLog")},
        optional=dict.fromkeys(NAMES[1:], JSON | BODIES | MESSAGES),
    ),
    st.booleans(),
)
def test_no_record_breaks_the_parser(record: Any, use_answers: bool) -> None:
    _, counts = select(packed(record), Selection(use_answers=use_answers, teacher=PRO))
    assert counts.used + counts.ignored.total() == counts.read == 1


def test_an_answer_that_was_cut_is_counted() -> None:
    cut = log()
    cut["output"]["outputBodyJson"]["stopReason"] = "max_tokens"
    _, counts = select(packed(log(), cut), Selection(use_answers=True, teacher=PRO))
    assert (counts.used, counts.cut) == (2, 1)


@pytest.mark.parametrize(
    ("identifier", "key"),
    [
        (PRO, PRO),
        (f"us.{PRO}", PRO),
        (f"arn:aws:bedrock:us-east-1::foundation-model/{PRO}", PRO),
        (f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.{PRO}", PRO),
        ("amazon.nova-micro-v1:0:128k", "amazon.nova-micro-v1:0"),
    ],
)
def test_a_model_is_the_same_by_each_of_its_ids(identifier: str, key: str) -> None:
    assert model_key(identifier) == key


@pytest.mark.parametrize(
    ("key", "is_log"),
    [
        ("p/AWSLogs/1/BedrockModelInvocationLogs/r/2026/03/11/00/20260311T0038Z_9f.json.gz", True),
        ("p/AWSLogs/1/BedrockModelInvocationLogs/r/2026/03/11/00/data/u_input.json.gz", False),
        ("p/AWSLogs/1/BedrockModelInvocationLogs/r/amazon-bedrock-logs-permission-check", False),
        ("data/20260311T0038Z_9f.json", True),
        ("my/data/2026/20260311T0038Z_9f.json", True),
    ],
)
def test_bodies_and_the_permission_check_are_no_log_files(key: str, is_log: bool) -> None:
    assert bool(LOG_KEY.fullmatch(key)) is is_log


def test_a_body_in_an_object_of_its_own_is_named() -> None:
    record = log()
    record["output"] = {"outputBodyS3Path": "s3://b/data/1_output.json.gz"}
    with pytest.raises(OmittedRecord, match=r"s3://b/data/1_output\.json\.gz"):
        invocation_log.parse(record)


def test_the_selected_records_are_the_file_that_is_trained_on(tmp_path: Path) -> None:
    from cloudft.endpoint.training.logged_data import write_selected_logs

    class Bucket:
        """One object of S3, and the folder of large bodies beside it."""

        content = packed(*(log(text=f"Where is {n}?") for n in range(5)), log("other.model"), "{")

        def get_paginator(self, _: str) -> Bucket:
            return self

        def paginate(self, **_: str) -> Any:
            return [{"Contents": [{"Key": "p/1.json.gz"}, {"Key": "p/data/1_input.json.gz"}]}]

        def get_object(self, **_: str) -> Any:
            return {"Body": io.BytesIO(self.content)}

    config = {"usePromptResponse": True, "invocationLogSource": {"s3Uri": "s3://b/p/"}}
    teacher = {"teacherModelConfig": {"teacherModelIdentifier": PRO}}
    request: Any = {
        "customizationType": "DISTILLATION",
        "trainingDataConfig": {"invocationLogsConfig": config},
        "customizationConfig": {"distillationConfig": teacher},
    }
    path = write_selected_logs(Bucket(), request, tmp_path / "train.jsonl")  # type: ignore[arg-type]
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(written) == 5
    assert written[0]["messages"][-1] == {"role": "assistant", "content": [{"text": "There."}]}
    del config["usePromptResponse"]
    path = write_selected_logs(Bucket(), request, tmp_path / "train.jsonl")  # type: ignore[arg-type]
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["messages"][-1]["role"] for record in written] == ["user"] * 6
    request["customizationType"] = "REINFORCEMENT_FINE_TUNING"
    path = write_selected_logs(Bucket(), request, tmp_path / "train.jsonl")  # type: ignore[arg-type]
    assert json.loads(path.read_text().splitlines()[0])["reference_answer"] == "There."

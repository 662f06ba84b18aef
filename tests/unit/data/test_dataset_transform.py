"""Files to files: convert, split, mix, dedupe, leakage, as a user calls them."""

from __future__ import annotations

import csv
import json
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudft.cli.main import cloudft
from cloudft.data.analysis.near_duplicates import NearDuplicateIndex, make_shingles
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.registry import encode_record
from cloudft.errors import CheckFailed, UsageError

# Python 3.10's csv module neither writes nor reads a NUL character.
WITHOUT = "" if sys.version_info >= (3, 11) else "\0"
TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters=WITHOUT), min_size=1, max_size=8
).filter(str.strip)
CHAT_FORMATS = ["converse", "messages", "claude-messages"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(name: str, records: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in records))


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_bytes().split(b"\n") if line]


def data(*args: str) -> Any:
    """Return the JSON of `cloudft data ...`; raise its error."""
    done: Result = CliRunner().invoke(cloudft, ["data", *args, "--output", "json"])
    if isinstance(done.exception, Exception):
        raise done.exception
    return json.loads(done.stdout)


def pair(prompt: str, completion: str = "x") -> dict[str, str]:
    return {"prompt": prompt, "completion": completion}


@given(
    st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3),
    st.none() | TEXT,
    st.sampled_from(CHAT_FORMATS),
    st.sampled_from(CHAT_FORMATS),
)
def test_a_chat_comes_back_from_every_other_shape(
    turns: list[tuple[str, str]], system: str | None, one: str, other: str
) -> None:
    messages = [{"role": "system", "content": system}] if system else []
    for question, answer in turns:
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    start, _ = encode_record(parse_record({"messages": messages}, {}), one)
    between, _ = encode_record(parse_record(json.loads(start), {}), other)
    back, _ = encode_record(parse_record(json.loads(between), {}), one)
    assert back == start


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_pairs_come_back_from_csv_and_from_every_shape(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("convert")
    start = str(folder / "start.jsonl")
    put(start, [pair(*record) for record in records])
    before = start
    for name in ("csv", "converse", "input-output", "messages", "prompt-completion"):
        suffix = "csv" if name == "csv" else "jsonl"
        out = str(folder / f"{name}.{suffix}")
        data("convert", before, "--to", name, "--out", out)
        before = out
    assert lines(before) == [pair(*record) for record in records]


def test_convert_takes_the_users_columns_and_writes_a_table() -> None:
    Path("faq.csv").write_text('id,question,answer\n1,"Where, please?",here\n')
    result = data(
        *("convert", "faq.csv", "--column", "prompt=question", "--column", "completion=answer"),
        *("--to", "messages", "--out", "faq.jsonl"),
    )
    assert result["files"]["out"]["records"] == 1
    assert lines("faq.jsonl")[0]["messages"][1] == {"role": "assistant", "content": "here"}
    data("convert", "faq.jsonl", "--to", "csv", "--out", "again.csv")
    with Path("again.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["prompt", "completion"], ["Where, please?", "here"]]


def test_a_bad_record_means_no_output_and_an_existing_output_stays() -> None:
    put("a.jsonl", [pair("a"), {"prompt": "a"}])
    with pytest.raises(CheckFailed) as caught:
        data("convert", "a.jsonl", "--to", "messages", "--out", "b.jsonl")
    assert caught.value.line == 2
    put("a.jsonl", [pair("a")])
    put("b.jsonl", [pair("mine")])
    for command in (
        ("convert", "a.jsonl", "--to", "messages", "--out", "b.jsonl"),
        ("dedupe", "a.jsonl", "--out", "b.jsonl"),
    ):
        with pytest.raises(UsageError, match="exists already"):
            data(*command)
    assert lines("b.jsonl") == [pair("mine")]
    assert {path.name for path in Path().iterdir()} == {"a.jsonl", "b.jsonl"}


def test_split_holds_out_shares_and_loses_nothing() -> None:
    records = [pair(f"p{i}", f"c{i % 3}") for i in range(90)]
    put("a.jsonl", records)
    result = data("split", "a.jsonl", "--validation", "0.2", "--test", "0.1", "--out", "parts")
    assert {s: f["records"] for s, f in result["files"].items()} == {
        "train": 63,
        "test": 9,
        "validation": 18,
    }
    parts = {side: lines(f"parts/{side}.jsonl") for side in result["files"]}
    assert sorted(map(str, chain(*parts.values()))) == sorted(map(str, records))
    assert {r["completion"] for r in parts["test"]} == {"c0", "c1", "c2"}
    put("b.jsonl", records[::-1])
    data("split", "b.jsonl", "--validation", "0.2", "--test", "0.1", "--out", "turned")
    assert lines("turned/test.jsonl") == parts["test"][::-1]


def test_mix_spreads_its_share() -> None:
    put("own.jsonl", [pair(f"own {i}") for i in range(80)])
    put("general.jsonl", [pair(f"general {i}") for i in range(50)])
    data("mix", "own.jsonl", "--with", "general.jsonl", "--share", "0.2", "--out", "mixed.jsonl")
    kinds = [r["prompt"].split()[0] for r in lines("mixed.jsonl")]
    assert kinds.count("general") == 20 and len(kinds) == 100
    assert "general" in kinds[:5] and "general" in kinds[-5:]


SENTENCE = "Please send the parcel with the number 1234 to my new address in the old town of Lyon"


def test_dedupe_keeps_the_first_and_names_the_others() -> None:
    pytest.importorskip("rensa", reason="the extra `data` is not installed")
    near = SENTENCE.replace("1234", "99").replace("Please", "please")
    put("a.jsonl", [pair(SENTENCE), pair("b"), pair(SENTENCE), pair(near), pair("b", "y")])
    result = data("dedupe", "a.jsonl", "--out", "exact.jsonl")
    assert [(t["line"], t["ofLine"]) for t in result["leftOut"]] == [(3, 1)]
    result = data("dedupe", "a.jsonl", "--near", "0.8", "--out", "near.jsonl")
    assert [(t["line"], t["ofLine"]) for t in result["leftOut"]] == [(3, 1), (4, 1)]
    assert lines("near.jsonl") == [pair(SENTENCE), pair("b"), pair("b", "y")]


def test_near_is_near_and_far_is_far() -> None:
    pytest.importorskip("rensa", reason="the extra `data` is not installed")
    like = NearDuplicateIndex(0.8)
    assert like.query_or_insert(SENTENCE) is None
    assert like.query_or_insert("The screen stays black after the update of last night") is None
    assert like.query(SENTENCE + " please") is not None
    assert like.query("Where can I see the invoices of the last year?") is None
    assert make_shingles("") == [""]


def test_leakage_is_found_with_its_lines_and_its_exit_code() -> None:
    pytest.importorskip("rensa", reason="the extra `data` is not installed")
    put("train.jsonl", [pair("one"), pair("two"), pair(SENTENCE)])
    put("test.jsonl", [pair("new"), pair("two"), pair("one", "other"), pair(SENTENCE + "!")])
    done = CliRunner().invoke(
        cloudft,
        ["data", "leakage", "--train", "train.jsonl", "--test", "test.jsonl", "--output", "json"],
        standalone_mode=False,
    )
    assert done.return_value == 3
    leaks = json.loads(done.stdout)["leaks"]
    assert [(k["kind"], k["line"], k["trainLine"]) for k in leaks] == [
        ("same record", 2, 2),
        ("same input", 3, 1),
    ]
    result = data("leakage", "--train", "train.jsonl", "--test", "test.jsonl", "--near", "0.8")
    assert result["leaks"][-1]["kind"] == "near input" and result["count"] == 3
    put("clean.jsonl", [pair("quite another one")])
    assert data("leakage", "--train", "train.jsonl", "--test", "clean.jsonl")["count"] == 0


def test_every_training_record_is_remembered_whatever_it_is_like() -> None:
    pytest.importorskip("rensa", reason="the extra `data` is not installed")
    # `near` is like `first` and like `held_out`, which is not like `first`.
    first = SENTENCE
    near = SENTENCE.replace("in the old town of Lyon", "on Monday")
    held_out = near.replace("Please send the parcel", "Kindly bring a letter")
    put("test.jsonl", [pair(held_out)])
    search = ("--train", "train.jsonl", "--test", "test.jsonl", "--near", "0.5")
    put("train.jsonl", [pair(first)])
    assert data("leakage", *search)["count"] == 0
    for order in ([first, near], [near, first]):
        put("train.jsonl", [pair(text) for text in order])
        [leak] = data("leakage", *search)["leaks"]
        assert (leak["kind"], leak["trainLine"]) == ("near input", order.index(near) + 1)


def test_leaks_do_not_hide_behind_case_white_space_or_unicode_forms() -> None:
    put("train.jsonl", [pair("Wo liegt das Caf\u00e9?", "Am Hafen"), pair("Reset  the\nPIN")])
    put("test.jsonl", [pair("wo liegt das Cafe\u0301? ", "am  Hafen"), pair("reset the pin", "y")])
    leaks = data("leakage", "--train", "train.jsonl", "--test", "test.jsonl")["leaks"]
    assert [(leak["kind"], leak["trainLine"]) for leak in leaks] == [
        ("same record", 1),
        ("same input", 2),
    ]

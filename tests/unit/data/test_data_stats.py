"""data stats, preview and report: what they say is true, and safe to open."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import JobFile

from cloudft.cli.commands.data_preview import preview_note
from cloudft.cli.main import cloudft
from cloudft.data.analysis.stats import MAX_LISTED, DatasetStats, summarize_lengths
from cloudft.data.formats.record import Conversation, Turn
from cloudft.data.records import LocatedRecord
from cloudft.errors import CheckFailed, UsageError
from cloudft.evaluate.report.data_page import render_data_page

RECORDS = [
    {"prompt": "Where is it?", "completion": "shipping"},
    {"prompt": "Where is it?", "completion": "billing"},
    {"prompt": "Where is it?", "completion": "shipping"},
    {"prompt": "I was charged twice.", "completion": "billing"},
    {"prompt": "word " * 400, "completion": "billing"},
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data(*args: str | Path, output: str = "json") -> Any:
    words = ["data", *map(str, args), "--output", output]
    done = CliRunner(env=dict(os.environ)).invoke(cloudft, words)
    if isinstance(done.exception, Exception):
        raise done.exception
    return json.loads(done.stdout) if output == "json" else done.stdout


def test_stats_count_duplicates_contradictions_and_labels() -> None:
    tiny.write_jsonl(Path("a.jsonl"), RECORDS)
    found = data("stats", "a.jsonl")["data"]
    assert (found["records"], found["duplicates"]) == (5, 1)
    assert found["conflicts"]["count"] == 1
    [conflict] = found["conflicts"]["first"]
    assert (conflict["line"], conflict["ofLine"]) == (2, 1)
    assert found["labels"] == {"billing": 3, "shipping": 2}
    assert found["commonestShare"] == 0.6
    tokens = found["tokens"]
    assert tokens["estimated"] and tokens["longTail"] == 1
    assert sum(tokens["histogram"]["records"]) == 5
    text = data("stats", "a.jsonl", output="text")
    assert "a.jsonl:2 answers the input of a.jsonl:1 differently" in text
    assert re.search(r"^256 +1$", text, re.MULTILINE) and "#" * 40 in text
    assert "characters / 6" in text


FEW = st.sampled_from("abcd")


@settings(deadline=None)
@given(st.lists(st.tuples(FEW, FEW, FEW)))
def test_duplicates_and_contradictions_match_a_simple_count(
    records: list[tuple[str, str, str]],
) -> None:
    stats = DatasetStats()
    places = [f"{file}.jsonl" for file, _, _ in records]
    pairs = [(prompt, completion) for _, prompt, completion in records]
    stats.add_records(
        LocatedRecord(
            file,
            line,
            Conversation("x", (), (Turn("user", (prompt,)), Turn("assistant", (completion,)))),
        )
        for line, (file, (prompt, completion)) in enumerate(zip(places, pairs, strict=True), 1)
    )
    value = stats.to_json()
    assert value["duplicates"] == len(pairs) - len(set(pairs))
    first = {prompt: n for n, (prompt, _) in reversed(list(enumerate(pairs)))}
    wanted = [(n, first[a]) for n, (a, b) in enumerate(pairs) if pairs[first[a]][1] != b]
    assert value["conflicts"]["count"] == len(wanted)
    assert value["conflicts"]["first"] == [
        {"file": places[n], "line": n + 1, "ofFile": places[of], "ofLine": of + 1}
        for n, of in wanted[:MAX_LISTED]
    ]


def test_the_tokens_of_a_job_are_the_trainers_own(job_file: JobFile, preloaded_here: None) -> None:
    path = job_file(records=[RECORDS[0], RECORDS[4]], local={"max_length": 200})
    tokens = data("stats", path)["train"]["tokens"]
    assert not tokens["estimated"]
    short, long = (data("preview", path, "--record", str(n)) for n in (1, 2))
    assert len(short["pieces"]) + len(long["pieces"]) == tokens["sum"]
    assert "Where is it?" in "".join(piece["text"] for piece in short["pieces"])
    learned = "".join(piece["text"] for piece in short["pieces"] if piece["learned"])
    assert learned == f"shipping{tiny.END}"
    assert (short["cutAt"], long["cutAt"]) == (None, 200)
    assert (tokens["limit"], tokens["cut"]["200"]) == (200, 1)
    assert (long["learned"], long["line"]) == (0, 2), "the whole answer is cut"
    text = data("preview", path, output="text")
    assert text.endswith(f"[[shipping{tiny.END}]]\n")
    assert "--- cut here, after 200 tokens" in data("preview", path, "--record", "2", output="text")
    with pytest.raises(UsageError, match="no record 9"):
        data("preview", path, "--record", "9")


def test_a_prompt_that_is_answered_in_training_is_not_said_to_be_left_out(
    job_file: JobFile, preloaded_here: None
) -> None:
    prompt = {"messages": [{"role": "user", "content": "Where is it?"}], "reference_answer": "here"}
    path = job_file(
        records=[prompt],
        hyperparameters={},
        customization_type="REINFORCEMENT_FINE_TUNING",
        reinforcement={"grader": "grader.py"},
    )
    value = data("preview", path)
    assert (value["learned"], value["isPrompt"]) == (0, True)
    note = preview_note(value)
    assert "answered in training" in note and "leaves the record out" not in note


def test_what_the_job_can_not_use_is_no_count_of_zero(
    job_file: JobFile, preloaded_here: None
) -> None:
    path = job_file(records=[{"text": "unlabeled"}])
    with pytest.raises(CheckFailed, match="unlabeled"):
        data("stats", path)
    path = job_file("twice", records=2)
    (path.parent / "train.jsonl").write_text('{"promt": "a", "completion": "b"}\n')
    with pytest.raises(CheckFailed):
        data("stats", path)
    with pytest.raises(CheckFailed):
        data("preview", path)
    with pytest.raises(UsageError, match="is not a job file"):
        data("preview", path.parent / "train.jsonl")


def test_nothing_is_downloaded_for_a_count(job_file: JobFile) -> None:
    path = job_file(records=2, base_model="no-such-people/no-such-model")
    assert data("stats", path)["train"]["tokens"]["estimated"]


@given(st.lists(st.integers(0, 50_000), min_size=1, max_size=200))
def test_lengths_are_those_of_the_records(tokens: list[int]) -> None:
    found = summarize_lengths(tokens, estimated=False)
    assert found["sum"] == sum(tokens)
    assert (found["least"], found["greatest"]) == (min(tokens), max(tokens))
    assert sum(found["histogram"]["records"]) == len(tokens)
    for at, count in found["cut"].items():
        assert count == sum(number > int(at) for number in tokens)
    assert found["p50"] == np.median(tokens)


class Tags(HTMLParser):
    """The elements of a page, and what is in scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        sources = [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        assert all(value in ("data:,", None) for value in sources), "nothing from elsewhere"


EVIL = st.sampled_from(
    ["<script>x</script>", "--><b>", "$\\frac", "&lt;", "]]>", '"onload="', "\0"]
)


@settings(max_examples=15, deadline=None)
@given(st.dictionaries(st.text(max_size=5) | EVIL, st.integers(1, 9), min_size=1, max_size=4))
def test_no_label_breaks_out_of_the_page(labels: dict[str, int]) -> None:
    pytest.importorskip("jinja2", reason="the extra `data` is not installed")
    value = {
        "records": 3,
        "tokens": summarize_lengths([1, 2, 3], estimated=True, limit=2),
        "labels": labels,
        "commonestShare": 0.5,
        "languages": labels,
        "turns": {},
        "duplicates": 0,
        "conflicts": {"count": 0, "first": []},
    }
    page = Tags()
    page.feed(render_data_page("<i>title</i>", {"<u>train</u>": value}, {"<u>train</u>": labels}))
    assert not {"script", "b", "i", "u"} & page.seen
    assert {"svg", "table", "h1"} <= page.seen


def test_the_report_is_one_new_page(here: Path) -> None:
    pytest.importorskip("jinja2", reason="the extra `data` is not installed")
    pytest.importorskip("detect_secrets", reason="the extra `data` is not installed")
    tiny.write_jsonl(Path("a.jsonl"), [*RECORDS, {"prompt": "x@example.org", "completion": "y"}])
    output = data("report", "a.jsonl", "--out", "page.html")
    assert output["private"] == {"data": {"EMAIL": 1}}
    page = Path("page.html").read_text()
    assert "x@example.org" not in page and "charged twice" not in page
    assert "a.jsonl:2" in page
    with pytest.raises(UsageError, match="exists already"):
        data("report", "a.jsonl", "--out", "page.html")

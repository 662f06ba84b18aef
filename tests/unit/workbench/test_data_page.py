"""The Data pages without a browser: what is found, refused, kept and shown as text."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import tiny
from job_records import make_record
from test_workbench_guard import ask

from cloudft.data import record_index
from cloudft.data.formats import preference_pairs
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.record_view import mark_differences, view_record
from cloudft.errors import TrainerError, UsageError
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.storage.store import Store
from cloudft.workbench.app import build_app
from cloudft.workbench.data_pages import record_list, records
from cloudft.workbench.data_pages.choices import data_at, data_here
from cloudft.workbench.data_pages.indexes import IndexKeeper
from cloudft.workbench.data_pages.state import DataState
from cloudft.workbench.data_pages.tokenizers import TokenizerKeeper
from cloudft.workbench.workbench import Workbench

MARKUP = "</td><script>alert(1)</script>"


class Pages:
    """Sends requests to one application, which keeps its state between them."""

    def __init__(self, workbench: Workbench) -> None:
        self.workbench, self.app = workbench, build_app(workbench)

    def get(self, path: str) -> tuple[int, str]:
        status, _, text = ask(self.workbench, self.root + path, app=self.app)
        return status, text

    def post(self, path: str, **fields: str) -> int:
        token = self.workbench.form_token(path.partition("?")[0])
        body = urlencode({**fields, "form": token}).encode()
        return ask(self.workbench, self.root + path, method="POST", body=body, app=self.app)[0]

    @property
    def root(self) -> str:
        return f"/{self.workbench.guard.token}"

    @property
    def state(self) -> DataState | None:
        return getattr(self.app.app.state, "data_pages", None)  # type: ignore[attr-defined]


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    pages = Pages(Workbench(Home(tmp_path / "home")))
    yield pages
    if pages.state is not None:
        pages.state.close()


def write(name: str, rows: list[dict[str, Any]]) -> Path:
    return tiny.write_jsonl(Path(name), rows)


def numbers_in(page: str) -> list[int]:
    found = re.findall(r'n"><a href="[^"]*/data/record\?[^"]*">([\d,]+)</a>', page)
    return [int(text.replace(",", "")) for text in found]


def wait_until(is_true: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_pages_of_a_file(pages: Pages) -> None:
    write("a.jsonl", tiny.pairs(60))
    status, first = pages.get("/data/records?path=a.jsonl")
    assert status == 200 and numbers_in(first) == list(range(1, 26))
    assert "Lines 1 to 25 of 60" in first
    assert numbers_in(pages.get("/data/records?path=a.jsonl&from=51")[1]) == list(range(51, 61))
    assert pages.get("/data/records?path=a.jsonl&from=61")[0] == 400
    status, page = pages.get("/data/records?path=a.jsonl&q=PARCEL+7%3F")
    assert numbers_in(page) == [] and "nothing found" in page
    status, page = pages.get("/data/records?path=a.jsonl&q=parcel+8+FOR")
    assert numbers_in(page) == [9]


def test_a_record_in_three_views_and_what_is_wrong_with_one(pages: Pages) -> None:
    Path("a.jsonl").write_bytes(
        json.dumps({"prompt": MARKUP, "completion": "yes"}).encode()
        + b"\r\n\n{'single': 1}\n"
        + json.dumps({"prompt": "", "completion": "yes"}).encode()
    )
    _, page = pages.get("/data/record?path=a.jsonl&n=1")
    assert MARKUP not in page and "&lt;script&gt;" in page
    assert "tokens need a model" in page.lower()
    assert "a blank line" in pages.get("/data/record?path=a.jsonl&n=2")[1]
    assert "SingleQuotes" in pages.get("/data/record?path=a.jsonl&n=3")[1]
    assert "EmptyField" in pages.get("/data/record?path=a.jsonl&n=4")[1]
    assert pages.get("/data/record?path=a.jsonl&n=5")[0] == 400


def test_long_texts_are_cut_until_all_of_them_is_wanted(pages: Pages) -> None:
    write("a.jsonl", [{"prompt": "x" * 100_000 + "END", "completion": "yes"}])
    _, page = pages.get("/data/record?path=a.jsonl&n=1")
    assert len(page) < 30_000 and "show all 100,003 characters" in page
    assert "END" in pages.get("/data/record?path=a.jsonl&n=1&all=1")[1]
    assert len(pages.get("/data/records?path=a.jsonl")[1]) < 30_000


def test_a_file_that_is_replaced_while_it_is_shown_is_counted_again(pages: Pages) -> None:
    write("a.jsonl", tiny.pairs(30))
    assert "of 30" in pages.get("/data/records?path=a.jsonl")[1]
    write("b.jsonl", tiny.pairs(3)).replace("a.jsonl")
    _, page = pages.get("/data/records?path=a.jsonl")
    assert numbers_in(page) == [1, 2, 3] and "was replaced or changed" in page
    with Path("a.jsonl").open("a") as file:
        file.write(json.dumps(tiny.pair("more", "yes")) + "\n")
    wait_until(lambda: "of 4" in pages.get("/data/records?path=a.jsonl")[1])


def test_a_kept_index_is_private_and_used_again(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("a.jsonl", tiny.pairs(500)).absolute()
    folder = pages.workbench.home.data
    assert IndexKeeper(folder).open(path, 60).is_complete
    [kept] = folder.iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    assert b"parcel" not in kept.read_bytes()
    monkeypatch.setattr(record_index.RecordIndex, "extend", None)  # nothing is left to index
    again = IndexKeeper(folder).open(path, 60)
    assert again.is_complete and again.index.line_count == 500


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.jsonl", "no such file"),
        ("pipe.jsonl", "not a regular file"),
        ("model.bin", "files ending in .bin"),
        ("/etc/passwd", "can&#39;t be read"),
        ("~nobody-here/a.jsonl", "no such file"),
        ("empty", "no data file"),
        ("\0", "can&#39;t be read"),
    ],
)
def test_a_path_that_is_no_data_is_refused(pages: Pages, path: str, message: str) -> None:
    os.mkfifo("pipe.jsonl")
    Path("model.bin").touch()
    Path("empty").mkdir()
    status, page = pages.get(f"/data/records?{urlencode({'path': path})}")
    assert status == 400 and message in page.lower()


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.write_jsonl(tmp_path / "a.jsonl", tiny.pairs(1))
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(UsageError, match="another user"):
        data_at("a.jsonl", tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "prompt,completion\nWhere?,Here\n" + "Who?,Me\n" * 40),
        ("a.json", json.dumps([tiny.pair("Where?", "Here"), *[tiny.pair("Who?", "Me")] * 40])),
    ],
)
def test_other_files_are_read_from_their_beginning(
    pages: Pages, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    Path(name).write_text(text)
    _, page = pages.get(f"/data/records?path={name}")
    assert numbers_in(page) == list(range(1, 26)) and "read from its beginning" in page
    assert numbers_in(pages.get(f"/data/records?path={name}&from=26")[1]) == list(range(26, 42))
    assert "Here" in pages.get(f"/data/record?path={name}&n=1")[1]
    assert "data convert" in pages.get(f"/data/records?path={name}&q=who")[1]
    monkeypatch.setattr(record_list, "MAX_SEQUENTIAL", 10)
    assert pages.get(f"/data/records?path={name}&from=11")[0] == 400
    line = 3 if name.endswith("csv") else 1
    data = data_at(name, Path.cwd())
    assert records.find_number(data, data.files[0], line) == (2 if line == 3 else 1)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Where?", "chosen": "In Lyon.", "rejected": "In Oslo."},
        {"text": "A text without an answer."},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]},
    ],
)
def test_a_file_is_read_for_what_its_records_are(pages: Pages, record: dict[str, Any]) -> None:
    write("a.jsonl", [record] * 3)
    _, page = pages.get("/data/record?path=a.jsonl&n=2")
    assert 'id="read"' in page and 'class="finding"' not in page


def test_the_folder_of_texts_has_a_link_to_each(pages: Pages) -> None:
    for name in ("one.txt", "two.txt"):
        folder = Path("texts")
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"The text {name}.")
    _, page = pages.get("/data/records?path=texts")
    assert "texts/one.txt" in page and "texts/two.txt" in page
    assert "The text two.txt." in pages.get("/data/record?path=texts&file=1&n=1")[1]


def test_a_job_shows_its_staged_data(pages: Pages) -> None:
    store = Store(pages.workbench.home.jobs)
    files = {
        role: {"name": f"{role}.jsonl", "sha256": "c" * 64, "records": 3, "tokens": 9}
        for role in ("train", "test")
    }
    manifest = {"sha256": "d" * 64, "format": "prompt-completion", "files": files, "sources": []}
    with store.create(make_record(store, "router-0a1b2c3d", manifest=manifest)):
        pass
    tiny.write_jsonl(store.jobs / "router-0a1b2c3d" / "data" / "train.jsonl", tiny.pairs(3))
    assert "router-0a1b2c3d" in pages.get("/data")[1]
    _, page = pages.get("/data/records?job=router-0a1b2c3d&role=train")
    assert numbers_in(page) == [1, 2, 3]
    status, page = pages.get("/data/records?job=router-0a1b2c3d&role=test")
    assert status == 400 and "not on this machine any more" in page
    assert pages.get("/data/records?job=none-0a1b2c3d&role=train")[0] == 404


def test_a_survey_links_every_line_and_is_kept(pages: Pages) -> None:
    rows = [tiny.pair(f"Question {n}?", ("yes", "no")[n % 2]) for n in range(12)]
    write("train.jsonl", [*rows, rows[3], tiny.pair("Question 4?", "no")])
    write("test.jsonl", [rows[5], tiny.pair("Another?", "yes")])
    with Path("train.jsonl").open("a") as file:
        file.write("{broken\n")
    Path("cloudft.yaml").write_text(
        "name: router\nbase_model: nova-lite\ndata: {train: train.jsonl, test: test.jsonl}\n"
    )
    assert pages.post("/data/survey?here=1&role=train") == 303
    wait_until(lambda: "Survey again" in pages.get("/data/survey?here=1")[1])
    _, page = pages.get("/data/survey?here=1")
    for line in (13, 14, 15):
        assert f"line={line}" in page
    assert "In the training data too" in page and "role=test&amp;file=0&amp;line=1" in page
    assert "BadJson" in page and "label=yes" in page
    _, record = pages.get("/data/record?here=1&role=train&line=15")
    assert record.count("BadJson") == 1
    _, record = pages.get("/data/record?here=1&role=train&line=13")
    assert "DuplicateRecords" in record and "role=train&amp;file=0#findings" in record
    assert numbers_in(pages.get("/data/records?here=1&role=train&label=yes")[1]) == [
        *range(1, 12, 2)
    ]
    [kept] = [path for path in pages.workbench.home.data.iterdir() if path.suffix == ".json"]
    assert kept.parent.stat().st_mode & 0o077 == 0
    # Another change of the data needs another survey.
    write("test.jsonl", [rows[6]])
    assert "Survey the data" in pages.get("/data/survey?here=1")[1]


def test_a_survey_is_canceled_and_its_process_ends(pages: Pages) -> None:
    write("a.jsonl", tiny.pairs(50))
    assert pages.post("/data/survey?path=a.jsonl") == 303
    assert pages.state is not None
    running = pages.state.surveys.running(data_at("a.jsonl", Path.cwd()))
    assert running is not None
    assert "Cancel" in pages.get("/data/survey?path=a.jsonl")[1]
    assert pages.post("/data/survey/cancel?path=a.jsonl") == 303
    assert running.process.wait(60) != 0
    assert "was canceled" in pages.get("/data/survey?path=a.jsonl")[1]


def test_a_read_only_workbench_starts_no_survey(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("a.jsonl", tiny.pairs(2))
    pages = Pages(Workbench(Home(tmp_path / "home"), read_only=True))
    assert pages.post("/data/survey?path=a.jsonl") == 403
    assert "starts no survey" in pages.get("/data/survey?path=a.jsonl")[1]


class FakeSession:
    """A tokenizer whose tokens are the characters of a line."""

    def __init__(self) -> None:
        self.is_loaded, self.is_closed = threading.Event(), False

    @property
    def facts(self) -> Mapping[str, Any]:
        self.is_loaded.wait(60)
        return {"context": 100, "chatTemplate": "plain", "specialIds": []}

    def preview(self, line: bytes) -> Mapping[str, Any]:
        if b"refused" in line:
            raise TrainerError("the template refuses it", fix="write it otherwise.")
        return {"pieces": [{"id": 1, "text": line.decode(), "learned": True}]}

    def close(self) -> None:
        self.is_closed = True
        self.is_loaded.set()


@pytest.fixture
def job(tmp_path: Path) -> LoadedJob:
    tiny.write_jsonl(tmp_path / "a.jsonl", tiny.pairs(2))
    path = tmp_path / "cloudft.yaml"
    path.write_text(
        "name: x\nbase_model: nova-lite\ndata: {train: a.jsonl}\nlocal: {model: smollm2-135m}\n"
    )
    found = data_here(tmp_path)
    assert found is not None and found.stand_in == "smollm2-135m"
    return load_job(path)


def test_the_tokenizer_stays_until_it_is_idle_or_broken(tmp_path: Path, job: LoadedJob) -> None:
    opened: list[FakeSession] = []

    def open_preview(_job: LoadedJob) -> Any:
        opened.append(FakeSession())
        return opened[-1]

    keeper = TokenizerKeeper(Home(tmp_path), idle_s=0.3, open_preview=open_preview)
    assert keeper.preview(job, b"1", 0) is None and keeper.is_loading()
    opened[0].is_loaded.set()
    got = keeper.preview(job, b"2", 60)
    assert got is not None and got[1]["pieces"][0]["text"] == "2"
    assert len(opened) == 1
    with pytest.raises(TrainerError, match="refuses"):
        keeper.preview(job, b"refused", 60)
    assert opened[0].is_closed
    assert keeper.preview(job, b"3", 0) is None and len(opened) == 2
    wait_until(lambda: opened[1].is_closed)


def test_answers_of_a_pair_show_where_they_differ() -> None:
    one, other = mark_differences("It is in Lyon now.", "It is in Oslo now.")
    assert [span.text for span in one if span.differs] == [" Lyon"]
    assert [span.text for span in other if span.differs] == [" Oslo"]
    long, longer = "same " * 3000 + "a end", "same " * 3000 + "b end"
    assert [s.text for s in mark_differences(long, longer)[1] if s.differs] == [" b"]
    pair = {"prompt": "Where?", "chosen": "In Lyon.", "rejected": "In Oslo."}
    view = view_record(parse_record(pair, {}, preference_pairs.NAME))
    assert [turn.role for turn in view.turns] == ["user", "chosen", "rejected"]
    assert view.question_and_answer() == ("Where?", "In Lyon.")


def test_pictures_and_tools_are_shown_as_what_they_are() -> None:
    image = {"image": {"format": "png", "source": {"bytes": "A" * 5000}}}
    call = {"toolUse": {"toolUseId": "a", "name": "find", "input": {"x": 1}}}
    result = {"toolResult": {"toolUseId": "a", "content": [{"text": "found"}]}}
    messages = [
        {"role": "user", "content": [image, {"text": "What is it?"}]},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
        {"role": "assistant", "content": [{"text": "A cat."}]},
    ]
    view = view_record(parse_record({"messages": messages}, {}))
    kinds = {part.kind: part.text for turn in view.turns for part in turn.parts}
    assert kinds["image"] == "[image: png, 5,000 characters of data]"
    assert '"find"' in kinds["tool call"] and kinds["tool result"] == "found"

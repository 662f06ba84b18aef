"""Requests that no page sends, and stray files: each is answered by one clear error, or left out.

`ask` raises what the application does not answer, so a 500 fails these tests as an exception.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import tiny
from label_projects import LABELS, make_project, tickets
from test_workbench_guard import ask
from workbench_jobs import falling_curve, make_local_job

from cloudft.errors import JobNotFound
from cloudft.storage.home import Home
from cloudft.storage.store import Store
from cloudft.workbench.app import build_app
from cloudft.workbench.data_pages.indexes import IndexKeeper
from cloudft.workbench.workbench import Workbench

NO_IDS = ("..", "../jobs", "x" * 300, "a\0b", "/etc", ".", "")
DECODING = '"maxNewTokens": 1e400, "temperature": 0, "topP": 1, "seed": 1'
REQUESTS = (
    '{"jobs": 5}',
    '{"jobs": [null]}',
    f'{{"jobs": ["here"], "text": "x", {DECODING}}}',
    '{"jobs": ["here"], "text": "\\ud800"}',
    '{"index": "x"}',
    "[" * 100_000,
)


@pytest.fixture
def workbench(tmp_path: Path) -> Workbench:
    workbench = Workbench(Home(tmp_path / "home"))
    make_local_job(workbench.home, "here", falling_curve(20))
    return workbench


def get(workbench: Workbench, path: str) -> tuple[int, str]:
    return ask(workbench, f"/{workbench.guard.token}{path}")[::2]


def post(workbench: Workbench, path: str, **fields: str) -> tuple[int, str]:
    body = urlencode({"form": workbench.form_token(path)} | fields).encode()
    return ask(workbench, f"/{workbench.guard.token}{path}", method="POST", body=body)[::2]


@pytest.mark.parametrize("job_id", NO_IDS)
def test_an_id_is_never_a_path(tmp_path: Path, job_id: str) -> None:
    home = Home(tmp_path)
    make_local_job(home, "jobs", falling_curve(2))
    with pytest.raises(JobNotFound):
        Store(home.jobs / "jobs").get(job_id)


@pytest.mark.parametrize("job_id", [one for one in NO_IDS if one])
def test_data_of_no_job_are_not_found(workbench: Workbench, job_id: str) -> None:
    status, page = get(workbench, f"/data/records?job={quote(job_id)}&role=train")
    assert status == 404 and "There is no job" in page


@pytest.mark.parametrize("offset", ["-1", "1e308", "9" * 30])
@pytest.mark.parametrize("name", ["curve", "log"])
def test_an_offset_that_no_file_has_is_refused(
    workbench: Workbench, name: str, offset: str
) -> None:
    status, page = get(workbench, f"/jobs/here/live?{name}={offset}")
    assert status == 400 and "not an offset" in page


@pytest.mark.parametrize("path", ["answers", "answers/x/probabilities", "cases/save"])
@pytest.mark.parametrize("request_text", REQUESTS)
def test_a_request_that_no_script_sends_is_refused(
    workbench: Workbench, path: str, request_text: str
) -> None:
    status, page = post(workbench, f"/playground/{path}", request=request_text)
    assert status in (400, 404) and "Fix:" in page


def test_the_table_of_cases_needs_a_job(workbench: Workbench) -> None:
    assert get(workbench, "/playground/cases?set=cases")[0] == 400


def test_a_case_that_is_nested_too_deep_is_named(workbench: Workbench) -> None:
    workbench.home.cases.mkdir(parents=True)
    (workbench.home.cases / "cases.jsonl").write_text("[" * 100_000 + "\n")
    status, page = get(workbench, "/playground?job=here")
    assert status == 200 and "can't be used" in page


@pytest.mark.parametrize("file", ["~nobody-has-this-name/x.jsonl", "a\0b", "/none/x.jsonl"])
def test_a_file_to_label_that_is_none_is_an_error_of_the_form(
    workbench: Workbench, file: str
) -> None:
    form = {"name": "n", "files": file, "kind": "labels", "labels": "a\nb"}
    status, page = post(workbench, "/label", **form)
    assert status == 400 and "Fix:" in page
    assert "job file" not in page  # there is none


@pytest.mark.parametrize("folder", ["~nobody-has-this-name/x", "a\0b", "", "/tmp/" + "x" * 300])
def test_a_folder_that_is_none_is_not_written(workbench: Workbench, folder: str) -> None:
    make_project(workbench.home.path, tickets(3))
    if len(folder) < 300:
        assert post(workbench, "/label/tickets/export", out=folder)[0] == 400
    assert post(workbench, "/jobs/here/export", folder=folder)[0] in (400, 409)


def test_labels_go_to_a_folder_that_there_is(workbench: Workbench, tmp_path: Path) -> None:
    project = make_project(workbench.home.path, tickets(3))
    form = {"person": "ann", "action": "label", "key": project.records.keys[0], "label": LABELS[0]}
    assert post(workbench, "/label/tickets/save", **form)[0] == 303
    status, page = post(workbench, "/label/tickets/export", out=str(tmp_path / "none/x.jsonl"))
    assert status == 400 and "create it first" in page
    assert post(workbench, "/label/tickets/export", out=str(tmp_path / "x.jsonl"))[0] == 303


def test_files_of_a_file_manager_are_no_sweeps(workbench: Workbench) -> None:
    workbench.home.sweeps.mkdir(parents=True)
    (workbench.home.sweeps / ".DS_Store").write_bytes(b"x")
    unreadable = workbench.home.sweeps / "router-0123abcd" / "result.json"
    unreadable.mkdir(parents=True)
    status, page = get(workbench, "/sweeps")
    assert status == 200 and "can&#39;t be read" in page and "DS_Store" not in page


def test_an_empty_file_is_indexed_once(tmp_path: Path) -> None:
    keeper = IndexKeeper(tmp_path / "data")
    path = tiny.write_jsonl(tmp_path / "empty.jsonl", [])
    for _ in range(2):  # each look began anew, and a page that followed it never ended
        entry = keeper.open(path)
        assert entry.is_complete and not entry.error


def test_a_read_only_workbench_makes_no_suggestions(workbench: Workbench) -> None:
    project = make_project(workbench.home.path, tickets(6), job="here")
    before = sorted(project.folder.iterdir())
    reader = Workbench(workbench.home, read_only=True)
    for page in ("", "/work?person=ann", "/queue?person=ann"):
        status, text = get(reader, f"/label/tickets{page}")
        assert status == 200 and "read-only" in text
    time.sleep(0.2)
    assert sorted(project.folder.iterdir()) == before


def test_a_fault_of_cloudft_has_a_page(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a training text")

    monkeypatch.setattr("cloudft.workbench.pages.sweep.list_sweeps", fail)
    monkeypatch.setattr("test_workbench_guard.build_app", lambda one: _Quiet(build_app(one)))
    status, page = get(workbench, "/sweeps")
    assert status == 500 and "ZeroDivisionError" in page and "a training text" not in page


class _Quiet:
    """The application behind a server, which logs what it raises after its answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, *arguments: Any) -> None:
        with contextlib.suppress(ZeroDivisionError):
            await self._app(*arguments)

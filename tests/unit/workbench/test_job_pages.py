"""The table of jobs and the page of one, without a browser."""

from __future__ import annotations

import html
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from job_records import make_record
from sample_pages import ARABIC, MARKUP, make_evaluation
from test_workbench_guard import ask
from workbench_jobs import (
    append_lines,
    falling_curve,
    make_local_job,
    running_trainer,
    train_line,
    validation_line,
    write_checkpoint,
    write_ending,
    write_state,
)

from cloudft.backends.base import Backend
from cloudft.backends.capabilities import SupportsExport
from cloudft.backends.export_options import ExportOptions
from cloudft.errors import CloudUnreachable, TrainerError
from cloudft.evaluate.results import save_evaluation
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord
from cloudft.workbench import exports, job_states
from cloudft.workbench.job_table import TableQuery, make_table
from cloudft.workbench.live_job import LiveJob
from cloudft.workbench.live_table import LiveTable
from cloudft.workbench.workbench import Workbench

PLACE = {"place": {"region": "us-east-1"}, "hyperParameters": {}}


@pytest.fixture
def workbench(tmp_path: Path) -> Workbench:
    return Workbench(Home(tmp_path))


def get(workbench: Workbench, path: str) -> tuple[int, str]:
    status, _, text = ask(workbench, f"/{workbench.guard.token}{path}")
    return status, text


def post(workbench: Workbench, path: str, **fields: str) -> tuple[int, dict[str, str], str]:
    form = {"form": workbench.form_token(path)} | fields
    body = urlencode(form).encode()
    return ask(workbench, f"/{workbench.guard.token}{path}", method="POST", body=body)


def make_cloud_job(workbench: Workbench, job_id: str, **values: Any) -> JobRecord:
    record = make_record(workbench.store, job_id, backend="bedrock", request=PLACE, **values)
    with workbench.store.create(record):
        pass
    workbench.store.mark_submitted(job_id, f"arn:aws:bedrock:us-east-1:1:job/{job_id}")
    return record


def wait_until(is_so: Any) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end, "it never became so"
        time.sleep(0.01)


def ids(workbench: Workbench, **params: str) -> list[str]:
    return [row.id for row in make_table(workbench, TableQuery.from_params(params)).rows]


def test_an_empty_home_says_how_to_begin(workbench: Workbench) -> None:
    status, page = get(workbench, "/")
    assert status == 200 and "cloudft init" in page


def test_the_table_is_filtered_sorted_and_paged_by_its_address(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (name, status) in enumerate(
        [("router-0000000a", "Completed"), ("router-0000000b", "Failed"), ("poet-0000000c", None)]
    ):
        created = f"2026-01-0{number + 1}T00:00:00.000+00:00"
        curve = train_line(0, 3.0 - number)
        record = make_local_job(workbench.home, name, curve, created_at=created)
        write_state(record, number + 1, 10)
        if status:
            write_ending(record, "Stopped" if status == "Completed" else status)
    assert ids(workbench) == ["poet-0000000c", "router-0000000b", "router-0000000a"]
    assert ids(workbench, sort="created", order="up") == ids(workbench)[::-1]
    assert ids(workbench, sort="job")[0] == "poet-0000000c"
    assert ids(workbench, sort="loss") == ids(workbench, sort="step", order="up")
    assert ids(workbench, q="ROUTER") == ["router-0000000b", "router-0000000a"]
    assert ids(workbench, q="router 0b nova") == ["router-0000000b"]
    assert ids(workbench, q="team=support poet") == ["poet-0000000c"]
    assert ids(workbench, status="Stopped") == ["router-0000000a"]
    assert ids(workbench, backend="bedrock") == []
    assert ids(workbench, sort="nonsense", page="9" * 40, order="?") == ids(workbench)
    monkeypatch.setattr("cloudft.workbench.job_table.ROWS", 2)
    assert len(ids(workbench)) == 2 and ids(workbench, page="2") == ["router-0000000a"]
    assert ids(workbench, page="7") == ["router-0000000a"]
    _, page = get(workbench, "/?q=o&sort=job&page=1")
    assert 'rel="next"' in page and "q=o&amp;sort=job&amp;page=2" in page


def test_a_job_of_a_cloud_is_shown_before_the_cloud_answers(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make_cloud_job(workbench, "nova-0000000a", estimate={"usd": {"training": 12.5}})
    answer = threading.Event()

    def describe_many(self: object, _ids: object) -> dict[str, Any]:
        answer.wait(20)
        raise CloudUnreachable("the network is down", fix="try again.")

    monkeypatch.setattr(
        "cloudft.backends.bedrock.backend.BedrockBackend.describe_many", describe_many
    )
    begin = time.monotonic()
    status, page = get(workbench, "/")
    assert time.monotonic() - begin < 15, "the page waited for the cloud"
    assert status == 200 and "nova-0000000a" in page
    assert "Looking" in page and "about 12.50 USD" in page
    answer.set()
    wait_until(lambda: "could not look: the network is down" in get(workbench, "/")[1])
    assert "Unknown" in get(workbench, "/")[1]
    wait_until(lambda: "the network is down" in get(workbench, f"/jobs/{record.id}")[1])


def test_clouds_are_described_again_only_when_that_is_old(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make_cloud_job(workbench, "nova-0000000a")
    calls: list[int] = []
    monkeypatch.setattr(
        job_states, "describe_all", lambda records, _home: calls.append(len(records)) or {}
    )
    monkeypatch.setattr(job_states, "CLOUD_EVERY_S", 1000.0)
    states = job_states.JobStates(workbench.home)
    states._cloud[record.id] = (SimpleNamespace(message="gone"), time.time())  # type: ignore[assignment]
    states._cloud_began = time.monotonic()
    states.look_at_clouds([record])
    time.sleep(0.05)
    assert calls == []
    states.look_at_clouds([record], now=True)
    wait_until(lambda: calls == [1])


def test_a_job_that_can_not_be_read_is_no_missing_job(workbench: Workbench) -> None:
    record = make_local_job(workbench.home, "router-0000000a")
    (record.folder / "record.json").write_text("{", "utf-8")
    (make_local_job(workbench.home, "router-0000000b").folder / "job.json").write_text(
        "[]", "utf-8"
    )
    status, page = get(workbench, "/")
    assert status == 200
    assert "router-0000000a is damaged" in page and "router-0000000b is damaged" in page
    assert get(workbench, "/jobs/router-0000000a")[0] == 500
    assert get(workbench, "/jobs/router-0000000c")[0] == 404


def test_texts_of_others_are_text(workbench: Workbench) -> None:
    long = f"{MARKUP} {ARABIC} " + "x" * 100_000
    record = make_local_job(
        workbench.home,
        "router-0000000a",
        train_line(0, 1.0),
        name=long,
        base_model=long,
        tags={"<i>": long},
        spec={"name": long, "local": {MARKUP: long}},
    )
    append_lines(record, f"{long}\n", "trainer.log")
    append_lines(record, validation_line(0, 1.0, MARKUP))
    write_ending(record, "Failed", long)
    _, table = get(workbench, "/")
    assert "<b>bold" not in table and len(table) < 20_000
    status, page = get(workbench, f"/jobs/{record.id}")
    assert status == 200 and "<b>bold" not in page and "&lt;b&gt;bold" in page
    assert "more characters" in page
    _, log = get(workbench, f"/jobs/{record.id}/log")
    assert long in log


def test_the_page_has_what_the_job_is_and_has_left(workbench: Workbench) -> None:
    record = make_local_job(workbench.home, "router-0000000a", falling_curve(40))
    write_state(record, 40, 100, base={"validationLoss": 3.0}, tuned={"validationLoss": 1.0})
    write_checkpoint(record, 20, {"trained.safetensors": b"x" * 2048})
    write_ending(record, "Stopped")
    evaluation = make_evaluation(records=40)
    save_evaluation(
        record.folder, {**evaluation, "version": 1, "createdAt": "2026-01-03T00:00:00+00:00"}
    )
    status, page = get(workbench, f"/jobs/{record.id}")
    assert status == 200
    text = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))
    assert "40 of 100" in text and "loss 3.0000 before, loss 1.0000 after" in text
    assert "step-00000020" in text and "2.0 KiB" in text
    assert evaluation["significance"]["sentence"] in text
    assert "Learning rate" in text and "validation german" in page
    assert f"/jobs/{record.id}/resume" in page and f"/jobs/{record.id}/stop" not in page
    assert f"/compare?job={record.id}" in page
    _, table = get(workbench, "/")
    assert "accuracy" in table and 'class="spark"' in table


def test_a_chart_is_valid_json_with_gaps(workbench: Workbench) -> None:
    curve = train_line(0, 1.0) + train_line(1, float("nan")) + train_line(2, 2.0)
    record = make_local_job(workbench.home, "router-0000000a", curve)
    status, text = get(workbench, f"/jobs/{record.id}/chart?measure=loss")
    assert status == 200
    assert "NaN" not in text and '"points":[[1,1.0],[2,null],[3,2.0]]' in text
    assert get(workbench, f"/jobs/{record.id}/chart?measure=nonsense")[0] == 400
    assert get(workbench, f"/jobs/{record.id}/chart?measure=loss&from=nan")[0] == 400
    _, page = get(workbench, f"/jobs/{record.id}")
    assert 'class="gap c0"' in page


@pytest.mark.parametrize(
    ("more", "label"),
    [
        ({}, "loss (nats per token)"),
        ({"reward": 0.5}, "policy loss"),
        ({"rewardMargin": 0.5}, "loss (mean of the pairs)"),
    ],
    ids=["cross-entropy", "rewards", "pairs"],
)
def test_the_axis_of_a_loss_says_what_loss_it_is(
    workbench: Workbench, more: dict[str, float], label: str
) -> None:
    record = make_local_job(workbench.home, "router-0000000a", train_line(0, 1.0, **more))
    assert workbench.curves.get(record).chart("loss").y == label


def live_job(workbench: Workbench, record: JobRecord, **sizes: int) -> LiveJob:
    now = iter(range(0, 10_000, 10))
    return LiveJob(
        workbench,
        record,
        curve=sizes.get("curve", 0),
        log=sizes.get("log", 0),
        render_head=lambda known: known.status,
        clock=lambda: float(next(now)),
    )


def test_an_open_page_gets_new_points_lines_and_states(workbench: Workbench) -> None:
    record = make_local_job(workbench.home, "router-0000000a", train_line(0, 3.0))
    curve = (record.folder / "metrics.jsonl").stat().st_size
    log = (record.folder / "trainer.log").stat().st_size
    live = live_job(workbench, record, curve=curve, log=log)
    with running_trainer(record):
        assert live.look() == {"head": "InProgress"}
        assert live.look() == {}
        append_lines(record, train_line(1, 2.0) + train_line(2, float("inf"))[:40])
        append_lines(record, "<b>a</b>\nhalf", "trainer.log")
        events = live.look()
        assert events is not None
        assert events["points"]["loss"] == {"training": [(2, 2.0)]}  # type: ignore[index]
        assert events["log"] == ["<b>a</b>"]
        append_lines(record, train_line(2, float("inf"))[40:] + validation_line(2, 1.0))
        events = live.look()
        assert events is not None
        assert events["points"]["loss"] == {"training": [(3, None)], "validation": [(3, 1.0)]}  # type: ignore[index]
        write_state(record, 2, 10)
        assert live.look() == {"head": "InProgress"}
    write_ending(record, "Failed", "no")
    assert live.look() == {"head": "Failed"}
    # A resume cuts the curve: the page loads its charts again.
    (record.folder / "metrics.jsonl").write_text(train_line(0, 1.0, timestamp="x" * 500), "utf-8")
    assert live.look() == {"reload": {}}
    append_lines(record, train_line(1, 1.5))
    assert live.look()["points"]["loss"] == {"training": [(2, 1.5)]}  # type: ignore[index]
    workbench.store.delete(record.id)
    assert live.look() == {"gone": {}}
    assert live.look() is None


def test_the_open_table_gets_changed_rows_and_new_jobs(workbench: Workbench) -> None:
    record = make_local_job(workbench.home, "router-0000000a", train_line(0, 3.0))
    now = iter(range(0, 10_000, 3))
    live = LiveTable(
        workbench,
        TableQuery(),
        "another version",
        render_row=lambda row: f"{row.id} {row.status} {row.step}",
        render_table=lambda table: f"{table.total} jobs",
        clock=lambda: float(next(now)),
    )
    assert live.look() == {"table": "1 jobs"}
    assert live.look() == {}
    with running_trainer(record):
        write_state(record, 3, 10)
        assert live.look() == {"rows": {record.id: f"{record.id} InProgress 3 / 10"}}
        assert live.look() == {}
    make_local_job(workbench.home, "router-0000000b")
    assert live.look() == {"table": "2 jobs"}


def test_stop_is_confirmed_and_marks_the_job(workbench: Workbench) -> None:
    record = make_local_job(workbench.home, "router-0000000a")
    path = f"/jobs/{record.id}/stop"
    with running_trainer(record):
        status, page = get(workbench, path)
        assert status == 200 and "checkpoint" in page and workbench.form_token(path) in page
        assert not (record.folder / "stop").exists()
        refused, _, _ = post(workbench, path, form=workbench.form_token("/jobs/other/stop"))
        assert refused == 403 and not (record.folder / "stop").exists()
        status, headers, _ = post(workbench, path)
        assert status == 303 and headers["location"].endswith(f"/jobs/{record.id}")
        assert (record.folder / "stop").exists()
        assert "Stopping" in get(workbench, f"/jobs/{record.id}")[1]


@pytest.mark.parametrize("action", ["export", "resume", "stop"])
def test_a_read_only_workbench_does_nothing(tmp_path: Path, action: str) -> None:
    workbench = Workbench(Home(tmp_path), read_only=True)
    record = make_local_job(workbench.home, "router-0000000a")
    before = {path: path.read_bytes() for path in record.folder.rglob("*") if path.is_file()}
    with running_trainer(record):
        status, _, _ = post(workbench, f"/jobs/{record.id}/{action}")
        assert status == 403
        assert "<form" not in get(workbench, f"/jobs/{record.id}/{action}")[1]
        assert "/stop" not in get(workbench, f"/jobs/{record.id}")[1]
    after = {path: path.read_bytes() for path in record.folder.rglob("*") if path.is_file()}
    assert after == before


def test_a_running_job_is_not_resumed_and_an_unfinished_one_not_exported(
    workbench: Workbench, tmp_path: Path
) -> None:
    record = make_local_job(workbench.home, "router-0000000a")
    with running_trainer(record):
        status, _, page = post(workbench, f"/jobs/{record.id}/resume")
        assert status == 409 and "is running" in page
        status, _, page = post(workbench, f"/jobs/{record.id}/export", folder=str(tmp_path / "new"))
        assert status == 409 and "has left no model" in page


class FakeExport(Backend, SupportsExport):
    """A backend whose export ends when the test says so."""

    def __init__(self, outcome: Any) -> None:
        self.outcome, self.may_end = outcome, threading.Event()

    def export(self, job_id: str, out: Path, options: ExportOptions) -> Any:
        self.may_end.wait(20)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


FakeExport.__abstractmethods__ = frozenset()
PROOF = {"equalGreedyAnswers": 8, "records": 8, "maxLogitDifference": 1e-6, "heldOut": "test"}


@pytest.mark.parametrize(
    ("outcome", "shown"),
    [
        (PROOF, "equal greedy answers on 8 of 8"),
        (TrainerError("it differs <b>", fix="x."), "it differs &lt;b&gt;"),
        (RuntimeError("a bug"), "a bug"),
    ],
)
def test_an_export_shows_its_state(
    workbench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Any, shown: str
) -> None:
    record = make_local_job(workbench.home, "router-0000000a")
    backend = FakeExport(outcome)
    monkeypatch.setattr(exports, "backend_for", lambda _record, _home: backend)
    workbench.exports.start(record, str(tmp_path / "out"), "float16")
    assert "Exporting to" in get(workbench, f"/jobs/{record.id}")[1]
    with pytest.raises(exports.JobStateConflict):
        workbench.exports.start(record, str(tmp_path / "other"), "float16")
    backend.may_end.set()
    wait_until(lambda: shown in get(workbench, f"/jobs/{record.id}")[1])
    workbench.exports.start(record, str(tmp_path / "out"), "float16")


def test_an_export_is_for_a_runtime_of_the_form(
    workbench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make_local_job(workbench.home, "router-0000000a")
    backend = FakeExport(PROOF)
    monkeypatch.setattr(exports, "backend_for", lambda _record, _home: backend)
    started = workbench.exports.start(record, str(tmp_path / "out"), "float16", "ollama")
    assert (started.options.format, started.options.runtime) == ("gguf", "ollama")
    assert "for ollama" in get(workbench, f"/jobs/{record.id}")[1]
    backend.may_end.set()
    with pytest.raises(exports.UsageError, match="no runtime lmstudio"):
        workbench.exports.start(record, str(tmp_path / "other"), "float16", "lmstudio")


@pytest.mark.parametrize("folder", ["", "  ", "/", "/no/such/parent/x", "relative", "~nobody-x/y"])
def test_an_export_needs_a_new_folder(workbench: Workbench, folder: str) -> None:
    record = make_local_job(workbench.home, "router-0000000a")
    with pytest.raises(exports.UsageError):
        workbench.exports.start(record, folder, "float32")


def test_a_long_curve_is_shown_sampled_and_then_whole(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [train_line(n, 1.0) for n in range(30_000)]
    lines[17_777] = train_line(17_777, 99.0)
    record = make_local_job(workbench.home, "router-0000000a", "".join(lines))
    monkeypatch.setattr("cloudft.workbench.curves.READ_AT_ONCE_BYTES", 1000)
    first = workbench.curves.get(record).chart("loss")
    assert first.partial and len(first.series[0].points) >= 800
    wait_until(lambda: not workbench.curves.get(record).is_partial)
    whole = workbench.curves.get(record).chart("loss")
    assert (17_778, 99.0) in whole.series[0].points
    assert len(whole.series[0].points) <= 1000


def test_curves_that_were_used_longest_ago_leave_first(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudft.workbench.curves.MAX_VALUES", 300)
    for number in range(3):
        record = make_local_job(workbench.home, f"router-0000000{number}", falling_curve(40))
        workbench.curves.get(record)
    assert list(workbench.curves._files) == ["router-00000001", "router-00000002"]

"""What more labels are worth is read from the learning curve of the job, or is not known."""

from __future__ import annotations

from pathlib import Path

from compared_jobs import evaluate_job
from job_records import make_record
from label_projects import make_project, tickets
from test_workbench_guard import ask

from cloudft.evaluate.diagnostics.data_scaling import diagnose_data_scaling
from cloudft.evaluate.results import save_evaluation
from cloudft.labeling.outlook import estimate_outlook
from cloudft.storage.home import Home
from cloudft.storage.store import Store
from cloudft.workbench.workbench import Workbench


def test_the_outlook_is_that_of_the_jobs_saved_learning_curve(tmp_path: Path) -> None:
    home = Home(tmp_path)
    store = Store(home.jobs)
    job = "router-20260101-000000-abcd"
    record = make_record(store, job)
    with store.create(record):
        pass
    project = make_project(tmp_path, tickets(30, ""), job=job)
    for reason in ("not been evaluated", "learning curve"):
        outlook = estimate_outlook(project, home, None)
        assert not outlook["known"] and reason in outlook["reason"], outlook["reason"]
        assert outlook["command"] == f"cloudft evaluate {job} --learning-curve"
        evaluation = evaluate_job(record, 0.9)
    points = [(n, 0.5 + 4 * n**-0.5) for n in (50, 100, 200, 400)]
    evaluation["pitfalls"] = {"data": diagnose_data_scaling(points).to_json()}
    save_evaluation(home.jobs / job, evaluation)
    outlook = estimate_outlook(project, home, 9.0)
    assert outlook["known"] and outlook["records"] == 400
    assert [step["more"] for step in outlook["steps"]] == [30, 100, 200, 400]
    assert [step["hours"] for step in outlook["steps"]] == [0.075, 0.25, 0.5, 1.0]
    falls = [step["fall"] for step in outlook["steps"]]
    assert falls == sorted(falls) and 0 < falls[0] < falls[-1] < 0.2
    assert all(step["low"] <= step["loss"] <= step["high"] for step in outlook["steps"])
    workbench = Workbench(home)
    status, _, page = ask(workbench, f"/{workbench.guard.token}/label/tickets")
    assert status == 200 and "ends at 400 records" in page and "100</td>" in page

"""Label records one at a time by keyboard, several people at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudft.errors import CloudftError, UsageError
from cloudft.labeling.decided import OpenRecord, decide_records, event_value
from cloudft.labeling.events import LabelEvent
from cloudft.labeling.export import choose_format, export_labels
from cloudft.labeling.outlook import estimate_outlook
from cloudft.labeling.project import create_project, list_projects, open_project
from cloudft.labeling.settings import KINDS, Kind, ProjectSettings, check_person_name
from cloudft.labeling.summary import summarize_project
from cloudft.storage.store import utc_now
from cloudft.storage.typed_paths import read_typed_path
from cloudft.workbench.forms import Form, form_action
from cloudft.workbench.job_choices import list_choices
from cloudft.workbench.live_labels import (
    AHEAD,
    LiveLabels,
    LiveProject,
    confidence_measure,
    describe_worker,
)
from cloudft.workbench.rendering import render_page
from cloudft.workbench.workbench import workbench_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

JOBS_LISTED = 200
OPEN_SHOWN = 50


def routes() -> list[BaseRoute]:
    """Return the routes of this page."""
    from starlette.routing import Route

    return [
        Route("/label", show_projects),
        Route("/label", form_action(create), methods=["POST"]),
        Route("/label/{name}", show_project),
        Route("/label/{name}/work", show_work),
        Route("/label/{name}/queue", send_queue),
        Route("/label/{name}/save", form_action(save), methods=["POST"]),
        Route("/label/{name}/settle", form_action(settle), methods=["POST"]),
        Route("/label/{name}/refresh", form_action(add_records), methods=["POST"]),
        Route("/label/{name}/export", form_action(export), methods=["POST"]),
    ]


def live_project(request: Request) -> LiveProject:
    """Return the project in a request's path. Raise UsageError for one that there is not."""
    state = request.app.state
    if not hasattr(state, "live_labels"):
        workbench = workbench_of(request)
        state.live_labels = LiveLabels(workbench.home, workbench.read_only)
    live = state.live_labels.get(request.path_params["name"])
    assert isinstance(live, LiveProject)
    return live


def show_projects(request: Request) -> Response:
    """Show all projects, and the form that creates one."""
    workbench = workbench_of(request)
    projects: list[dict[str, object]] = []
    for name in list_projects(workbench.home.labels):
        try:
            project = open_project(workbench.home.labels, name)
            projects.append(
                {
                    "name": name,
                    "kind": KINDS[project.settings.kind],
                    "records": len(project.records.keys),
                    "decided": len({k for p in project.people().values() for k in p.decided}),
                    "people": sorted(project.people()),
                }
            )
        except CloudftError as error:
            projects.append({"name": name, "error": error.message})
    jobs = [one.record.id for one in list_choices(workbench.jobs)[:JOBS_LISTED]]
    values = {"section": "label", "projects": projects, "kinds": KINDS, "jobs": jobs}
    return render_page(request, "label.html", values)


def create(request: Request, form: Form) -> Response:
    """Create a project, and show it."""
    workbench = workbench_of(request)
    job = form.get("job", "").strip() or None
    if job is not None:
        job = workbench.store.find_by_reference(job).id
    columns = {
        name: form[field].strip()
        for name, field in (("prompt", "prompt_column"), ("completion", "answer_column"))
        if form.get(field, "").strip()
    }
    settings = ProjectSettings(
        name=form.get("name", "").strip(),
        files=tuple(line.strip() for line in form.get("files", "").splitlines() if line.strip()),
        kind=_read_kind(form.get("kind", "")),
        labels=tuple(form.get("labels", "").splitlines()),
        columns=columns,
        job=job,
        random_share=_read_share(form.get("random", "10")),
        overlap_share=_read_share(form.get("overlap", "10")),
    )
    project = create_project(workbench.home.labels, settings)
    return _redirect(request, f"/label/{project.name}")


def _read_kind(text: str) -> Kind:
    kind = next((one for one in KINDS if one == text), None)
    if kind is None:
        raise UsageError(f"{text[:40]!r} is no kind of project", fix=f"use {', '.join(KINDS)}.")
    return kind


def _read_share(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise UsageError(f"{text[:40]!r} is no percentage", fix="write a number from 0 to 100.")
    return percent / 100


def show_project(request: Request) -> Response:
    """Show what is done, how well people agree, what labels cost and what more are worth."""
    live, home = live_project(request), workbench_of(request).home
    live.worker.retry()
    summary = summarize_project(live.project)
    _, still_open = decide_records(live.project)
    values = {
        "section": "label",
        "project": live.project.settings,
        "kinds": KINDS,
        "summary": summary,
        "open": [_show_open(live, one) for one in still_open[:OPEN_SHOWN]],
        "outlook": estimate_outlook(live.project, home, summary["cost"]["medianSeconds"]),
        "suggestions": describe_worker(live.worker),
        "measure": confidence_measure(live.project),
        "format": choose_format(live.project, home),
        "groups": live.project.groups.is_available,
        "exported": request.query_params.get("exported"),
        "added": request.query_params.get("added"),
    }
    return render_page(request, "label_project.html", values)


def _show_open(live: LiveProject, one: OpenRecord) -> dict[str, object]:
    record = live.project.records.get(one.key)
    by_value: dict[str, list[str]] = {}
    for person, event in sorted(one.votes.items()):
        by_value.setdefault(event_value(event), []).append(person)
    choices = [
        {"label": "" if value.startswith("\x00") else value, "people": people}
        for value, people in by_value.items()
    ]
    return {"key": one.key, "text": record.text[:2000], "choices": choices}


def show_work(request: Request) -> Response:
    """Show the first record of a person; the script shows the others."""
    live = live_project(request)
    person = check_person_name(request.query_params.get("person", ""))
    live.worker.retry()
    settings = live.project.settings
    queue = {
        "records": live.next_records(person),
        "progress": live.progress(person),
        "kind": settings.kind,
        "labels": settings.labels,
        "measure": confidence_measure(live.project),
    }
    values = {"section": "label", "project": settings, "person": person, "queue": queue}
    return render_page(request, "label_work.html", values)


def send_queue(request: Request) -> Response:
    """Send the next records of a person, without those that the page holds."""
    from starlette.responses import JSONResponse

    live = live_project(request)
    person = check_person_name(request.query_params.get("person", ""))
    live.worker.wake()
    held = request.query_params.get("held", "").split(",")
    look = request.query_params.get("look")
    found: dict[str, object] = {"progress": live.progress(person)}
    if look is None:
        found["records"] = live.next_records(person, held)
    else:
        found["updates"] = live.updates(person, look.split(",")[:AHEAD])
    return JSONResponse(found)


def save(request: Request, form: Form) -> Response:
    """Save one key. It is on disk when this answers."""
    from starlette.responses import JSONResponse

    live, person = live_project(request), form.get("person", "")
    is_script = "application/json" in request.headers.get("accept", "")
    if not is_script and form.get("action") == "undo":
        form["key"] = ""  # the form holds the record that is shown, not the last one
    event, restored = live.take(person, form)
    if not is_script:
        return _redirect(request, f"/label/{live.project.name}/work?person={person}")
    live.worker.wake()
    return JSONResponse(
        {"saved": event.id, "restored": restored, "progress": live.progress(person)}
    )


def settle(request: Request, form: Form) -> Response:
    """Save how a disagreement is settled."""
    live, key = live_project(request), form.get("key", "")
    person = check_person_name(form.get("person", ""))
    label = form.get("label", "")
    if key not in live.project.records:
        raise UsageError("there is no such record in this project", fix="reload the page.")
    labels = live.project.settings.labels
    if label and labels and label not in labels:
        raise UsageError(f"{label[:80]!r} is no label of this project", fix="choose one.")
    event = LabelEvent(
        id=f"{person}:{key}:{utc_now()}",
        key=key,
        action="label" if label else "reject",
        label=label,
        at=utc_now(),
        person=person,
    )
    live.project.save_decision(event)
    return _redirect(request, f"/label/{live.project.name}#disagreements")


def add_records(request: Request, _form: Form) -> Response:
    """Read the project's files again, and add the records that are new."""
    live = live_project(request)
    added = live.project.add_new_records()
    return _redirect(request, f"/label/{live.project.name}?added={added}")


def export(request: Request, form: Form) -> Response:
    """Write the labeled records to a new file."""
    from urllib.parse import quote

    live, home = live_project(request), workbench_of(request).home
    out = read_typed_path(form.get("out", ""))
    if not out.is_absolute():
        raise UsageError(
            f"{str(out)[:200]!r} is no absolute path", fix="write it from its beginning: /home/..."
        )
    target = choose_format(live.project, home, form.get("format") or None)
    done = export_labels(live.project, out, target)
    message = quote(f"{done.records} records to {done.out}")
    return _redirect(request, f"/label/{live.project.name}?exported={message}#export")


def _redirect(request: Request, path: str) -> Response:
    from starlette.responses import RedirectResponse

    return RedirectResponse(f"{request.scope['root_path']}{path}", status_code=303)

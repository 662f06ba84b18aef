"""The data of jobs and files: records as the model sees them, and what a survey finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from cloudft.errors import CloudftError, UsageError
from cloudft.workbench.data_pages import record_list
from cloudft.workbench.data_pages.choices import CHOICE_PARAMETERS, DataFile, DataSet, data_here
from cloudft.workbench.data_pages.records import (
    MAX_RECORD_BYTES,
    ShownRecord,
    find_number,
    has_random_access,
    read_sequentially,
    reading,
    show_line,
)
from cloudft.workbench.data_pages.state import chosen_data, data_state
from cloudft.workbench.data_pages.survey_view import finding_lines, findings_at, view_survey
from cloudft.workbench.data_pages.token_view import view_tokens
from cloudft.workbench.events import stream_events
from cloudft.workbench.forms import Form, form_action
from cloudft.workbench.job_choices import list_choices
from cloudft.workbench.rendering import render_page
from cloudft.workbench.workbench import workbench_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

JOBS_LISTED = 50
WAIT_S = 0.05
"""Seconds that a page waits for the index: a small file is whole by then."""
SURVEY, CANCEL = "/data/survey", "/data/survey/cancel"


def routes() -> list[BaseRoute]:
    """Return the routes of this page."""
    from starlette.routing import Route

    return [
        Route("/data", show_choices),
        Route("/data/records", show_records),
        Route("/data/record", show_record),
        Route("/data/progress", follow_progress),
        Route("/data/scan", scan),
        Route(SURVEY, show_survey, methods=["GET"]),
        Route(SURVEY, form_action(start_survey), methods=["POST"]),
        Route(CANCEL, form_action(cancel_survey), methods=["POST"]),
    ]


def show_choices(request: Request) -> Response:
    """Show what there is to look at: the job file here, jobs with data, a path."""
    state = data_state(request)
    here, problem = None, ""
    try:
        here = data_here(state.folder)
    except CloudftError as error:
        problem = error.message
    known = [one.record for one in list_choices(workbench_of(request).jobs)]
    jobs = [record for record in known if record.manifest["files"]]
    more, jobs = len(jobs) - JOBS_LISTED, jobs[:JOBS_LISTED]
    values = {"here": here, "problem": problem, "jobs": jobs, "more": more, "folder": state.folder}
    return render_page(request, "data.html", {"section": "data", **values})


def show_records(request: Request) -> Response:
    """Show a page of records: from a number on, or what a search finds."""
    data = chosen_data(request)
    file = _file_of(request, data)
    with reading(file):
        listed = _list(request, data, file)
    fields = dict(request.query_params)
    again = urlencode({name: value for name, value in fields.items() if name != "after"})
    values = {"data": data, "file": file, "list": listed, "fields": fields, "again": again}
    return render_page(request, "data_records.html", {"section": "data", **values})


def _list(request: Request, data: DataSet, file: DataFile) -> record_list.RecordList:
    parameters, state = request.query_params, data_state(request)
    query = record_list.query_of(parameters, data)
    first = record_list.read_number(parameters, "from")
    if not has_random_access(file.source):
        if query.is_empty and not parameters.get("code"):
            return record_list.list_sequential(data, file, first)
        raise UsageError(
            "this file is read from its beginning, and not searched here",
            fix=f"convert it: cloudft data convert {file.name} --to converse --out records.jsonl",
        )
    entry = state.indexes.open(file.source.path, WAIT_S)
    if parameters.get("code"):
        survey = state.surveys.find(data)
        lines = finding_lines(survey, file, parameters["code"]) if survey else []
        return record_list.list_lines(data, file, entry, lines)
    if query.is_empty:
        return record_list.list_records(data, file, entry, first)
    cursor = record_list.cursor_of(parameters.get("after", ""))
    return record_list.list_matches(data, file, entry, query, cursor)


def show_record(request: Request) -> Response:
    """Show one record: as it is in the file, as it was read, and as tokens."""
    parameters, data = request.query_params, chosen_data(request)
    file, state = _file_of(request, data), data_state(request)
    with reading(file):
        shown, total = _find_record(request, data, file)
    show_all = parameters.get("all") == "1"
    tokens = None
    if shown.record is not None:
        tokens = view_tokens(data, file, shown, state.tokenizers, all_tokens=show_all)
    survey = state.surveys.find(data)
    values = {
        "data": data,
        "file": file,
        "shown": shown,
        "surveyed": findings_at(data, survey, file, shown) if survey else [],
        "total": total,
        "tokens": tokens,
        "all": show_all,
    }
    return render_page(request, "data_record.html", {"section": "data", **values})


def show_survey(request: Request) -> Response:
    """Show what a survey of the data found, or how far it is, or how to start one."""
    data, surveys = chosen_data(request), data_state(request).surveys
    found = surveys.find(data)
    values = {
        "data": data,
        "file": data.find_file("", ""),
        "view": view_survey(data, found) if found is not None else None,
        "running": surveys.running(data),
        "fields": _choice(request),
    }
    return render_page(request, "data_survey.html", {"section": "data", **values})


def start_survey(request: Request, form: Form) -> Response:
    """Start a survey, and go to its page."""
    data_state(request).surveys.start(chosen_data(request), near="near" in form)
    return _back_to_survey(request)


def cancel_survey(request: Request, _form: Form) -> Response:
    """End the survey of this data, and go to its page."""
    data_state(request).surveys.cancel(chosen_data(request))
    return _back_to_survey(request)


def follow_progress(request: Request) -> Response:
    """Send how far index, tokenizer and survey are, until none of them goes on."""
    data, state = chosen_data(request), data_state(request)
    file = _file_of(request, data)

    def look() -> dict[str, object] | None:
        running = state.surveys.running(data)
        if running is not None and not running.has_ended:
            return {"survey": {"what": running.what, "records": running.records}}
        if state.tokenizers.is_loading():
            return {"tokenizer": {"loading": True}}
        if not has_random_access(file.source):
            return None
        entry = state.indexes.open(file.source.path)
        if entry.is_complete or entry.error:
            return None
        return {"index": {"share": entry.share, "lines": entry.index.line_count}}

    return stream_events(request, look)


def scan(request: Request) -> Response:
    """Search on for a script: return where the next match is, or how far the search is."""
    from starlette.responses import JSONResponse

    data = chosen_data(request)
    file = _file_of(request, data)
    query = record_list.query_of(request.query_params, data)
    cursor = record_list.cursor_of(request.query_params.get("after", ""))
    with reading(file):
        entry = data_state(request).indexes.open(file.source.path)
        listed = record_list.list_matches(data, file, entry, query, cursor)
    found = listed.records[0].line if listed.records else None
    here = ":".join(map(str, cursor))
    return JSONResponse({"found": found, "at": here, "after": listed.after, "share": listed.share})


def _file_of(request: Request, data: DataSet) -> DataFile:
    parameters = request.query_params
    return data.find_file(parameters.get("role", ""), parameters.get("file", ""))


def _find_record(request: Request, data: DataSet, file: DataFile) -> tuple[ShownRecord, int | None]:
    """Return the record that an address names by number or line, and how many there are."""
    parameters = request.query_params
    number = record_list.read_number(parameters, "n")
    if not has_random_access(file.source):
        if parameters.get("line"):
            line = record_list.read_number(parameters, "line")
            number = find_number(data, file, line) or number
        records, _ = read_sequentially(data, file, number, 1)
        if not records:
            raise UsageError(f"there is no record {number:,}", fix="count from 1.")
        return records[0], None
    number = record_list.read_number(parameters, "line", number)
    entry = data_state(request).indexes.open(file.source.path, WAIT_S)
    lines = entry.index.read_lines(number, 1, MAX_RECORD_BYTES)
    if not lines:
        raise UsageError(f"there is no line {number:,}", fix="count from 1.")
    return show_line(lines[0], data, file), entry.index.line_count if entry.is_complete else None


def _choice(request: Request) -> dict[str, Any]:
    """Return the parameters of an address that choose the data."""
    found = request.query_params
    return {name: found[name] for name in CHOICE_PARAMETERS if found.get(name)}


def _back_to_survey(request: Request) -> Response:
    from starlette.responses import RedirectResponse

    address = f"{request.scope['root_path']}{SURVEY}?{urlencode(_choice(request))}"
    return RedirectResponse(address, status_code=303)

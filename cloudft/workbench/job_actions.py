"""What a page can do with a job: stop, resume, export. Each says first what it will do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.backends import DEFAULT_BACKEND, backend_class
from cloudft.backends.capabilities import SupportsExport
from cloudft.backends.export_options import DTYPES, RUNTIME_FORMATS
from cloudft.errors import JobStateConflict, UsageError
from cloudft.jobs import lifecycle
from cloudft.jobs.lifecycle import backend_for
from cloudft.workbench.forms import Form
from cloudft.workbench.job_states import KnownJob
from cloudft.workbench.job_view import list_checkpoints
from cloudft.workbench.text_format import format_known_cost

if TYPE_CHECKING:
    from cloudft.workbench.workbench import Workbench

ACTIONS = ("stop", "resume", "export")


@dataclass(frozen=True)
class Action:
    """An action as its page describes it. `folder` is where an export goes unless changed."""

    name: str
    job: str
    title: str
    effects: tuple[str, ...]
    button: str
    is_danger: bool = False
    folder: str = ""
    dtypes: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()


def describe_action(known: KnownJob, name: str) -> Action:
    """Return what an action will do to a job in its state. Raise UsageError."""
    describe = {"stop": _describe_stop, "resume": _describe_resume, "export": _describe_export}
    return describe[name](known)


def run_action(workbench: Workbench, known: KnownJob, name: str, form: Form) -> None:
    """Do it. Raise what `stop`, `resume` and `export` of the command line raise."""
    record = known.record
    if name == "stop":
        lifecycle.stop(record, backend_for(record, workbench.home))
    elif name == "resume":
        lifecycle.resume(record, backend_for(record, workbench.home))
    elif name == "export":
        if known.status != "Completed":
            raise JobStateConflict(
                f"{record.id} is {known.status}: it has left no model",
                fix="wait until it has completed.",
            )
        workbench.exports.start(
            record, form.get("folder", ""), form.get("dtype", DTYPES[0]), form.get("runtime", "")
        )
    else:
        raise UsageError(f"there is no action {name[:40]}", fix=f"use one of {ACTIONS}.")
    workbench.jobs.look_at_clouds([record], now=True)


def _describe_stop(known: KnownJob) -> Action:
    record = known.record
    effects = ["The job stops after the step that it is taking."]
    if record.backend == DEFAULT_BACKEND:
        effects.append("It saves a checkpoint first; resume continues from it.")
    else:
        effects.append(f"It runs on {record.backend}: what it has used until then is billed.")
        effects.append("Where the service keeps no checkpoint, training begins again later.")
    return Action("stop", record.id, f"Stop {record.id}?", tuple(effects), "Stop", is_danger=True)


def _describe_resume(known: KnownJob) -> Action:
    record = known.record
    checkpoints = list_checkpoints(record.folder)
    begin = checkpoints[0].name if checkpoints else "the beginning: no checkpoint is here"
    effects = [f"Training continues from {begin}."]
    if record.backend != DEFAULT_BACKEND:
        cost = format_known_cost(known) or "not known"
        effects = [
            f"Training continues on {record.backend} from its last checkpoint, as a new attempt.",
            f"It is billed. The estimate for the whole job was: {cost}.",
        ]
    return Action("resume", record.id, f"Resume {record.id}?", tuple(effects), "Resume")


def _describe_export(known: KnownJob) -> Action:
    record = known.record
    backend = backend_class(record.backend)
    if not issubclass(backend, SupportsExport):
        raise UsageError(
            f"a job on {record.backend} has no weights to export",
            fix="export a job that was trained on this machine or on SageMaker.",
        )
    effects = (
        "The tuned model is written to a new folder on this machine, some minutes of work.",
        "What the chosen runtime would read otherwise is refused.",
        "It is loaded again and must answer as the tuned model does; else nothing is written.",
        "The job is not changed.",
    )
    return Action(
        "export",
        record.id,
        f"Export {record.id}?",
        effects,
        "Export",
        folder=str(Path.home() / f"{record.name[:80]}-tuned"),
        dtypes=DTYPES,
        runtimes=tuple(RUNTIME_FORMATS),
    )

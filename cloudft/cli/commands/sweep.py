"""sweep: search the hyperparameters of a job over many short trials on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.command import command
from cloudft.cli.job_file import load_job_file
from cloudft.cli.options import (
    Console,
    aws_options,
    console_options,
    job_file_argument,
    spec_options,
)
from cloudft.cli.param_types import MINUTES, TRIALS
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.local.backend import LocalBackend
    from cloudft.spec.load import LoadedJob
    from cloudft.sweep.folder import SweepFolder
    from cloudft.sweep.result import SweepResult
    from cloudft.sweep.trial_job import TrialFactory


@command(
    "sweep",
    epilog="\b\nExamples:\n  cloudft sweep --dry-run\n  cloudft sweep router.yaml --trials 30\n"
    "  cloudft sweep --budget-minutes 60 --write best.yaml\n  cloudft sweep -o json",
)
@job_file_argument
@spec_options
@click.option("--trials", type=TRIALS, help="Overrides sweep.trials.")
@click.option(
    "--budget-minutes",
    type=MINUTES,
    help="Overrides sweep.budget_minutes: training time after which no trial is started.",
)
@click.option(
    "--write",
    "write_to",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the job file with the best values here; comments and order stay.",
)
@click.option("--keep-all", is_flag=True, help="Keep the models of all trials, not the best alone.")
@click.option("--dry-run", is_flag=True, help="Print the space and the plan, and train nothing.")
@aws_options
@console_options
def sweep_command(
    path: Path | None,
    flags: dict[str, str],
    trials: int | None,
    budget_minutes: float | None,
    write_to: Path | None,
    keep_all: bool,
    dry_run: bool,
    console: Console,
) -> int:
    """Search the space of the job file's section `sweep`, by the validation loss.

    The job file's own values are the first trial. Trials that are behind are stopped early; the
    best and the job file's own values are trained again with further seeds. Test data are never
    used. The same command continues a sweep that was interrupted, or one with more trials.
    """
    from cloudft.backends import start_early
    from cloudft.cli import sweep_text

    more = {"sweep.trials": trials, "sweep.budget_minutes": budget_minutes}
    flags = flags | {name: str(value) for name, value in more.items() if value is not None}
    with start_early("local"):
        job = load_job_file(path, flags)
        factory, backend, folder = _prepare(job, console)
        if dry_run:
            _print_plan(factory, folder, console)
            return 0
        result = _run(factory, backend, folder, keep_all, console)
    files = _write_files(job, result, folder, write_to, console)
    value: dict[str, Any] = {**result.to_json(), "files": files}
    console.print_result(value, "\n".join(sweep_text.result_lines(result, files, folder.path)))
    return 0


def _prepare(job: LoadedJob, console: Console) -> tuple[TrialFactory, LocalBackend, SweepFolder]:
    """Check the job and stage its data once, for all trials."""
    from cloudft.backends.local.backend import LocalBackend
    from cloudft.cli.output import print_findings
    from cloudft.cli.progress import run_observer
    from cloudft.jobs import prepare
    from cloudft.sweep.plan import plan_sweep, require_space

    require_space(job)
    home = Home.from_environ()
    backend = LocalBackend(home)
    with run_observer(console) as observer:
        staged, warnings = prepare.prepare(job, backend, home, observer)
    print_findings(warnings)
    factory, folder = plan_sweep(staged, backend, home)
    return factory, backend, folder


def _run(
    factory: TrialFactory,
    backend: LocalBackend,
    folder: SweepFolder,
    keep_all: bool,
    console: Console,
) -> SweepResult:
    """Run the sweep, with a line for each trial."""
    from cloudft.backends.capabilities import warm_start
    from cloudft.cli import sweep_text
    from cloudft.sweep.plan import trials_at_once
    from cloudft.sweep.run import Sweep, SweepEvents

    job = factory.staged.job
    assert job.spec.sweep is not None
    parallel = trials_at_once(factory)
    events = SweepEvents(
        on_trial=lambda record, result: console.note(sweep_text.trial_line(record, result)),
        on_start=lambda record: console.debug(f"training {record.job}"),
    )
    with folder.lock(), warm_start(backend, job), backend.share_cores(parallel):
        sweep = Sweep(
            factory,
            backend,
            backend.home,
            folder,
            job.spec.sweep,
            events,
            keep_all=keep_all,
            parallel=parallel,
        )
        console.note(sweep_text.start_line(factory, folder))
        try:
            return sweep.run()
        except KeyboardInterrupt:
            console.note("nothing is lost: the same command continues the sweep.")
            raise


def _write_files(
    job: LoadedJob,
    result: SweepResult,
    folder: SweepFolder,
    write_to: Path | None,
    console: Console,
) -> dict[str, str]:
    """Write table, picture and the job file with the best values; return their paths by kind."""
    from cloudft.cli.sweep_plot import draw_sweep
    from cloudft.errors import UsageError
    from cloudft.sweep.best_job import write_best_job
    from cloudft.sweep.folder import BEST_FILE, CSV_FILE, PICTURE_FILE
    from cloudft.sweep.table import write_csv

    csv, picture, best = (folder.path / name for name in (CSV_FILE, PICTURE_FILE, BEST_FILE))
    write_csv(result, csv)
    files = {"table": str(csv)}
    try:
        draw_sweep(result, picture)
        files["picture"] = str(picture)
    except UsageError as error:  # the numbers remain
        console.note(f"no picture: {error.message}")
    if write_to is not None:
        files["jobFile"] = str(write_best_job(job, result.changes, write_to))
    elif result.changes and job.path is not None:
        try:
            files["jobFile"] = str(write_best_job(job, result.changes, best))
        except UsageError as error:
            console.note(f"{error.message}\n  fix: {error.fix}")
    return files


def _print_plan(factory: TrialFactory, folder: SweepFolder, console: Console) -> None:
    from cloudft.cli import sweep_text
    from cloudft.sweep.plan import describe_plan

    value = describe_plan(factory, folder)
    console.print_result(value, "\n".join(sweep_text.plan_lines(value)))

"""Survey data in a process of its own: `python -m cloudft.jobs.data_survey`.

It does what `data stats`, `data dedupe`, `data leakage` and the data part of `check` do, over each
file once or twice, and needs their memory, which the process gives back when it ends. Standard
input has a SurveyRequest as JSON. Standard output has a line `{"progress": {"what", "records"}}`
now and then, at last `{"survey": ...}` (a Survey) or `{"error": {"message", "fix"}}`.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import orjson

from cloudft.backends import DEFAULT_BACKEND, make_backend
from cloudft.backends.capabilities import SupportsChatTemplate
from cloudft.data.analysis.duplicates import Duplicate, find_duplicates
from cloudft.data.analysis.leakage import LeakageIndex
from cloudft.data.analysis.stats import DatasetStats
from cloudft.data.checks.check import check_data
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.findings import Findings
from cloudft.data.records import PROGRESS_INTERVAL, LocatedRecord
from cloudft.data.sources.source_files import SourceFile
from cloudft.errors import CloudftError
from cloudft.jobs.input_files import InputFiles, count_tokens
from cloudft.spec.load import LoadedJob, load_job, load_spec
from cloudft.spec.model import DataSpec
from cloudft.storage.home import Home
from cloudft.types import to_json

MAX_LISTED = 200
"""Duplicates and leaks of a role that are listed; all are counted."""
MAX_NEAR_RECORDS = 300_000
"""Records up to which near duplicates are searched: they take 2 KB of memory a record."""
Progress = Callable[[str, int], object]
"""Called with what is done, and with the number of records that were read."""


class SurveyFile(msgspec.Struct):
    """One file, with its names in messages and its type."""

    role: str
    path: str
    name: str
    type: str


class SurveyRequest(msgspec.Struct, rename="camel"):
    """What to survey. A job is `spec`, or the file `job_file`; `near` is a similarity."""

    files: list[SurveyFile]
    columns: dict[str, str] = {}
    target: str = ""
    job_file: str | None = None
    spec: dict[str, Any] | None = None
    near: float | None = None


class RepeatedRecords(msgspec.Struct):
    """How many records repeat an earlier one, and the first of them (Duplicate, Leak).

    Near duplicates count where they were searched.
    """

    count: int = 0
    first: list[dict[str, Any]] = []


class Survey(msgspec.Struct, rename="camel"):
    """What was found. `stats` has the JSON values of DatasetStats by role."""

    stats: dict[str, dict[str, Any]]
    findings: list[dict[str, Any]]
    duplicates: dict[str, RepeatedRecords]
    leaks: dict[str, RepeatedRecords]
    notes: list[str] = []


def survey_data(request: SurveyRequest, progress: Progress) -> Survey:
    """Return what is to be known of some files. Raise CloudftError."""
    return _Surveyor(request, progress).run()


class _Surveyor:
    """One survey."""

    def __init__(self, request: SurveyRequest, progress: Progress) -> None:
        self._request, self._progress = request, progress
        self._job = _load_job(request)
        files: dict[str, list[SourceFile]] = {}
        for file in request.files:
            source = SourceFile(Path(file.path), file.name, file.name, file.type)
            files.setdefault(file.role, []).append(source)
        columns = dict(request.columns)
        self._inputs = InputFiles(self._job, files, columns, Findings(), request.target)
        self._notes: list[str] = []

    def run(self) -> Survey:
        """Return the survey."""
        findings = self._check()
        duplicates, stats = {}, {}
        for role in self._inputs.files:
            duplicates[role] = RepeatedRecords()
            stats[role] = DatasetStats()
            stats[role].add_records(self._without_repeats(role, duplicates[role]))
        self._count_tokens(stats)
        return Survey(
            {role: one.to_json() for role, one in stats.items()},
            findings,
            duplicates,
            self._find_leaks(),
            self._notes,
        )

    def _check(self) -> list[dict[str, Any]]:
        """Return the findings of `check` about the data, in the files' names."""
        target = self._inputs.target
        if not target:  # nothing can be trained on: reading says why
            for role in self._inputs.files:
                deque(self._inputs.records(role, self._report("checking")), maxlen=0)
            return list(to_json(self._inputs.findings.all()))
        limits = None
        if self._job is not None:
            kind = self._job.spec.customization_type
            limits = DatasetLimits.for_model(self._job.model, kind, 1)
        report = check_data(
            self._data_spec(),
            format=target,
            base_dir=Path.cwd(),
            progress=self._report("checking"),
            limits=limits,
        )
        names = {}
        for file in self._request.files:
            here = Path.cwd()
            path = Path(file.path)
            shown = path.relative_to(here) if path.is_relative_to(here) else path
            names[str(shown)] = file.name
        found = [to_json(finding) for finding in report.findings]
        return [{**one, "file": names.get(one["file"] or "", one["file"])} for one in found]

    def _data_spec(self) -> DataSpec:
        """Return the data of a job that has these files, each by its path."""
        paths: dict[str, tuple[str, ...]] = {}
        for file in self._request.files:
            role = file.role if file.role in ("train", "test") else "validation"
            role = "train" if file.role == "data" else role
            paths[role] = (*paths.get(role, ()), file.path)
        values: dict[str, Any] = {"train": paths.pop("train", ()), **paths}
        if not values["train"]:  # held-out data alone is checked as if it were trained on
            values = {"train": paths.get("test") or paths.get("validation", ())}
        return DataSpec.model_validate({**values, "columns": self._request.columns})

    def _without_repeats(self, role: str, repeats: RepeatedRecords) -> Iterator[LocatedRecord]:
        """Yield every record of a role, and note those that repeat an earlier one."""
        records = self._inputs.records(role, self._report(f"reading {role}"), Findings())
        for located, duplicate in find_duplicates(records, self._near(role)):
            if duplicate is not None:
                _note_repeat(repeats, duplicate)
            yield located

    def _near(self, role: str) -> float | None:
        """Return the similarity of near duplicates; None where there are too many records."""
        near = self._request.near
        if near is None:
            return None
        records = self._inputs.records(role, None, Findings())
        if next(islice(records, MAX_NEAR_RECORDS, None), None) is None:
            return near
        self._notes.append(
            f"{role} has more than {MAX_NEAR_RECORDS:,} records: near duplicates were not searched;"
            " `cloudft data dedupe --near` does"
        )
        return None

    def _count_tokens(self, stats: Mapping[str, DatasetStats]) -> None:
        """Count tokens where the tokenizer of the trained model is on this machine."""
        local = make_backend(DEFAULT_BACKEND, Home.from_environ())
        assert isinstance(local, SupportsChatTemplate)
        if self._job is None or not local.has_template(self._job):
            return
        for role, one in stats.items():
            report = self._report(f"counting tokens of {role}")
            try:
                count_tokens(self._inputs, self._job, role, one, report, lambda _: None)
            except CloudftError as error:
                self._notes.append(f"tokens of {role} are estimated: {error.message}")

    def _find_leaks(self) -> dict[str, RepeatedRecords]:
        """Return the held-out records of each role that the training data has too."""
        held_out = [role for role in self._inputs.files if role not in ("train", "data")]
        if "train" not in self._inputs.files or not held_out:
            return {}
        train = self._inputs.records("train", self._report("reading train for leaks"), Findings())
        index = LeakageIndex(train)
        leaks = {}
        for role in held_out:
            report = self._report(f"comparing {role}")
            leaks[role] = RepeatedRecords()
            for leak in index.find_leaks(role, self._inputs.records(role, report, Findings())):
                leaks[role].count += 1
                if len(leaks[role].first) < MAX_LISTED:
                    leaks[role].first.append(to_json(leak))
        return leaks

    def _report(self, what: str) -> Callable[[int], None]:
        def report(records: int) -> None:
            if records % PROGRESS_INTERVAL == 0:
                self._progress(what, records)

        self._progress(what, 0)
        return report


def _note_repeat(repeats: RepeatedRecords, duplicate: Duplicate) -> None:
    repeats.count += 1
    if len(repeats.first) < MAX_LISTED:
        repeats.first.append(to_json(duplicate))


def _load_job(request: SurveyRequest) -> LoadedJob | None:
    if request.job_file is not None:
        return load_job(Path(request.job_file), environ=os.environ)
    return None if request.spec is None else load_spec(request.spec)


def main() -> int:
    """Survey what standard input says."""
    stdout = sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints is no reply

    def write(value: Mapping[str, Any]) -> None:
        stdout.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
        stdout.flush()

    request = msgspec.json.decode(sys.stdin.buffer.read(), type=SurveyRequest)
    try:
        found = survey_data(
            request, lambda what, records: write({"progress": {"what": what, "records": records}})
        )
    except CloudftError as error:
        write({"error": {"message": error.message, "fix": error.fix}})
        return 1
    stdout.write(b'{"survey": ' + msgspec.json.encode(found) + b"}\n")
    stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

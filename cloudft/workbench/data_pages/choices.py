"""Find the data that a page shows: of a job, of the job file here, or of a path."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from cloudft.backends.trained_model import trained_model
from cloudft.data.detect import guess_target
from cloudft.data.findings import Findings
from cloudft.data.sources.source_files import SourceFile, SourceResolver, file_type_of
from cloudft.errors import CloudftError, UsageError
from cloudft.evaluate.held_out import find_staged_file
from cloudft.spec.load import LoadedJob, load_job, load_spec
from cloudft.spec.model import DataSpec
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, Store
from cloudft.types import Finding, role_field

JOB_FILE = "cloudft.yaml"
HERE, DATA_ROLE = "here", "data"
CHOICE_PARAMETERS = ("job", HERE, "path", "role", "file", "model")
"""The parameters of an address that say which file is shown, and with whose tokenizer."""


@dataclass(frozen=True)
class DataFile:
    """One file that can be shown. `query` has the parameters that name it in addresses."""

    role: str
    source: SourceFile
    query: Mapping[str, str]

    @property
    def name(self) -> str:
        """Return the file's name for people."""
        return self.source.display_name

    def parameters(self, **more: object) -> str:
        """Return the query of an address: the file, and `more`; empty values are left out."""
        values = {**self.query, **{key: str(value) for key, value in more.items()}}
        return urlencode({key: value for key, value in values.items() if value != ""})


@dataclass(frozen=True)
class DataSet:
    """The files of one choice by role, what they are read for, and whose tokenizer shows them.

    `target` is the format that the records are staged in, "" if unknown. `findings` say what could
    not be resolved. `spec` has the settings of the data of a job.
    """

    title: str
    files: tuple[DataFile, ...]
    job: LoadedJob | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    findings: tuple[Finding, ...] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    spec: DataSpec | None = None

    def sources(self) -> dict[str, list[SourceFile]]:
        """Return the files by role."""
        found: dict[str, list[SourceFile]] = {}
        for file in self.files:
            found.setdefault(file.role, []).append(file.source)
        return found

    def find_file(self, role: str, number: str) -> DataFile:
        """Return one of the files. Raise UsageError."""
        of_role = [file for file in self.files if not role or file.role == role]
        index = int(number) if number.isdecimal() else 0
        if index >= len(of_role):
            what = self.findings[0].message if self.findings else f"{self.title} has no such file"
            raise UsageError(what, fix="choose a file of the list on the page Data.")
        return of_role[index]

    @property
    def stand_in(self) -> str:
        """Return the model whose tokenizer shows the records in place of the job's own, or ""."""
        model = trained_model(self.job) if self.job else None
        assert self.job is None or self.job.model is not None
        if model is None or self.job is None or model.alias == self.job.model.alias:
            return ""
        return model.alias


def data_of_job(record: JobRecord, home: Home) -> DataSet:
    """Return the staged data of a job; what was removed from this machine is a finding."""
    files, findings = [], []
    for role in record.manifest["files"]:
        path = find_staged_file(record, home, role)
        query = {"job": record.id, "role": role}
        if path is None:
            message = f"the staged {role} data of {record.id} is not on this machine any more"
            findings.append(Finding("note", "NotHere", message))
        else:
            files.append(DataFile(role, _source_of(path, f"{role}.jsonl"), query))
    try:
        job = load_spec(dict(record.spec))
    except CloudftError:  # of a version that had other fields: shown without tokens
        job = None
    target = str(record.manifest.get("format", ""))
    title = record.id
    return DataSet(title, tuple(files), job, {}, target, tuple(findings), {"job": record.id})


def data_here(folder: Path) -> DataSet | None:
    """Return the data of the job file in a folder; None without one. Raise SpecError."""
    path = folder / JOB_FILE
    if not path.is_file():
        return None
    job = load_job(path, environ=os.environ)
    data, findings = job.spec.data, Findings()
    resolver = SourceResolver(job.base_dir, findings)
    files = []
    for role, patterns in {"train": data.train, **data.held_out_files}.items():
        local = [pattern for pattern in patterns if not pattern.startswith("s3://")]
        for number, source in enumerate(resolver.resolve(role_field(role), local)):
            query = {HERE: "1", "role": role, "file": str(number)}
            files.append(DataFile(role, source, query))
    return DataSet(
        f"{JOB_FILE} ({job.spec.name})",
        tuple(files),
        job,
        {str(name): column for name, column in data.columns.items()},
        job.model.formats[job.spec.customization_type],
        findings.all(),
        {HERE: "1"},
        data,
    )


def data_at(text: str, folder: Path) -> DataSet:
    """Return the data at a path that a user typed, relative to `folder`: a file, or a data folder.

    Raise UsageError unless it is the user's own, and of a type that cloudft reads.
    """
    path = Path(os.path.abspath(folder / os.path.expanduser(text)))  # noqa: PTH100, PTH111
    _require_own(path, text)
    findings = Findings()
    sources = SourceResolver(folder, findings).resolve("path", [str(path)])
    files = tuple(
        DataFile(DATA_ROLE, source, {"path": str(path), "file": str(number)})
        for number, source in enumerate(sources)
    )
    if not files:
        first = next(iter(findings.all()), None)
        message = f"{text}: {first.message}" if first else f"{text} has no data"
        raise UsageError(message, fix=(first and first.fix) or None)
    target = guess_target(files[0].source, {})
    query = {"path": str(path)}
    return DataSet(str(path), files, target=target, findings=findings.all(), query=query)


def _require_own(path: Path, text: str) -> None:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no path"
        raise UsageError(f"{text} can't be read: {reason.lower()}", fix="name a file.") from error
    is_file = stat.S_ISREG(status.st_mode)
    if not is_file and not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{text} is not a regular file", fix="name a file of data.")
    if status.st_uid != os.geteuid():
        raise UsageError(
            f"{text} is a file of another user", fix="copy it into a folder of your own."
        )
    if is_file and file_type_of(path) is None:
        raise UsageError(
            f"files ending in {path.suffix or 'nothing'} can't be read",
            fix="name a file of data: .jsonl, .json, .csv, .tsv, .parquet, .arrow, .txt or .md.",
        )


def _source_of(path: Path, name: str) -> SourceFile:
    return SourceFile(path, name, name, "jsonl")


def choose_data(parameters: Mapping[str, Any], store: Store, home: Home, folder: Path) -> DataSet:
    """Return the data that an address names. Raise UsageError, JobNotFound, SpecError."""
    chosen: DataSet | None = None
    if parameters.get("job"):
        chosen = data_of_job(store.get(str(parameters["job"])), home)
    elif parameters.get("path"):
        chosen = data_at(str(parameters["path"]), folder)
        model_of = str(parameters.get("model", "")) or HERE
        chosen = with_model_of(chosen, model_of, store, home, folder)
    elif parameters.get(HERE):
        chosen = data_here(folder)
    if chosen is None:
        raise UsageError("there is no data to show", fix="choose it on the page Data.")
    return chosen


def with_model_of(data: DataSet, model_of: str, store: Store, home: Home, folder: Path) -> DataSet:
    """Return data with the model of a job (its id), or of the job file here (`here`).

    It stays as it is without such a job, and if it is of another kind than that job's data.
    """
    try:
        other = data_here(folder) if model_of == HERE else data_of_job(store.get(model_of), home)
    except CloudftError:
        return data
    if other is None or other.job is None:
        return data
    columns = other.columns if model_of == HERE else {}
    if data.target and data.target != other.target:  # of another kind than that job's
        return data
    return replace(data, job=other.job, columns=columns, target=other.target)

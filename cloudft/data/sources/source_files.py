"""Find the files that `data.train` and its like name: paths, folders, globs, lists of them, S3."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import IO, cast

from cloudft.data.findings import Findings
from cloudft.data.sources.dataset_folder import (
    BadDatasetFolder,
    is_about_data,
    recognize_folder,
)
from cloudft.data.sources.gzip_stream import GzipStream

FILE_TYPES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "text",
    ".md": "text",
}
"""The file types that can be read, by the end of the name in lower case."""
SPLITS = {"data.validation": "validation", "data.test": "test"}
SPLITS |= {"--validation": "validation", "--test": "test"}
"""The split that a field or option takes from a data set's folder; others take `train`."""


def _split_of_field(field: str) -> str:
    """Return the split that a field takes; each of several validation sets takes the same."""
    return SPLITS.get("data.validation" if field.startswith("data.validation.") else field, "train")


LOG_SUFFIX = ".json.gz"
"""End of the names of Bedrock's invocation logs: gzipped, one record a line."""
_LOG_BODY = re.compile(r".+_(?:input|output)\.json\.gz")


def file_type_of(path: PurePath) -> str | None:
    """Return the type of a file by its name; None for one that can't be read."""
    if path.name.lower().endswith(LOG_SUFFIX):
        return "jsonl"
    return FILE_TYPES.get(path.suffix.lower())


def is_log_body(path: PurePath) -> bool:
    """Return whether a file is beside invocation logs: one body above 100 KB, and no record.

    Bedrock user guide, "Monitor model invocation": such bodies are objects of their own, under
    `data/`.
    """
    return path.parent.name == "data" and bool(_LOG_BODY.fullmatch(path.name))


@dataclass(frozen=True)
class SourceFile:
    """One file to read. `display_name` is its name in messages, `name` the one in the manifest."""

    path: Path
    display_name: str
    name: str
    file_type: str

    def open(self) -> IO[bytes]:
        """Open its bytes, unbuffered; those of a log unpacked. Raises OSError."""
        if self.is_packed:
            return cast(IO[bytes], GzipStream(self.path.open("rb")))
        return self.path.open("rb", buffering=0)

    @property
    def is_packed(self) -> bool:
        """Return whether the file is gzipped, so that it is read from its beginning alone."""
        return self.path.name.lower().endswith(LOG_SUFFIX)


@dataclass(frozen=True)
class S3Object(SourceFile):
    """An object in S3, read as a stream. `display_name` and `name` are its URI; `path` its key."""

    def open(self) -> IO[bytes]:
        """Open its bytes. Raises what aws/s3.py raises when S3 refuses or can't be reached."""
        from cloudft.aws.s3 import ObjectStream

        stream = ObjectStream(self.display_name)
        return cast(IO[bytes], GzipStream(stream) if self.is_packed else stream)


@dataclass
class SourceResolver:
    """Resolve a field's paths to files. A file that is named twice is an error."""

    base_dir: Path
    findings: Findings
    _named_by: dict[str, str] = field(default_factory=dict)

    def resolve(
        self, field: str, patterns: Sequence[str], split: str | None = None
    ) -> list[SourceFile]:
        """Return the files that a field names, in order; those of a folder or a glob sorted.

        Of a data set's folder it is the files of one split, by default that of the field.
        """
        split = split or _split_of_field(field)
        files: list[SourceFile] = []
        for pattern in patterns:
            if pattern.startswith("s3://"):
                files += self._resolve_s3(field, pattern)
                continue
            try:
                sources = (
                    self._make_source(field, path) for path in self._paths(field, pattern, split)
                )
                files += [source for source in sources if source is not None]
            except OSError as exc:  # a folder on the way that can't be entered
                self._add_unreadable(field, exc)
        return files

    def _resolve_s3(self, field: str, uri: str) -> Iterator[SourceFile]:
        """Yield the objects that an S3 URI, prefix or glob matches. Raises what aws/s3.py does."""
        from cloudft.aws.s3 import list_object_uris

        unsupported, has_objects = [], False
        for name in list_object_uris(uri):
            file_type = file_type_of(Path(name))
            has_objects = True
            if is_log_body(Path(name)):
                continue
            if file_type in (None, "parquet", "arrow"):  # Parquet is read from its end
                unsupported.append(name)
            elif (problem := self._check_named_once(field, name)) is not None:
                code, message, fix = problem
                self.findings.add(code, message, fix, file=name, field=field)
            else:
                yield S3Object(Path(name), name, name, file_type)
        if not has_objects:
            fix = f"`aws s3 ls {shlex.quote(uri.rpartition('/')[0] + '/')}` lists the objects"
            self.findings.add("FileNotFound", f"no object {uri}", fix, file=uri, field=field)
        if unsupported:
            first = unsupported[0]
            fix = f"download it first: `aws s3 cp {shlex.quote(first)} data/`"
            message = f"{len(unsupported)} of the objects can't be read as a stream: {first}"
            self.findings.add("UnsupportedFileType", message, fix, file=first, field=field)

    def _paths(self, field: str, pattern: str, split: str) -> Iterator[Path]:
        """Yield the plain files that one path, folder or glob matches."""
        path = self.base_dir / _expand_user(pattern)
        matches = [path] if os.path.lexists(path) else self._glob(pattern)
        if not matches:
            self._add_missing(field, pattern, path)
        for match in matches:
            if match.is_dir():
                shown = Path(pattern) if match == path else match
                yield from self._files_below(field, match, shown, split)
            else:
                yield match

    def _glob(self, pattern: str) -> list[Path]:
        if not glob.has_magic(pattern):
            return []
        expanded = _expand_user(pattern)
        names = glob.glob(expanded, root_dir=self.base_dir, recursive=True)  # noqa: PTH207
        return [self.base_dir / name for name in sorted(names)]

    def _add_missing(self, field: str, pattern: str, path: Path) -> None:
        what = "no file matches" if glob.has_magic(pattern) else "no file"
        fix = f"paths are relative to the job file's folder, {_display(self.base_dir)}"
        if os.path.isabs(_expand_user(pattern)):  # noqa: PTH117
            fix = "check the spelling of its path"
        file = _display(path)
        self.findings.add("FileNotFound", f"{what} {pattern}", fix, file=file, field=field)

    def _files_below(self, field: str, folder: Path, named: Path, split: str) -> Iterator[Path]:
        """Yield the data files below a folder, sorted; hidden ones and other types left out.

        Of a data set's folder these are the files of one split.
        """
        files = self._list_files(field, folder)
        shown = _display(folder)
        try:
            dataset = recognize_folder(folder, files, named)
            chosen, message = dataset.choose(split, field, named) if dataset else (files, "")
        except BadDatasetFolder as bad:
            self.findings.add("NoSplit", bad.message, bad.fix, file=shown, field=field)
            return
        if dataset is not None:
            self.findings.add("DatasetFolder", message, "", file=shown, severity="note")
        else:
            chosen = self._without_others(field, shown, files)
        if not chosen and not self.findings.count_errors(shown):
            message, fix = f"no data file in the folder {shown}", _list_types()
            self.findings.add("NoRecords", message, fix, file=shown, field=field)
        yield from (folder / path for path in chosen)

    def _list_files(self, field: str, folder: Path) -> list[Path]:
        """Return the files below a folder that are not hidden, relative to it, sorted."""
        files: list[Path] = []

        def add_unreadable(error: OSError) -> None:
            self._add_unreadable(field, error)

        for root, folders, names in os.walk(folder, onerror=add_unreadable):
            folders[:] = [name for name in folders if not name.startswith(".")]
            files += [Path(root, n).relative_to(folder) for n in names if not n.startswith(".")]
        return sorted(files, key=lambda path: path.parts)

    def _without_others(self, field: str, shown: str, files: Sequence[Path]) -> list[Path]:
        """Return the files of a known type, without those that are about the data."""
        types = {path: None if is_log_body(path) else file_type_of(path) for path in files}
        # A README beside tables is about them; in a folder of texts it is one of these.
        has_tables = any(type not in (None, "text") for type in types.values())
        data = [p for p in files if types[p] and not (has_tables and is_about_data(p))]
        others = [str(path) for path in files if path not in data]
        if others:
            self._add_ignored(field, shown, others)
        return data

    def _add_unreadable(self, field: str, error: OSError) -> None:
        file = _display(Path(error.filename or self.base_dir))
        fix = "make it readable"
        self.findings.add("FileUnreadable", f"{error.strerror}", fix, file=file, field=field)

    def _add_ignored(self, field: str, folder: str, names: list[str]) -> None:
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        count = "1 file that holds" if len(names) == 1 else f"{len(names)} files that hold"
        message = f"{count} no data left out: {listed}"
        self.findings.add(
            "IgnoredFiles", message, _list_types(), file=folder, field=field, severity="warning"
        )

    def _make_source(self, field: str, path: Path) -> SourceFile | None:
        """Return the file if it can be tried; None, with an error, if not."""
        path = Path(os.path.abspath(path))  # noqa: PTH100  (resolve would follow links)
        shown, file_type = _display(path), file_type_of(path)
        problem = self._check_file(field, path)
        if problem is not None or file_type is None:
            code, message, fix = problem or _unsupported_type(path)
            self.findings.add(code, message, fix, file=shown, field=field)
            return None
        # Relative names keep the manifest the same on another machine.
        is_below = path.is_relative_to(self.base_dir)
        name = str(path.relative_to(self.base_dir) if is_below else path)
        return SourceFile(path, shown, name, file_type)

    def _check_file(self, field: str, path: Path) -> tuple[str, str, str] | None:
        """Return code, message and remedy if a path is no file or is named twice, else None."""
        if not path.is_file():
            message = "not a plain file" if path.exists() else "a link to nothing"
            return "FileUnreadable", message, "name a file"
        return self._check_named_once(field, os.path.realpath(path))

    def _check_named_once(self, field: str, real: str) -> tuple[str, str, str] | None:
        if real in self._named_by:
            message = f"named twice: by {self._named_by[real]} and by {field}"
            return "FileTwice", message, "name it once; to weigh data, use data.mix"
        self._named_by[real] = field
        return None


def _unsupported_type(path: Path) -> tuple[str, str, str]:
    message = f"files ending in {path.suffix or 'nothing'} can't be read"
    return "UnsupportedFileType", message, _list_types()


def _expand_user(pattern: str) -> str:
    return os.path.expanduser(pattern)  # noqa: PTH111  (Path.expanduser raises for ~nobody)


def _display(path: Path) -> str:
    """Return a path as a person would type it: relative when it is below the current folder."""
    path = Path(os.path.abspath(path))  # noqa: PTH100
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _list_types() -> str:
    return f"supported are {', '.join(FILE_TYPES)} (unpack archives first)"

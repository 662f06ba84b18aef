"""The words of `data.train` and its like as files: paths, folders, globs, lists of them."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from cloudft.data.findings import Findings

FILE_TYPES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
}
"""What is read, by the end of the name in lower case."""


@dataclass(frozen=True)
class SourceFile:
    """One file to read. `shown` is how messages name it, `name` how the manifest does."""

    path: Path
    display_name: str
    name: str
    file_type: str

    def open(self) -> IO[bytes]:
        """Its bytes, unbuffered. Raises OSError."""
        return self.path.open("rb", buffering=0)


@dataclass(frozen=True)
class S3Object(SourceFile):
    """An object of S3, read as a stream. `shown` and `name` are its URI; `path` is its key."""

    def open(self) -> IO[bytes]:
        """Its bytes. Raises AwsRefused and AwsUnreachable."""
        from cloudft.aws.s3 import ObjectStream

        return cast(IO[bytes], ObjectStream(self.display_name))


@dataclass
class SourceResolver:
    """Turns a field's paths into files. A file that is named twice is an error."""

    base_dir: Path
    findings: Findings
    _seen: dict[str, str] = field(default_factory=dict)

    def resolve(self, field: str, patterns: Sequence[str]) -> list[SourceFile]:
        """The files that field `where` names, in order; a folder's and a glob's sorted."""
        found: list[SourceFile] = []
        for pattern in patterns:
            if pattern.startswith("s3://"):
                found += self._objects(field, pattern)
                continue
            try:
                sources = (self._source(field, path) for path in self._paths(field, pattern))
                found += [source for source in sources if source is not None]
            except OSError as exc:  # a folder on the way that can't be entered
                self._unreadable(field, exc)
        return found

    def _objects(self, where: str, uri: str) -> Iterator[SourceFile]:
        """The objects that an S3 URI means. Raises AwsRefused and AwsUnreachable."""
        from cloudft.aws.s3 import list_object_uris

        others, some = [], False
        for name in list_object_uris(uri):
            kind = FILE_TYPES.get(Path(name).suffix.lower())
            some = True
            if kind is None or kind == "parquet":  # Parquet is read from its end
                others.append(name)
            elif (twice := self._named_twice(where, name)) is not None:
                code, message, fix = twice
                self.findings.add(code, message, fix, file=name, field=where)
            else:
                yield S3Object(Path(name), name, name, kind)
        if not some:
            fix = f"`aws s3 ls {shlex.quote(uri.rpartition('/')[0] + '/')}` shows what is there"
            self.findings.add("FileNotFound", f"no object {uri}", fix, file=uri, field=where)
        if others:
            fix = f"download it first: `aws s3 cp {shlex.quote(others[0])} data/`"
            message = f"{len(others)} of the objects can't be read as a stream: {others[0]}"
            self.findings.add("UnsupportedFileType", message, fix, file=others[0], field=where)

    def _paths(self, where: str, pattern: str) -> Iterator[Path]:
        """The plain files that one path, folder or glob stands for."""
        path = self.base_dir / _expanded(pattern)
        matches = [path] if os.path.lexists(path) else self._glob(pattern)
        if not matches:
            self._missing(where, pattern, path)
        for match in matches:
            if match.is_dir():
                yield from self._folder(where, match)
            else:
                yield match

    def _glob(self, pattern: str) -> list[Path]:
        if not glob.has_magic(pattern):
            return []
        names = glob.glob(_expanded(pattern), root_dir=self.base_dir, recursive=True)  # noqa: PTH207
        return [self.base_dir / name for name in sorted(names)]

    def _missing(self, where: str, pattern: str, path: Path) -> None:
        what = "no file matches" if glob.has_magic(pattern) else "no file"
        fix = f"paths are relative to the job file's folder, {_shown(self.base_dir)}"
        file = _shown(path)
        self.findings.add("FileNotFound", f"{what} {pattern}", fix, file=file, field=where)

    def _folder(self, where: str, folder: Path) -> Iterator[Path]:
        """The known files below a folder, sorted; hidden ones and other types left out."""
        known: list[Path] = []
        others: list[str] = []
        for root, folders, names in os.walk(folder, onerror=lambda e: self._unreadable(where, e)):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in (n for n in names if not n.startswith(".")):
                path = Path(root, name)
                if path.suffix.lower() in FILE_TYPES:
                    known.append(path)
                else:
                    others.append(str(path.relative_to(folder)))
        if others:
            self._ignored(where, folder, sorted(others))
        if not known and not self.findings.count_errors(_shown(folder)):
            message, fix = f"no data file in the folder {_shown(folder)}", _types()
            self.findings.add("NoRecords", message, fix, file=_shown(folder), field=where)
        yield from sorted(known, key=lambda path: path.parts)

    def _unreadable(self, where: str, error: OSError) -> None:
        file = _shown(Path(error.filename or self.base_dir))
        fix = "make it readable"
        self.findings.add("FileUnreadable", f"{error.strerror}", fix, file=file, field=where)

    def _ignored(self, where: str, folder: Path, names: list[str]) -> None:
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        count = "1 file" if len(names) == 1 else f"{len(names)} files"
        message = f"{count} of another type left out: {listed}"
        file = _shown(folder)
        self.findings.add(
            "IgnoredFiles", message, _types(), file=file, field=where, severity="warning"
        )

    def _source(self, where: str, path: Path) -> SourceFile | None:
        """A file that can be tried; None with a finding when it can't."""
        path = Path(os.path.abspath(path))  # noqa: PTH100  (resolve would follow links)
        shown, kind = _shown(path), FILE_TYPES.get(path.suffix.lower())
        problem = self._problem(where, path)
        if problem is not None or kind is None:
            code, message, fix = problem or _unsupported(path)
            self.findings.add(code, message, fix, file=shown, field=where)
            return None
        below = path.is_relative_to(self.base_dir)
        return SourceFile(
            path, shown, str(path.relative_to(self.base_dir) if below else path), kind
        )

    def _problem(self, where: str, path: Path) -> tuple[str, str, str] | None:
        """Why a path can't be a source: it is no file, or it is one already."""
        if not path.is_file():
            message = "no plain file" if path.exists() else "a link that leads nowhere"
            return "FileUnreadable", message, "name a file"
        return self._named_twice(where, os.path.realpath(path))

    def _named_twice(self, where: str, real: str) -> tuple[str, str, str] | None:
        if real in self._seen:
            message = f"named twice: by {self._seen[real]} and by {where}"
            return "FileTwice", message, "name it once; to weigh data, use data.mix"
        self._seen[real] = where
        return None


def _unsupported(path: Path) -> tuple[str, str, str]:
    message = f"files ending in {path.suffix or 'nothing'} are not read"
    return "UnsupportedFileType", message, _types()


def _expanded(pattern: str) -> str:
    return os.path.expanduser(pattern)  # noqa: PTH111  (Path.expanduser raises for ~nobody)


def _shown(path: Path) -> str:
    """A path as a person would type it here: relative when it lies below the current folder."""
    path = Path(os.path.abspath(path))  # noqa: PTH100
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _types() -> str:
    return f"read are {', '.join(FILE_TYPES)} (unpack archives first)"

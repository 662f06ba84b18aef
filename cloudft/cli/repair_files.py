"""Write repaired copies of a job's broken files, for `check --fix`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from cloudft.cli.options import Console
from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.data.sources.source_files import SourceFile
    from cloudft.spec.load import LoadedJob
    from cloudft.types import Finding

LINES_SHOWN = 10


class OmittedLine(TypedDict):
    """A line that the repaired copy lacks, and the code of the finding that is its reason."""

    line: int
    code: str


class RepairedFile(TypedDict):
    """What `check --fix` did to a file, as JSON."""

    file: str
    copy: Path
    records: int
    changed: int
    leftOut: list[OmittedLine]


def write_repaired_files(
    job: LoadedJob, findings: Iterable[Finding], folder: Path, console: Console
) -> list[RepairedFile]:
    """Write a repaired copy of each JSONL file with findings into `folder`.

    Return what was done to each file. Raise UsageError when one of the copies exists: nothing is
    overwritten.
    """
    from cloudft.data.findings import Findings
    from cloudft.data.sources.source_files import SourceResolver
    from cloudft.storage.atomic_files import as_store_error

    broken = {finding.file for finding in findings}
    sources = SourceResolver(job.base_dir, Findings())
    data = job.spec.data
    named = [("data.train", data.train), ("data.validation", data.validation)]
    named += [("data.test", data.test), *(("data.mix", part.path) for part in data.mix)]
    files = [s for field, p in named if isinstance(p, tuple) for s in sources.resolve(field, p)]
    repaired: list[RepairedFile] = []
    columns = {str(name): column for name, column in data.columns.items()}
    with as_store_error(f"{folder} can't be written", folder):
        folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, int] = {}
    for source in files:
        if source.file_type == "jsonl" and source.display_name in broken:
            name = source.path.name
            names[name] = names.get(name, 0) + 1
            # Files of one name in several folders become NAME, 2-NAME, ...
            prefix = f"{names[name]}-" if names[name] > 1 else ""
            repaired.append(_repair_file(source, folder / f"{prefix}{name}", columns))
    for value in repaired:
        _report_repair(value, console)
    return repaired


def _repair_file(source: SourceFile, out: Path, columns: Mapping[str, str]) -> RepairedFile:
    import orjson

    from cloudft.data.sources.repair import repair_lines
    from cloudft.data.staging.dataset_transform import new_output_file
    from cloudft.storage.archives import BadArchive

    kept = changed = 0
    left_out: list[OmittedLine] = []
    try:
        with (
            new_output_file(out) as temporary,
            temporary.open("wb") as file,
            source.open() as handle,
        ):
            for line in repair_lines(handle, columns):
                for record in line.records:
                    file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
                kept += len(line.records)
                changed += line.changed
                if line.error_code:
                    left_out.append({"line": line.line, "code": line.error_code})
    except BadArchive as error:
        what = f"the compressed file can't be repaired: {error}"
        raise UsageError(
            what, file=source.display_name, fix="decompress it, and name the result."
        ) from error
    return {
        "file": source.display_name,
        "copy": out,
        "records": kept,
        "changed": changed,
        "leftOut": left_out,
    }


def _report_repair(value: RepairedFile, console: Console) -> None:
    left_out = value["leftOut"]
    console.note(
        f"{value['file']}: repaired copy {value['copy']}: {value['records']} records,"
        f" {value['changed']} lines changed, {len(left_out)} left out"
    )
    for one in left_out[:LINES_SHOWN]:
        console.note(f"  left out: {value['file']}:{one['line']} ({one['code']})")
    if len(left_out) > LINES_SHOWN:
        console.note(f"  ... and {len(left_out) - LINES_SHOWN} more")

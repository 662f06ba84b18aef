"""The commands in remedies read the very file, however it holds its records."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudft.data.findings import Findings
from cloudft.data.sources.remedy_commands import complete_commands
from cloudft.data.sources.source_files import SourceResolver

ROWS = [{"a": "When?", "b": "At nine."}, {"a": "Where?", "b": "On pier \u201cfour\u201d."}]
FIX = "write pairs: jq -c '{prompt: .a, completion: .b}' FILE > PAIRS.jsonl"


def as_table(delimiter: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ROWS[0], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)

    return write


def as_text(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    return write


def as_parquet(path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


@pytest.mark.skipif(shutil.which("jq") is None, reason="the commands are of jq")
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("lines.jsonl", as_text("".join(json.dumps(row) + "\n" for row in ROWS))),
        ("array.json", as_text(json.dumps(ROWS))),
        ("indented.json", as_text("\ufeff" + json.dumps(ROWS, indent=2))),
        ("wrapped.json", as_text(json.dumps({"version": "1", "data": ROWS}))),
        ("two words.json", as_text(" ".join(map(json.dumps, ROWS)))),
        ("comma.csv", as_table(",")),
        ("tab.tsv", as_table("\t")),
        ("columns.parquet", as_parquet),
    ],
)
def test_a_command_reads_every_record(
    name: str, write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    [source] = SourceResolver(tmp_path, Findings()).resolve("--data", [name])
    fix = complete_commands(FIX, source)
    assert "FILE" not in fix
    subprocess.run(["bash", "-c", fix.partition(": ")[2]], check=True)
    written = (tmp_path / f"{name.partition('.')[0]}-pairs.jsonl").read_text(encoding="utf-8")
    records = [json.loads(line) for line in written.splitlines()]
    assert records == [{"prompt": row["a"], "completion": row["b"]} for row in ROWS]


def test_other_remedies_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    [source] = SourceResolver(tmp_path, Findings()).resolve("--data", ["a.jsonl"])
    assert complete_commands("correct the line", source) == "correct the line"

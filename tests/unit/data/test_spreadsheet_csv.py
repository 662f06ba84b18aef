"""No text becomes a formula in a table for people; every text stays itself in one for training."""

from __future__ import annotations

import ast
import csv
import io
import itertools
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import Cli

import cloudft
import local_backend
from cloudft.data.staging.spreadsheet_csv import is_formula, to_spreadsheet_csv
from cloudft.evaluate.human_review.review import format_csv

SIGNS = ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"]
FORMULAS = [f"{before}1+1" for before in [*SIGNS, " =", "\t=", "\r\n-", "\u00a0@"]]
ROW = ("reviewer", "key", "prompt", "reference", "a", "b", "choice", "note", "at")


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("text", FORMULAS, ids=ascii)
def test_what_a_spreadsheet_would_run_is_text_in_an_export(text: str) -> None:
    assert is_formula(text)
    exported = format_csv([dict.fromkeys(ROW, text)])
    assert cells(exported)[1] == [f"'{text}"] * len(ROW)


# Python 3.10's csv module neither writes nor reads a NUL character.
WITHOUT = "" if sys.version_info >= (3, 11) else "\0"


@given(st.lists(st.text(st.characters(exclude_characters=WITHOUT)), min_size=2, max_size=2))
def test_other_texts_are_exported_as_they_are(texts: list[str]) -> None:
    text = to_spreadsheet_csv(("a", "b"), [dict(zip("ab", texts, strict=True))])
    for whole, cell in zip(texts, cells(text)[1], strict=True):
        assert cell == (f"'{whole}" if is_formula(whole) else whole)
    assert text.startswith('"a","b"\r\n"'), "another locale's separators cut no cell apart"


def test_numbers_stay_numbers() -> None:
    assert cells(to_spreadsheet_csv(("a", "b"), [{"a": -1, "b": None}]))[1] == ["-1", ""]


def test_records_come_back_from_csv_to_the_letter_and_formulas_are_counted(
    cli: Cli, tmp_path: Path
) -> None:
    records = [{"prompt": text, "completion": f"is {text}"} for text in FORMULAS]
    records.append({"prompt": "plain", "completion": "text"})
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "start.jsonl").write_text(lines)
    names = ["start.jsonl", "a.csv", "b.csv", "end.jsonl"]
    for old, new in itertools.pairwise(names):
        target = "csv" if new.endswith("csv") else "prompt-completion"
        done = cli("data", "convert", old, "--to", target, "--out", new)
        assert done.returncode == 0, done.stderr
        if target == "csv":
            warned = f"records that begin like a formula, kept as they are: {len(FORMULAS)} "
            assert warned in done.stderr and "SpreadsheetFormula" in done.stderr
    back = [json.loads(line) for line in (tmp_path / "end.jsonl").read_text().splitlines()]
    assert back == records


def test_every_writer_of_csv_is_known() -> None:
    roots = [Path(package.__file__).parent for package in (cloudft, local_backend)]
    writers = {
        path.relative_to(root.parent).as_posix()
        for root in roots
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("csv.writer", "csv.DictWriter")
    }
    assert writers == {
        "cloudft/data/staging/spreadsheet_csv.py",  # for people
        "cloudft/data/staging/csv_writer.py",  # for training
        "local_backend/training/loss_curve.py",  # numbers alone
        "cloudft/backends/sagemaker/serverless/output.py",  # numbers alone
        "cloudft/backends/bedrock/openai_api/states.py",  # numbers alone
    }

"""Parquet and Arrow files as datasets, DuckDB, pandas and argilla write them."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from cloudft.data.checks.check import check_data
from cloudft.data.checks.validator import _FilePass
from cloudft.data.findings import Findings
from cloudft.data.sources.row_reader import ReadContext, read_rows
from cloudft.data.sources.source_files import SourceFile
from cloudft.spec.model import DataSpec

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
json_type = pytest.mark.skipif(not hasattr(pa, "json_"), reason="pyarrow 18 has no arrow.json")
CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def rows_of(path: Path) -> list[dict[str, object]]:
    file_type = "parquet" if path.suffix == ".parquet" else "arrow"
    findings = Findings()
    context = ReadContext(SourceFile(path, path.name, path.name, file_type), findings)
    rows = [row.value for row in read_rows(context)]
    assert not findings.count_errors(), findings.all()
    return rows


def write(folder: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> Path:
    """Write a file; `features` are those that the datasets library keeps in the schema."""
    table = pa.table(columns)
    if features is not None:
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    path = folder / "x.parquet"
    parquet.write_table(table, path)
    return path


def json_array(values: list[object]) -> Any:
    texts = [None if value is None else json.dumps(value) for value in values]
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))


@json_type
def test_a_json_column_is_decoded_before_the_record_is_read(tmp_path: Path) -> None:
    answers = json_array([4, "red", {"a": [1]}, None])
    path = write(tmp_path, {"prompt": ["1", "2", "3", "4"], "answer": answers})
    assert [row["answer"] for row in rows_of(path)] == [4, "red", {"a": [1]}, None]
    data = DataSpec.model_validate({"train": path.name})
    report = check_data(data, format="prompt-completion", base_dir=tmp_path)
    # An object is no answer; a number and a text are.
    assert {f.line for f in report.findings if f.severity == "error"} == {3, 4}


@json_type
def test_json_is_decoded_at_any_depth(tmp_path: Path) -> None:
    storage = pa.array([json.dumps(message) for message in CHAT])
    elements = pa.ExtensionArray.from_storage(pa.json_(), storage)
    messages = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), elements)
    contents = json_array(["q", [{"type": "text", "text": "a"}]])
    fields = pa.StructArray.from_arrays(
        [pa.array(["user", "assistant"]), contents, pa.array([1, 2])], names=["role", "c", "n"]
    )
    nested = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), fields)
    # A leaf column before and after, so that one counted wrongly would show.
    columns = {"id": ["i"], "messages": messages, "nested": nested, "note": json_array([None])}
    [row] = rows_of(write(tmp_path, columns))
    assert row["messages"] == CHAT
    assert row["nested"] == [
        {"role": "user", "c": "q", "n": 1},
        {"role": "assistant", "c": [{"type": "text", "text": "a"}], "n": 2},
    ]


@json_type
def test_texts_that_only_parquet_marks_as_json_are_decoded(tmp_path: Path) -> None:
    """DuckDB writes no Arrow schema, and an older pyarrow takes such columns for texts."""
    path = tmp_path / "x.parquet"
    table = pa.table({"prompt": ["a"], "answer": json_array([[1]])})
    parquet.write_table(table, path, store_schema=False)
    assert rows_of(path) == [{"prompt": "a", "answer": [1]}]


def test_an_extension_that_pyarrow_does_not_know_is_read_by_its_name(tmp_path: Path) -> None:
    mark = {"ARROW:extension:name": "arrow.json", "ARROW:extension:metadata": ""}
    from cloudft.data.sources.arrow_values import RowDecoder

    inner = pa.field("item", pa.string(), metadata=mark)
    schema = pa.schema([pa.field("a", pa.string(), metadata=mark), ("m", pa.list_(inner))])
    decoded = RowDecoder(schema).decode({"a": '{"b": 1}', "m": ['"x"', None, "NaN?"]})
    assert decoded == {"a": {"b": 1}, "m": ["x", None, "NaN?"]}


def test_numbers_of_classes_become_their_names(tmp_path: Path) -> None:
    label = {"names": ["billing", "login", None], "_type": "ClassLabel"}
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": label,
        "several": {"feature": label, "_type": "List"},
        "older": [label],
        "nested": [{"kind": label}],
        "plain": {"dtype": "int64", "_type": "Value"},
    }
    columns = {
        "text": ["a", "b", "c", "d", "e"],
        "label": [0, 1, 2, None, -1],
        "several": [[0, 1], [], None, [1], [0]],
        "older": [[1]] * 5,
        "nested": [[{"kind": 1}]] * 5,
        "plain": [0, 1, 2, 3, 4],
    }
    rows = rows_of(write(tmp_path, columns, features))
    assert [row["label"] for row in rows] == ["billing", "login", None, None, None]
    assert [row["several"] for row in rows][:2] == [["billing", "login"], []]
    assert rows[0]["older"] == ["login"] and rows[0]["nested"] == [{"kind": "login"}]
    assert [row["plain"] for row in rows] == [0, 1, 2, 3, 4]


def test_names_of_classes_are_trained_on_and_reported(tmp_path: Path) -> None:
    features = {"label": {"names": ["billing", "login"], "_type": "ClassLabel"}}
    path = write(tmp_path, {"text": ["a", "b"], "label": [1, 0]}, features)
    columns = {"prompt": "text", "completion": "label"}
    data = DataSpec.model_validate({"train": path.name, "columns": columns})
    report = check_data(data, format="prompt-completion", base_dir=tmp_path)
    assert "ClassNames" in [f.code for f in report.findings]
    assert report.volumes is not None
    assert report.volumes["train"].characters == len("a" + "login" + "b" + "billing")


@pytest.mark.parametrize(
    ("value", "type", "expected"),
    [
        (datetime.datetime(2024, 5, 1, 12, 30), pa.timestamp("ms"), "2024-05-01T12:30:00"),
        (datetime.datetime(2024, 5, 1), pa.timestamp("ns"), "2024-05-01"),
        (1714566600123456789, pa.timestamp("ns"), "2024-05-01T12:30:00.123456"),
        (datetime.datetime(2024, 5, 1), pa.timestamp("us", "UTC"), "2024-05-01T00:00:00+00:00"),
        (datetime.date(2024, 5, 1), pa.date32(), "2024-05-01"),
        (datetime.time(12, 30), pa.time64("us"), "12:30:00"),
        (datetime.timedelta(minutes=1), pa.duration("us"), 60.0),
        (decimal.Decimal("1.50"), pa.decimal128(4, 2), "1.50"),
        (0.1, pa.float32(), 0.1),
        (0.1, pa.float64(), 0.1),
        ("café".encode(), pa.binary(), "café"),
        (b"\xff", pa.binary(), "/w=="),
        ("r", pa.dictionary(pa.int8(), pa.string()), "r"),
        ([("k", 1)], pa.map_(pa.string(), pa.int64()), {"k": 1}),
        ({"a": 1, "b": None}, pa.struct({"a": pa.int64(), "b": pa.string()}), {"a": 1}),
    ],
)
def test_values_become_those_that_json_has(
    tmp_path: Path, value: object, type: Any, expected: object
) -> None:
    [row] = rows_of(write(tmp_path, {"x": pa.array([value], type), "y": pa.array([None])}))
    assert row == {"x": expected, "y": None}
    json.dumps(row)


def test_uuids_become_texts(tmp_path: Path) -> None:
    if not hasattr(pa, "uuid"):
        pytest.skip("an older pyarrow has no such type")
    value = uuid.UUID(int=5)
    array = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([value.bytes], pa.binary(16)))
    assert rows_of(write(tmp_path, {"x": array})) == [{"x": str(value)}]


def test_messages_by_columns_are_messages(tmp_path: Path) -> None:
    """As the datasets library stored a `Sequence` of dicts until version 4."""
    columns = {"messages": [{"role": ["user", "assistant"], "content": ["q", "a"]}]}
    assert rows_of(write(tmp_path, columns)) == [{"messages": CHAT}]


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_an_arrow_file_is_read_in_small_pieces(tmp_path: Path, kind: str) -> None:
    table = pa.table({"prompt": [str(n) for n in range(3000)], "completion": ["c"] * 3000})
    path = tmp_path / ("x.arrow" if kind == "stream" else "x.feather")
    new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with new(path, table.schema) as writer:
        writer.write_table(table)
    assert [row["prompt"] for row in rows_of(path)] == [str(n) for n in range(3000)]
    data = DataSpec.model_validate({"train": path.name})
    report = check_data(data, format="prompt-completion", base_dir=tmp_path)
    assert report.volumes is not None and report.volumes["train"].records == 3000


@pytest.mark.parametrize(
    "raw", [b"FEA1xxxxFEA1", b"ARROW1", b"no Arrow at all", b"\xff\xff\xff\xff"]
)
def test_a_damaged_arrow_file_is_one_error(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x.arrow").write_bytes(raw)
    data = DataSpec.model_validate({"train": "x.arrow"})
    [finding] = check_data(data, format="prompt-completion", base_dir=tmp_path).findings
    assert (finding.severity, finding.code) == ("error", "BadParquet")
    assert finding.fix


def test_a_null_is_an_empty_field_of_its_column(tmp_path: Path) -> None:
    columns = {"instruction": ["a", None], "input": [None, "b"], "output": ["c", "d"]}
    path = write(tmp_path, columns)
    data = DataSpec.model_validate({"train": path.name})
    report = check_data(data, format="prompt-completion", base_dir=tmp_path)
    assert [(f.code, f.line) for f in report.findings if f.severity != "note"] == [
        ("EmptyField", 2)
    ]


@pytest.mark.parametrize("bad", [None, " ", "\ufffd", "x"])
def test_rows_are_the_same_in_batches_and_singly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str | None
) -> None:
    answers = ["an answer"] * 2500
    answers[2222] = bad  # type: ignore[call-overload]
    path = write(tmp_path, {"prompt": [str(n) for n in range(2500)], "completion": answers})
    data = DataSpec.model_validate({"train": path.name})
    in_batches = check_data(data, format="converse", base_dir=tmp_path)
    monkeypatch.setattr(_FilePass, "_take_rows", lambda *_: False)
    assert check_data(data, format="converse", base_dir=tmp_path) == in_batches
    assert [f.line for f in in_batches.findings] == ([] if bad == "x" else [2223])

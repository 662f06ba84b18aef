"""Write the Parquet files of the corpus as datasets, pandas and duckdb write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

QUESTION, ANSWER = "Where does the ferry leave?", "From pier four."
QUESTIONS = [QUESTION, "When does the museum open?"]
ANSWERS = [ANSWER, "At nine on weekdays."]


def write(path: Path) -> None:
    """Write the file of that name; a folder for `save-to-disk`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = path.stem
    if name == "save-to-disk":
        _write_save_to_disk(path)
        return
    table, metadata = _tables(pa)[name]
    if metadata:
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path)


def without_row(path: Path, row: int) -> bytes:
    """Return the file without a row, which counts from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    rest = pa.concat_tables([table.slice(0, row - 1), table.slice(row)])
    sink = pa.BufferOutputStream()
    pq.write_table(rest, sink)
    return bytes(sink.getvalue())


def _tables(pa: Any) -> dict[str, tuple[Any, dict[str, str]]]:
    def chat(question: str, answer: str) -> list[dict[str, Any]]:
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    pairs = list(zip(QUESTIONS, ANSWERS, strict=True))

    def as_json(values: list[str]) -> Any:
        return pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(values))

    texts = [
        t for q, a in pairs for t in (json.dumps(q), json.dumps([{"type": "text", "text": a}]))
    ]
    messages = pa.StructArray.from_arrays(
        [pa.array(["user", "assistant"] * 2), as_json(texts)], ["role", "content"]
    )
    contents = pa.ListArray.from_arrays(pa.array([0, 2, 4], pa.int32()), messages)
    calls = [{"function": {"name": "find_pier", "arguments": {"line": "north", "day": None}}}]
    with_calls = [{"role": "user", "content": q, "tool_calls": None} for q in QUESTIONS]
    names = {"info": {"features": {"label": {"names": ["hours", "piers"], "_type": "ClassLabel"}}}}
    simple = {"prompt": QUESTIONS, "completion": ANSWERS}
    return {
        "pairs": (pa.table(simple), {}),
        "chats": (pa.table({"messages": [chat(q, a) for q, a in pairs]}), {}),
        "nulls-in-structs": (
            pa.table(
                {
                    "messages": [
                        [
                            {
                                **m,
                                "name": None,
                                "tool_calls": None,
                                "weight": 1 if m["role"] == "assistant" else None,
                            }
                            for m in chat(q, a)
                        ]
                        for q, a in pairs
                    ]
                }
            ),
            {},
        ),
        "input-null": (
            pa.table(
                {
                    "instruction": [*QUESTIONS, "Sum up."],
                    "input": [None, None, "A long text."],
                    "output": [*ANSWERS, "Short."],
                }
            ),
            {},
        ),
        "instruction-null": (
            pa.table(
                {
                    "instruction": [QUESTION, None],
                    "input": [None, "A text without an instruction."],
                    "output": ANSWERS,
                }
            ),
            {},
        ),
        "pandas-index": (pa.table({**simple, "__index_level_0__": [4, 9]}), {}),
        "arrow-json-answer": (
            pa.table(
                {
                    "prompt": [QUESTION, QUESTIONS[1]],
                    "completion": as_json([json.dumps(ANSWER), "4"]),
                }
            ),
            {},
        ),
        "arrow-json-content": (pa.table({"messages": contents}), {}),
        "class-label": (
            pa.table({"text": QUESTIONS, "label": pa.array([1, 0], pa.int64())}),
            {"huggingface": json.dumps(names)},
        ),
        "image-bytes": (
            pa.table(
                {
                    "image": [
                        {"bytes": b"\x89PNG", "path": "1.png"},
                        {"bytes": b"\x89PNG", "path": "2.png"},
                    ],
                    "question": QUESTIONS,
                    "answer": ANSWERS,
                }
            ),
            {},
        ),
        "sharegpt": (
            pa.table(
                {
                    "id": ["a", "b"],
                    "conversations": [
                        [{"from": "human", "value": q}, {"from": "gpt", "value": a}]
                        for q, a in pairs
                    ],
                }
            ),
            {},
        ),
        "tools-null-arguments": (
            pa.table(
                {
                    "messages": [
                        [
                            with_calls[i],
                            {"role": "assistant", "content": None, "tool_calls": calls},
                            {"role": "tool", "content": "pier 4", "tool_calls": None},
                            {"role": "assistant", "content": ANSWERS[i], "tool_calls": None},
                        ]
                        for i in range(2)
                    ]
                }
            ),
            {},
        ),
    }


def _write_save_to_disk(path: Path) -> None:
    """Write what `Dataset.save_to_disk` writes: Arrow's stream, its state and its features."""
    import pyarrow as pa

    path.mkdir()
    table = pa.table({"prompt": QUESTIONS, "completion": ANSWERS})
    with (
        pa.OSFile(str(path / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}
    (path / "state.json").write_text(json.dumps(state))
    value = {"dtype": "string", "_type": "Value"}
    features = {"features": {"prompt": value, "completion": value}}
    (path / "dataset_info.json").write_text(json.dumps(features))

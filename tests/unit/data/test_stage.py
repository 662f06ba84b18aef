from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cloudft.data.checks.check import check_data
from cloudft.data.staging.manifest import load_manifest
from cloudft.data.staging.stage import StagedData, stage_data
from cloudft.errors import CheckFailed, StoreError
from cloudft.spec.model import DataSpec


def put(folder: Path, tree: Mapping[str, Any]) -> Path:
    """Write files by name: bytes as they are, text as UTF-8, a list as JSONL."""
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(record) + "\n" for record in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def pairs(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(start, start + count)]


def staged(
    folder: Path, target: str = "prompt-completion", root: Path | None = None, **data: Any
) -> StagedData:
    seed = data.pop("seed", 7)
    return stage_data(
        DataSpec.model_validate(data),
        customization_type="CONTINUED_PRE_TRAINING" if target == "input" else "FINE_TUNING",
        format=target,
        seed=seed,
        base_dir=folder,
        root=root or folder / "root",
    )


def lines(result: StagedData, role: str = "train") -> list[Any]:
    raw = (result.folder / f"{role}.jsonl").read_bytes()
    return [json.loads(line) for line in raw.split(b"\n")[:-1]]


def chat(system: str | None, *texts: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    first = [{"role": "system", "content": system}] if system else []
    return {"messages": first + messages}


CONVERSE = {
    "schemaVersion": "bedrock-conversation-2024",
    "system": [{"text": "s"}],
    "messages": [
        {"role": "user", "content": [{"text": "q"}]},
        {"role": "assistant", "content": [{"text": "a"}]},
    ],
}
CLAUDE = {
    "system": "s",
    "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
}
PARTS = {
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "q"}], "name": None},
        {"role": "assistant", "content": "a"},
    ]
}


@pytest.mark.parametrize(
    ("record", "shape"),
    [
        (chat("s", "q", "a"), "messages"),
        (PARTS, "messages"),
        (CONVERSE, "converse"),
        (CLAUDE, "claude-messages"),
    ],
)
def test_every_chat_shape_comes_to_every_labeled_format(
    tmp_path: Path, record: dict[str, Any], shape: str
):
    put(tmp_path, {"x.jsonl": [record]})
    wanted = {
        "converse": CONVERSE,
        "claude-messages": CLAUDE,
        "prompt-completion": {"prompt": "s\n\nq", "completion": "a"},
    }
    for target, value in wanted.items():
        result = staged(tmp_path, target, train="x.jsonl")
        raw = (result.folder / "train.jsonl").read_bytes()
        assert raw == json.dumps(value, separators=(",", ":")).encode() + b"\n"
        assert result.manifest.sources[0].shape == shape
        assert result.manifest.files["train"].characters == 3


@pytest.mark.parametrize(
    ("name", "content", "prompt", "shape"),
    [
        ("x.jsonl", [{"prompt": "q", "completion": "a"}], "q", "prompt-completion"),
        ("x.ndjson", [{"input": "q", "output": "a"}], "q", "input-output"),
        ("x.json", [{"instruction": "q", "input": "", "output": "a"}], "q", "instruction"),
        ("x.jsonl", [{"instruction": "q", "input": "i", "output": "a"}], "q\n\ni", "instruction"),
        ("x.jsonl", [{"instruction": "q", "output": "a"}], "q", "instruction"),
        ("x.csv", "prompt,completion\r\nq,a\r\n\r\n", "q", "prompt-completion"),
        ("x.csv", 'completion,prompt\na,"q ""1"",\n2"\n', 'q "1",\n2', "prompt-completion"),
        ("x.TSV", "prompt\tcompletion\nq\ta\n", "q", "prompt-completion"),
        ("x.jsonl", b'{"prompt":"q","completion":"a"}\r\n', "q", "prompt-completion"),
        ("x.jsonl", b'{"prompt":"q","completion":"a"}', "q", "prompt-completion"),
    ],
)
def test_every_pair_shape_comes_to_prompt_and_completion(
    tmp_path: Path, name: str, content: Any, prompt: str, shape: str
):
    result = staged(put(tmp_path, {name: content}), train=name)
    assert lines(result) == [{"prompt": prompt, "completion": "a"}]
    assert result.manifest.sources[0].shape == shape
    assert staged(tmp_path, "converse", train=name).manifest.files["train"].records == 1


def test_unlabeled_records_come_from_anything_with_text(tmp_path: Path):
    tree = {"d/b.txt": "two\n", "d/a.md": "one", "d/sub/c.jsonl": [{"text": "three"}]}
    tree["d/e.jsonl"] = [{"input": "four é"}]
    result = staged(put(tmp_path, tree), "input", train="d")
    assert [r["input"] for r in lines(result)] == ["one", "two\n", "four é", "three"]
    assert [s.shape for s in result.manifest.sources] == ["document", "document", "input", "text"]
    assert "é".encode() in (result.folder / "train.jsonl").read_bytes()


def test_several_turns_do_not_fit_into_a_pair(tmp_path: Path):
    put(tmp_path, {"x.jsonl": [chat(None, "q", "a", "q", "a")]})
    assert len(lines(staged(tmp_path, "converse", train="x.jsonl"))[0]["messages"]) == 4
    with pytest.raises(CheckFailed) as caught:
        staged(tmp_path, train="x.jsonl")
    assert [(f.code, f.line) for f in caught.value.findings] == [("LosesTurns", 1)]
    assert caught.value.exit_code == 3


def test_the_manifest_lists_what_was_staged(tmp_path: Path):
    put(tmp_path, {"a.jsonl": pairs(9), "t.csv": "prompt,completion\nlonger text,x\n"})
    result = staged(tmp_path, train="a.jsonl", validation=0.3, test="t.csv")
    manifest = result.manifest
    assert result.folder.name == manifest.sha256[:32]
    assert list(manifest.files) == ["train", "validation", "test"]
    assert [f.records for f in manifest.files.values()] == [6, 3, 1]
    for file in manifest.files.values():
        raw = (result.folder / file.name).read_bytes()
        assert file.sha256 == hashlib.sha256(raw).hexdigest()
        assert file.bytes == len(raw)
        assert os.stat(result.folder / file.name).st_mode & 0o777 == 0o400
    assert manifest.files["test"].characters == 12
    assert manifest.files["test"].tokens == 2
    assert manifest.files["train"].tokens == 4
    source = manifest.sources[0]
    assert (source.role, source.path, source.records) == ("train", "a.jsonl", 9)
    assert source.sha256 == hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()
    assert load_manifest(result.folder) == manifest
    assert sorted(p.name for p in result.folder.iterdir()) == [
        "manifest.json",
        "test.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]


def test_examine_counts_what_staging_gives(tmp_path: Path):
    put(tmp_path, {"a.jsonl": pairs(9), "g.jsonl": pairs(9, 100), "t.jsonl": pairs(2)})
    spec = {"train": "a.jsonl", "validation": 0.3, "test": "t.jsonl"}
    mix = [{"path": "g.jsonl", "share": 0.25}]
    data = DataSpec.model_validate({**spec, "mix": mix})
    volumes = check_data(data, format="converse", base_dir=tmp_path).volumes
    assert not (tmp_path / "root").exists()
    files = staged(tmp_path, "converse", **spec, mix=mix).manifest.files
    assert volumes is not None
    assert {r: v.records for r, v in volumes.items()} == {r: f.records for r, f in files.items()}
    assert volumes["test"].tokens == files["test"].tokens


def test_an_edited_source_never_meets_a_stale_folder(tmp_path: Path):
    put(tmp_path, {"a.jsonl": pairs(9)})
    first = staged(tmp_path, train="a.jsonl")
    again = staged(tmp_path, train="a.jsonl")
    put(tmp_path, {"a.jsonl": pairs(8)})
    edited = staged(tmp_path, train="a.jsonl")
    assert first.folder == again.folder != edited.folder
    assert len(lines(first)) == 9


@pytest.mark.parametrize("harm", ["cut", "gone", "manifest", "file"])
def test_a_damaged_folder_is_replaced(tmp_path: Path, harm: str):
    put(tmp_path, {"a.jsonl": pairs(9)})
    folder = staged(tmp_path, train="a.jsonl").folder
    if harm == "cut":
        (folder / "train.jsonl").chmod(0o644)
        (folder / "train.jsonl").write_bytes(b"{")
    elif harm == "gone":
        (folder / "train.jsonl").unlink()
    elif harm == "manifest":
        (folder / "manifest.json").chmod(0o644)
        (folder / "manifest.json").write_text("{}")
    else:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.write_text("a file")
    assert len(lines(staged(tmp_path, train="a.jsonl"))) == 9
    assert [p.name for p in (tmp_path / "root").iterdir()] == [folder.name]


def test_a_manifest_that_contradicts_itself_is_refused(tmp_path: Path):
    put(tmp_path, {"a.jsonl": pairs(2)})
    path = staged(tmp_path, train="a.jsonl").folder / "manifest.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace("FINE_TUNING", "CONTINUED_PRE_TRAINING"))
    with pytest.raises(StoreError, match="does not fit"):
        load_manifest(path)
    for raw in (b"\xff", b"[]", b'{"sha256": 3}'):
        path.write_bytes(raw)
        with pytest.raises(StoreError, match="no manifest"):
            load_manifest(path)


def test_nothing_temporary_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path / "root"
    put(tmp_path, {"a.jsonl": pairs(9), "bad.jsonl": "x\n", "root/.staging-old/x": "x"})
    put(tmp_path, {"root/.staging-new/x": "x"})
    long_ago = time.time() - 90_000
    os.utime(root / ".staging-old", (long_ago, long_ago))
    with pytest.raises(CheckFailed):
        staged(tmp_path, train="bad.jsonl")
    assert [p.name for p in root.iterdir()] == [".staging-new"]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cloudft.data.staging.stage._publish", interrupt)
    with pytest.raises(KeyboardInterrupt):
        staged(tmp_path, train="a.jsonl")
    assert [p.name for p in root.iterdir()] == [".staging-new"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_is_a_store_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    put(tmp_path, {"a.jsonl": pairs(9)})

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("cloudft.data.staging.jsonl_writer.JsonlWriter._write", refuse)
    with pytest.raises(StoreError, match=os.strerror(number)) as caught:
        staged(tmp_path, train="a.jsonl")
    assert caught.value.fix
    assert list((tmp_path / "root").iterdir()) == []


def test_a_root_that_is_a_file_is_a_store_error(tmp_path: Path):
    put(tmp_path, {"a.jsonl": pairs(2), "root": "x"})
    with pytest.raises(StoreError) as caught:
        staged(tmp_path, train="a.jsonl")
    assert caught.value.fix


def test_mix_takes_its_share_of_the_result_and_spreads_it(tmp_path: Path):
    put(tmp_path, {"a.jsonl": pairs(100), "g.jsonl": pairs(100, 1000), "h.jsonl": pairs(50, 2000)})
    mix = [{"path": "g.jsonl", "share": 0.2}, {"path": "h.jsonl", "share": 0.1}]
    result = staged(tmp_path, train="a.jsonl", validation=0.3, mix=mix)
    numbers = [int(r["prompt"][1:]) for r in lines(result)]
    own = [n for n in numbers if n < 1000]
    general = [n for n in numbers if 1000 <= n < 2000]
    assert (len(numbers), len(general), len(own)) == (100, 20, 70)
    assert own == sorted(own)
    assert general == sorted(general)
    assert all(n < 1000 for n in (int(r["prompt"][1:]) for r in lines(result, "validation")))
    places = [i for i, n in enumerate(numbers) if 1000 <= n < 2000]
    assert max(b - a for a, b in itertools.pairwise(places)) <= 7
    other = staged(tmp_path, train="a.jsonl", validation=0.3, mix=mix, seed=8)
    assert other.manifest.sha256 != result.manifest.sha256


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"mix": [{"path": "few.jsonl", "share": 0.5}]}, "data.mix.0.share"),
        ({"train": "one.jsonl", "validation": 0.1}, "data.validation"),
        ({"train": "same.jsonl", "validation": 0.1}, "data.validation"),
    ],
)
def test_too_few_records(tmp_path: Path, data: dict[str, Any], field: str):
    put(tmp_path, {"a.jsonl": pairs(9), "few.jsonl": pairs(3), "one.jsonl": pairs(1)})
    put(tmp_path, {"same.jsonl": pairs(1) * 9})
    data = {"train": "a.jsonl", **data}
    with pytest.raises(CheckFailed) as caught:
        staged(tmp_path, **data)
    errors = [f for f in caught.value.findings if f.severity == "error"]
    assert [(f.code, f.field) for f in errors] == [("TooFewRecords", field)]
    examined = check_data(DataSpec.model_validate(data), format="converse", base_dir=tmp_path)
    assert examined.findings == tuple(caught.value.findings) and examined.volumes is None


def test_progress_reports_the_records_read(tmp_path: Path):
    put(tmp_path, {"a.jsonl": pairs(20_000), "b.jsonl": pairs(10)})
    reported: list[int] = []
    data = DataSpec.model_validate({"train": "a.jsonl", "test": "b.jsonl"})
    check_data(data, format="converse", base_dir=tmp_path, progress=reported.append)
    assert reported == sorted(reported) and reported[-1] == 20_010 and len(reported) > 5


def test_parquet_reads_like_jsonl(tmp_path: Path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    records = [chat("s", "q", "a"), chat(None, "q", "a")]
    parquet.write_table(arrow.Table.from_pylist(records), tmp_path / "x.parquet")
    put(tmp_path, {"x.jsonl": records})
    one, other = (staged(tmp_path, "converse", train=f"x.{end}") for end in ("parquet", "jsonl"))
    assert one.manifest.sha256 == other.manifest.sha256


def test_every_label_gives_its_share_to_the_validation_set(tmp_path: Path):
    labels = ["rare"] * 10 + ["common"] * 90
    records = [{"prompt": f"p{i}", "completion": label} for i, label in enumerate(labels)]
    put(tmp_path, {"a.jsonl": records})
    held = lines(staged(tmp_path, train="a.jsonl", validation=0.2), "validation")
    assert [r["completion"] for r in held] == ["rare"] * 2 + ["common"] * 18
    for seed in range(50):  # by chance alone, another number is the rule
        data = {"train": "a.jsonl", "validation": 0.2, "stratify": False, "seed": seed}
        held = lines(staged(tmp_path, **data), "validation")
        if sum(r["completion"] == "rare" for r in held) != 2:
            break
    else:
        raise AssertionError("stratify: false makes no difference")


@pytest.mark.parametrize("columns", [{}, {"prompt": "prompt", "completion": "completion"}])
def test_records_of_one_group_stay_on_one_side(tmp_path: Path, columns: dict[str, str]):
    records = [r | {"customer": f"c{i % 7}"} for i, r in enumerate(pairs(70))]
    put(tmp_path, {"a.jsonl": records})
    result = staged(tmp_path, train="a.jsonl", validation=0.3, group_by="customer", columns=columns)
    train, held = (
        {int(r["prompt"][1:]) % 7 for r in lines(result, s)} for s in ("train", "validation")
    )
    assert len(held) == 2 and len(train) == 5 and not train & held
    assert lines(result)[0].keys() == {"prompt", "completion"}


def test_a_record_without_its_group_is_an_error(tmp_path: Path):
    put(tmp_path, {"a.jsonl": pairs(3)})
    with pytest.raises(CheckFailed, match="no key 'customer'"):
        staged(tmp_path, train="a.jsonl", validation=0.3, group_by="customer")


def test_a_share_of_the_tokens(tmp_path: Path):
    long = [{"prompt": f"{i} " + "word " * 100, "completion": "x"} for i in range(200)]
    put(tmp_path, {"a.jsonl": pairs(1000), "g.jsonl": long})
    mix = [{"path": "g.jsonl", "share": 0.5, "by": "tokens"}]
    numbers = [
        len(r["prompt"] + r["completion"])
        for r in lines(staged(tmp_path, train="a.jsonl", mix=mix))
    ]
    general = sum(n for n in numbers if n > 100)
    assert abs(general - (sum(numbers) - general)) < 500, "half of the text, to one record"
    data = DataSpec.model_validate({"train": "a.jsonl", "mix": mix})
    volumes = check_data(data, format="prompt-completion", base_dir=tmp_path).volumes
    assert volumes is not None and abs(volumes["train"].records - len(numbers)) <= 1

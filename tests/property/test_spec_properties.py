from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudft.errors import SpecError
from cloudft.spec import load_job
from cloudft.spec.merge import read_environment

BASE = "name: a\nbase_model: nova-lite\ndata:\n  train: x.jsonl\n"
FIELDS = ["seed", "local.max_length", "local.micro_batch_size", "hyperparameters.epochCount"]
VALUE = st.integers(8, 65_536) | st.none()
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
NAMES = ["name", "seed", "data", "train", "local"]
SIGNS = ["- ", "---", "&a", "*a", "<<", "!!int", "%YAML 1.1", "1e-5", "\ud83d", "é"]
PIECES = [*NAMES, *SIGNS, *":{}[]~'\"?|#\n\t "]
YAMLISH = st.lists(st.sampled_from(PIECES), max_size=30).map(
    lambda parts: "".join(parts).encode("utf-8", "surrogatepass")
)


def load_bytes(raw: bytes, **layers: object) -> None:
    """Load a job: it gives a job or a SpecError, nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "job.yaml")
        path.write_bytes(raw)
        try:
            load_job(path, **layers)  # type: ignore[arg-type]
        except SpecError as exc:
            assert any(f.severity == "error" for f in exc.findings)
            assert all(f.code and f.message for f in exc.findings)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200) | YAMLISH | YAMLISH.map(lambda raw: BASE.encode() + raw))
def test_any_bytes_give_a_job_or_findings(raw: bytes):
    load_bytes(raw)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        WORDS | st.sampled_from(["seed", "local", "data.mix", "tags"]), WORDS, max_size=3
    ),
    st.dictionaries(WORDS.map("CLOUDFT_".__add__), WORDS, max_size=3),
)
def test_any_flag_and_variable_give_a_job_or_findings(flags: dict[str, str], env: dict[str, str]):
    load_bytes(BASE.encode(), flags=flags, environ=env)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FIELDS[:3]), VALUE, VALUE, VALUE)
def test_the_highest_layer_that_speaks_wins(
    name: str, flag: int | None, file: int | None, variable: int | None
):
    *sections, leaf = name.split(".")
    text = BASE
    if file is not None:
        text += "".join(f"{section}: " for section in sections)
        text += f"{{{leaf}: {file}}}\n" if sections else f"{leaf}: {file}\n"
    flags = {} if flag is None else {name: str(flag)}
    key = "CLOUDFT_" + name.replace(".", "__").upper()
    environ = {} if variable is None else {key: str(variable)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "job.yaml")
        path.write_text(text)
        job = load_job(path, flags=flags, environ=environ)
    layers = [("flag", flag), ("file", file), ("environment", variable)]
    kind, value = next(((k, v) for k, v in layers if v is not None), ("default", None))
    found = job.spec.model_dump()
    for part in name.split("."):
        found = found[part]
    assert job.origins[name].kind == kind
    if value is not None:
        assert found == value


@given(st.dictionaries(WORDS, WORDS))
def test_other_peoples_variables_are_left_alone(environ: dict[str, str]):
    environ = {k: v for k, v in environ.items() if not k.upper().startswith(("CLOUDFT_", "AWS_"))}
    assert read_environment(environ) == ([], [])

"""Adding a section to the job file: one registration is enough for everything that reads it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import Field

from cloudft.errors import SpecError
from cloudft.spec import build_job_schema, load_job, resolve_values
from cloudft.spec.checks import CheckContext
from cloudft.spec.fields import Int
from cloudft.spec.load import load_spec
from cloudft.spec.merge import Origin
from cloudft.spec.sections import JobSection, Section, register_section, registered_section
from cloudft.spec.serialize import to_portable_values
from cloudft.spec.stack_defaults import is_unset, with_defaults
from cloudft.types import Finding

JOB = "name: a\nbase_model: smollm2-135m\ndata: {train: a.jsonl}\n"


class LabSpec(Section):
    """Settings of a cluster in the lab."""

    queue: str | None = Field(default=None, description="Queue of the scheduler.")
    hours: Int = Field(default=1, ge=1, le=48, description="Wall time.")


def check_lab(values: Mapping[str, object], context: CheckContext) -> list[Finding]:
    """Refuse the queue that is closed."""
    if values.get("queue") != "old":
        return []
    key = ("lab", "queue")
    return [context.source_map.make_finding("ClosedQueue", key, "old is closed", "use new")]


LAB = JobSection(
    "lab", LabSpec, "A lab's cluster.", check=check_lab, environment={"LAB_QUEUE": "queue"}
)


@pytest.fixture
def lab() -> Iterator[JobSection]:
    with registered_section(LAB):
        yield LAB


def write(folder: Path, text: str) -> Path:
    path = folder / "cloudft.yaml"
    path.write_text(JOB + text)
    return path


def test_a_registered_section_is_read_checked_and_shown(tmp_path: Path, lab: JobSection) -> None:
    environ = {"CLOUDFT_LAB__HOURS": "3", "LAB_QUEUE": "long"}
    job = load_job(write(tmp_path, "lab: {hours: 2}\n"), environ=environ)
    assert job.spec.section(LabSpec) == LabSpec(queue="long", hours=2)
    shown = {v.field: (v.value, v.origin.kind) for v in resolve_values(job)}
    assert (shown["lab.hours"], shown["lab.queue"]) == ((2, "file"), ("long", "environment"))
    assert list(shown)[-2:] == ["lab.queue", "lab.hours"]
    again = load_spec(to_portable_values(job))
    assert again.spec.section(LabSpec) == job.spec.section(LabSpec)


@pytest.mark.parametrize("first", ["local", "sagemaker"])
def test_the_order_of_sections_is_that_of_their_folders(first: str) -> None:
    """Whatever was imported before: the schema and the reference list them in this order."""
    code = f"import cloudft.backends.{first}.job_section\n"
    code += "from cloudft.spec.sections import job_sections\nprint(*job_sections())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    order = ["bedrock", "distillation", "reinforcement", "export", "local", "preference"]
    order += ["sagemaker", "sweep"]
    assert done.stdout.split() == order


def test_faults_in_a_registered_section_are_findings(tmp_path: Path, lab: JobSection) -> None:
    text = "lab: {queue: old, hour: 2}\nlabb: {}\n"
    with pytest.raises(SpecError) as caught:
        load_job(write(tmp_path, text))
    assert {(f.code, f.field, f.line, f.fix) for f in caught.value.findings} == {
        ("ClosedQueue", "lab.queue", 4, "use new"),
        ("UnknownKey", "lab.hour", 4, "did you mean hours?"),
        ("UnknownKey", "labb", 5, "did you mean lab?"),
    }


def test_a_stack_can_fill_a_registered_section(tmp_path: Path, lab: JobSection) -> None:
    job = load_job(write(tmp_path, "lab:\n"))
    assert is_unset(job, "lab", "queue")
    filled = with_defaults(job, "lab", {"queue": "q"}, {"queue": Origin("stack", "stack lab")})
    assert filled.spec.section(LabSpec) == LabSpec(queue="q")
    assert filled.origins["lab.queue"].kind == "stack"


def test_the_schema_names_a_registered_section_while_it_is_there(tmp_path: Path) -> None:
    before = build_job_schema()
    with registered_section(LAB):
        schema = build_job_schema()
        assert schema["properties"]["lab"]["description"] == "A lab's cluster."
        assert set(schema["$defs"]["LabSpec"]["properties"]) == {"queue", "hours"}
        with pytest.raises(ValueError, match="registered already"):
            register_section(LAB)
    assert build_job_schema() == before
    with pytest.raises(SpecError, match="no field 'lab'"):
        load_job(write(tmp_path, "lab: {hours: 2}\n"))

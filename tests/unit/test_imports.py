"""Which room may use which, and what a start of the command line loads."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cli_commands import COMMAND_PATHS, find_command

import cloudft
import local_backend

SOURCES = Path(cloudft.__file__).parent
TRAINER = Path(local_backend.__file__).parent
LAYERS = yaml.safe_load(
    (SOURCES.parent / "docs" / "explanation" / "layers.yaml").read_text(encoding="utf-8")
)
"""A package imports those of lower layers only. A new package needs a line there."""
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}
ONLY_IMPORTED_IN = {
    "cloudft.endpoint": ("endpoint", "cli/commands/endpoint.py"),
    "moto": ("endpoint/moto",),
    "jsonata": ("endpoint/moto",),
    "werkzeug": ("endpoint",),
}
"""Package -> the files and folders of cloudft that may import it."""
HEAVY = {"torch", "boto3", "botocore", "pydantic", "yaml", "rich", "transformers"}


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere, those for type checking alone left out."""
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its room"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        nodes += ast.iter_child_nodes(node)


@functools.cache
def uses(folder: Path) -> list[tuple[Path, str]]:
    """(file relative to `folder`, dotted name) for every import below it."""
    return [
        (path.relative_to(folder), name)
        for path in sorted(folder.rglob("*.py"))
        for name in imported(path)
    ]


def room(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def users(package: str) -> set[str]:
    """The rooms of cloudft that import the package."""
    return {room(path) for path, name in uses(SOURCES) if name.split(".")[0] == package}


def test_imports_go_one_way() -> None:
    rooms = {room(path) for path in (p.relative_to(SOURCES) for p in SOURCES.rglob("*.py"))}
    assert rooms - {"__init__"} == LAYER.keys()
    upwards = [
        f"{path}: {name}"
        for path, name in uses(SOURCES)
        if name.startswith("cloudft.")
        and path.parts != ("__init__.py",)
        and (other := name.split(".")[1]) in LAYER
        and other != room(path)
        and LAYER[other] >= LAYER[room(path)]
    ]
    assert upwards == []


@pytest.mark.parametrize("package", ONLY_IMPORTED_IN)
def test_the_emulator_is_imported_by_its_command_alone(package: str) -> None:
    importers = {
        path.as_posix()
        for path, name in uses(SOURCES)
        if name == package or name.startswith(f"{package}.")
    }
    allowed = ONLY_IMPORTED_IN[package]
    assert importers, f"{package}: no import is found"
    assert [p for p in sorted(importers) if not p.startswith(allowed)] == []


def test_one_backend_never_imports_another() -> None:
    shared = {"__pycache__", "aws_base"}
    folders = {p.name for p in (SOURCES / "backends").iterdir() if p.is_dir()} - shared
    assert "local" in folders
    foreign = [
        f"{path}: {name}"
        for path, name in uses(SOURCES / "backends")
        if name.startswith("cloudft.backends.")
        and (other := name.split(".")[2]) in folders
        and other != path.parts[0]
    ]
    assert foreign == []


def test_each_heavy_package_stays_in_its_room() -> None:
    assert users("click") == {"cli"}
    assert users("rich") <= {"cli"}
    assert users("matplotlib") <= {"cli"}
    assert users("boto3") | users("botocore") <= {"aws", "endpoint"}
    assert {
        path.parts[0] if path.parts[0] == "spec" else path.name
        for path, name in uses(SOURCES)
        if name.split(".")[0] == "pydantic"
    } == {"spec", "job_section.py"}
    assert {path.name for path, name in uses(SOURCES) if name.startswith("sagemaker.")} == {
        "images.py"
    }
    for package in ("sklearn", "scipy", "sacrebleu", "rouge_score", "bm25s", "krippendorff"):
        assert users(package) <= {"evaluate"}
    for package in ("torch", "transformers", "peft", "safetensors", "accelerate", "local_backend"):
        assert users(package) == set()


def test_the_trainer_knows_nothing_of_us_or_of_aws() -> None:
    foreign = {"cloudft", "boto3", "botocore", "click", "pydantic", "yaml", "orjson"}
    assert [use for use in uses(TRAINER) if use[1].split(".")[0] in foreign] == []
    assert any(name == "torch" for _, name in uses(TRAINER))


def test_a_helper_has_a_room_of_its_own_and_not_a_drawer() -> None:
    drawers = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
    files = [*SOURCES.rglob("*.py"), *TRAINER.rglob("*.py")]
    assert [path for path in files if path.name in drawers] == []


def loaded_by(*arguments: str, **environment: str) -> tuple[set[str], str]:
    """The modules that `cloudft ARGUMENTS` has loaded when it is through, and what it printed."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('\\n'.join(sys.modules), file=sys.stderr))\n"
        "sys.argv[0] = 'cloudft'\n"
        "from cloudft.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return set(done.stderr.split()), done.stdout


def test_help_loads_nothing_heavy() -> None:
    modules, said = loaded_by("--help")
    assert "submit" in said and "Fine-tune" in said
    assert "cloudft.cli.main" in modules
    assert HEAVY & modules == set()
    assert {m for m in modules if m.startswith("cloudft.")} <= {
        "cloudft.cli",
        "cloudft.cli.main",
        "cloudft.cli.errors",
        "cloudft.cli.lazy_group",
        "cloudft.cli.streams",
        "cloudft.errors",
    }


@pytest.mark.parametrize(
    ("line", "words", "offered"),
    [("cloudft st", "1", "status"), ("cloudft status j", "2", "job-1234")],
    ids=["command", "job"],
)
def test_completion_loads_nothing_heavy(home: Path, line: str, words: str, offered: str) -> None:
    (home / "jobs" / "job-1234").mkdir(parents=True)
    modules, said = loaded_by(_CLOUDFT_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=words)
    assert f"plain,{offered}" in said.split()
    assert HEAVY & modules == set()


def test_the_library_loads_what_is_requested() -> None:
    code = "import sys, cloudft; print(*sys.modules); cloudft.load_job; print(*sys.modules)"
    before, after = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "cloudft.spec" not in before.split()
    assert "cloudft.spec" in after.split()
    assert "torch" not in after.split()


@pytest.mark.parametrize("words", COMMAND_PATHS, ids=" ".join)
def test_every_command_is_there_with_an_example_and_output(words: tuple[str, ...]) -> None:
    command = find_command(words)
    assert command.name == words[-1]
    assert f"cloudft {' '.join(words)}" in (command.epilog or "")
    assert "Example" in (command.epilog or "")
    assert "--output" in {option for p in command.params for option in p.opts}

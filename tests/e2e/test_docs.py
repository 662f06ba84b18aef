"""The docs are run: what README and docs tell people to type does what they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import preloaded
import pytest
from cli_commands import COMMAND_PATHS, GROUPS, find_command, make_context
from endpoint import TOKEN, running_endpoint
from processes import Cli

from cloudft.catalogue.stated_prices import read_stated_prices
from cloudft.cli.commands.endpoint import read_local_models
from cloudft.endpoint.supported_operations import render_markdown_table
from cloudft.spec.load import load_job
from cloudft.starter import FOLDERS, write_starter

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
EXAMPLES = sorted((ROOT / "examples").glob("*/cloudft.yaml"))
TEXTS = [
    *PAGES,
    *sorted((ROOT / "examples").rglob("*.md")),
    *EXAMPLES,
    *sorted((ROOT / "cloudft" / "starter").rglob("*.yaml")),
]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def shell(script: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A script as a user would type it, `cloudft` being the one under test."""
    places = (
        Path(preloaded.interpreter_path()).parent,
        Path(sys.executable).parent,
        os.environ["PATH"],
    )
    path = os.pathsep.join(map(str, places))
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": path} | more,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.real_model
def test_the_first_job_of_the_readme(tmp_path: Path, home: Path, real_model: None) -> None:
    [block] = blocks(ROOT / "README.md", "console")
    commands = [line.removeprefix("$ ") for line in block.splitlines()]
    assert [shlex.split(c)[1] for c in commands if c.startswith("cloudft")] == [
        *("init", "check", "submit", "generate", "metrics", "export")
    ]
    done = shell("\n".join(commands), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert "Completed" in done.stderr
    assert "tuned:      billing\n" in done.stdout, done.stdout
    folder = tmp_path / "my-job"
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "merged-model" / "model.safetensors").is_file()
    [job] = (home / "jobs").iterdir()
    result = json.loads((job / "artifacts" / "result.json").read_text())["summary"]
    assert result["tuned"]["validationLoss"] < 0.5 * result["base"]["validationLoss"]


@pytest.mark.real_model
def test_the_commands_of_the_data_page(tmp_path: Path, real_weights: None) -> None:
    [block] = blocks(ROOT / "docs" / "data.md", "console")
    commands = [line.removeprefix("$ ") for line in block.splitlines()]
    assert {tuple(shlex.split(c)[1:3]) for c in commands if " data " in c} == {
        words for words in COMMAND_PATHS if words[0] == "data"
    }
    done = shell("\n".join(commands), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert "[[" in done.stdout and "nothing found" in done.stdout and "0 leaks" in done.stdout
    made = {path.name for path in (tmp_path / "shop").iterdir()}
    assert {"parts", "unique.jsonl", "held-out.csv", "mixed.jsonl", "data.html"} <= made


def test_the_commands_of_the_bedrock_page(tmp_path: Path, tiny_model: Path) -> None:
    [block] = blocks(ROOT / "docs" / "bedrock.md", "console")
    commands = [line.removeprefix("$ ") for line in block.splitlines()]
    assert {shlex.split(c)[1] for c in commands} >= {"deploy", "undeploy", "ps", "gc", "list"}
    write_starter("FINE_TUNING", tmp_path / "job")
    path = tmp_path / "job" / "cloudft.yaml"
    with running_endpoint("--stand-in", tiny_model, "--set", "local.device=cpu") as endpoint:
        path.write_text(f"{path.read_text()}bedrock: {json.dumps(endpoint.bedrock_section)}\n")
        done = shell("\n".join(commands), path.parent, **endpoint.environ)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Completed" in done.stdout and "per hour" in done.stderr
    assert "removed deployment" in done.stdout and "custom-model" in done.stdout
    assert (path.parent / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_commands_of_the_infra_page(tmp_path: Path) -> None:
    [block] = blocks(ROOT / "docs" / "infra.md", "console")
    commands = [line.removeprefix("$ ") for line in block.splitlines()]
    told = {tuple(shlex.split(c)[1:3]) for c in commands if " infra " in c}
    assert told == {words for words in COMMAND_PATHS if words[0] == "infra"}
    [section] = blocks(ROOT / "docs" / "infra.md", "yaml")
    write_starter("FINE_TUNING", tmp_path / "job")
    path = tmp_path / "job" / "cloudft.yaml"
    path.write_text(path.read_text() + section)
    with running_endpoint("--clock", "fast", "--authorization") as endpoint:
        done = shell("\n".join(commands), path.parent, **endpoint.environ)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "28 changes, none made" in done.stdout
    assert "drift: none" in done.stdout and "stack team, BedrockRoleArn" in done.stdout
    assert "Completed" in done.stdout and "UPDATE_COMPLETE" in done.stdout
    assert "removed custom-model" in done.stdout and "team: removed" in done.stdout
    policy = json.loads((path.parent / "policy.json").read_text())
    assert policy["Statement"]


ENDPOINT_PAGE = ROOT / "docs" / "endpoint.md"


def test_the_scripts_of_the_endpoint_page(tmp_path: Path, tiny_model: Path) -> None:
    script, with_key, in_pytest = blocks(ENDPOINT_PAGE, "python")
    _, fault = blocks(ENDPOINT_PAGE, "sh")
    (tmp_path / "script.py").write_text(script)
    (tmp_path / "with_key.py").write_text(f"{with_key}\nprint(bedrock.list_custom_models())")
    (tmp_path / "test_theirs.py").write_text(in_pytest)
    settings = ("--set", "local.device=cpu", "--set", "hyperparameters.epochCount=1")
    with running_endpoint("--stand-in", tiny_model, *settings) as endpoint:
        where = endpoint.environ | {"AWS_DEFAULT_REGION": endpoint.environ["AWS_REGION"]}
        done = shell("python script.py", tmp_path, **where)
        keyed = shell("python with_key.py", tmp_path, **where, AWS_BEARER_TOKEN_BEDROCK="key")
        fault = fault.replace("http://127.0.0.1:5000", endpoint.url)
        ordered = shell(fault, tmp_path, CLOUDFT_ENDPOINT_TOKEN=TOKEN)
    assert "modelSummaries" in keyed.stdout, keyed.stderr
    assert ordered.stdout == "{}", ordered.stderr
    assert done.returncode == 0, done.stderr
    assert ":custom-model/amazon.titan-text-lite-v1:0:4k/" in done.stdout
    done = shell("python -m pytest -q -p no:cacheprovider test_theirs.py", tmp_path)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_operations_of_the_endpoint_page_are_those_of_the_code() -> None:
    text = ENDPOINT_PAGE.read_text()
    table = text.partition("<!-- operations -->\n")[2].partition("\n<!-- end -->")[0]
    assert table == render_markdown_table(), (
        "write the output of `cloudft endpoint --operations` there"
    )


def test_the_map_of_the_endpoint_page_is_taken(tmp_path: Path, tiny_model: Path) -> None:
    [shown] = blocks(ENDPOINT_PAGE, "yaml")
    (tmp_path / "map.yaml").write_text(shown)
    (tmp_path / "my-model").symlink_to(tiny_model)
    assert read_local_models(tmp_path / "map.yaml") == {
        "nova-pro": "smollm2-360m",
        "titan-text-lite": str(tmp_path / "my-model"),
    }


def test_the_job_file_of_the_readme_is_the_one_that_init_writes() -> None:
    [shown] = blocks(ROOT / "README.md", "yaml")
    folder = ROOT / "cloudft" / "starter" / FOLDERS["FINE_TUNING"]
    written = (folder / "cloudft.yaml").read_text().splitlines(keepends=True)
    assert shown == "".join(line for line in written if not line.startswith("#"))


def test_the_job_file_of_the_docs_has_every_field_and_is_accepted(
    tmp_path: Path, home: Path
) -> None:
    [text, prices] = blocks(ROOT / "docs" / "job-file.md", "yaml")
    home.mkdir(exist_ok=True)
    (home / "prices.yaml").write_text(prices)
    found = read_stated_prices()
    assert found.models and found.instances and found.import_units
    (tmp_path / "cloudft.yaml").write_text(text)
    job = load_job(tmp_path / "cloudft.yaml")
    assert [finding for finding in job.findings if finding.severity == "error"] == []
    told = set(re.findall(r"(\w+):", text))
    local = job.spec.local.model_fields_set | job.spec.data.model_fields_set
    assert local <= told
    for section in (job.spec.local, job.spec.bedrock, job.spec.sagemaker, job.spec.prices):
        assert type(section).model_fields.keys() <= told


def invocations() -> Iterator[tuple[str, list[str]]]:
    """Each `cloudft ...` that a text shows: where, and the words after `cloudft`."""
    for page in TEXTS:
        text = page.read_text()
        spans = re.findall(r"`(cloudft [^`]+)`", text)
        lines = re.findall(r"^(?:\$ |    |# \w+[^:\n]*: )(cloudft .+)$", text, re.MULTILINE)
        for shown in {*spans, *lines}:
            for part in shown.split(" && "):
                yield str(page.relative_to(ROOT)), shlex.split(part)[1:]


def test_every_command_and_option_that_the_docs_name_is_there() -> None:
    seen = set()
    for page, words in invocations():
        if words[0].startswith("-"):
            continue
        name = tuple(words[:2] if words[0] in GROUPS else words[:1])
        assert name in COMMAND_PATHS, f"{page}: cloudft {' '.join(words)}"
        command = find_command(name)
        options = {option for param in command.params for option in param.opts} | {"--help"}
        named = {re.match(r"-[a-z-]+", word.strip("[]")) for word in words[1:]} - {None}
        unknown = {match[0] for match in named if match} - options
        assert not unknown, f"{page}: cloudft {' '.join(words)}"
        seen.add(name[-1])
    assert {"init", "submit", "generate", "export", "doctor"} <= seen


@pytest.mark.real_model
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_examples_pass_their_check(cli: Cli, path: Path) -> None:
    done = cli("check", path, "--output", "json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["findings"] == []


@pytest.mark.parametrize("kind", FOLDERS)
def test_what_init_writes_passes_its_check(cli: Cli, tmp_path: Path, kind: str) -> None:
    write_starter(kind, tmp_path / "job")
    done = cli("check", cwd=tmp_path / "job")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", COMMAND_PATHS, ids=" ".join)
def test_the_examples_of_a_commands_help_parse(name: tuple[str, ...]) -> None:
    command = find_command(name)
    assert command.epilog
    shown = [line.strip() for line in command.epilog.splitlines() if "cloudft " in line]
    assert shown
    for line in shown:
        words = shlex.split(line[line.index("cloudft ") :].partition(" > ")[0].partition(" >> ")[0])
        assert tuple(words[1 : 1 + len(name)]) == name
        with make_context(name, words[1 + len(name) :]):
            pass

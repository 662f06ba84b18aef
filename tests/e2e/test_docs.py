"""Run the documentation: every command, script, link and generated page."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import preloaded
import pytest
import tiny
from cli_commands import COMMAND_PATHS, GROUPS, find_command, make_context
from endpoint import TOKEN, running_endpoint
from processes import Cli, JobFile

import cloudft
from cloudft.catalogue.stated_prices import read_stated_prices
from cloudft.cli.commands.endpoint import read_local_models
from cloudft.spec.load import load_job
from cloudft.starter import FOLDERS, write_starter

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README, TUTORIALS, HOW_TO = ROOT / "README.md", DOCS / "tutorials", DOCS / "how-to"
PAGES = [README, *sorted(DOCS.rglob("*.md")), ROOT / "CONTRIBUTING.md"]
EXAMPLES = sorted((ROOT / "examples").glob("*/cloudft.yaml"))
TEXTS = [
    *PAGES,
    *sorted((ROOT / "examples").rglob("*.md")),
    *EXAMPLES,
    *sorted((ROOT / "cloudft" / "starter").rglob("*.yaml")),
]
SESSION = re.compile(r"(?<=<!-- session: )([a-z-]+)( -->\n```console\n)(.*?)(?=^```)", re.S | re.M)
RECORD = "RECORD_DOCS"
"""In the environment: sessions are written into the pages with their current output."""
SHOWN_HOME = "/home/ada/.cloudft"


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def shell(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a user would type it, `cloudft` being the one under test."""
    programs = (
        Path(preloaded.interpreter_path()).parent,
        Path(sys.executable).parent,
        os.environ["PATH"],
    )
    path = os.pathsep.join(map(str, programs))
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def sessions(page: Path, name: str) -> list[tuple[str, str]]:
    """Return the commands of a page's session, each with the output that the page shows."""
    text = "".join(block[3] for block in SESSION.finditer(page.read_text()) if block[1] == name)
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(command, shown) for command, _, shown in (part.partition("\n") for part in parts)]


def comparable(output: str) -> str:
    """Return output without what differs between machines: numbers, ids, digests, spacing."""
    output = re.sub(r"\b[0-9a-f]{8,64}\b", "ID", output)
    return " ".join(re.sub(r"\d[\d.,:/-]*", "0", output).split())


def matches(shown: str, output: str) -> bool:
    """Return whether output is what a page shows; `...` on the page stands for any text."""
    pattern = r".*".join(map(re.escape, comparable(shown).split("...")))
    return re.fullmatch(pattern, comparable(output), re.DOTALL) is not None


def run_session(
    page: Path, name: str, folder: Path, home: Path, unchecked: str = "", **environment: str
) -> dict[str, str]:
    """Run a session and compare what each command prints on standard output with the page.

    The output of the subcommand `unchecked` is not compared. Return command -> output.
    """
    commands = sessions(page, name)
    assert commands
    # `init` explains its choices on standard error; other commands write their progress there.
    script = "\n".join(
        f"echo '@@@'\n{command}{' 2>&1' * command.startswith('cloudft init')}"
        for command, _ in commands
    )
    done = shell(script, folder, CLOUDFT_HOME=str(home), **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    printed = done.stdout.replace(str(home), SHOWN_HOME).split("@@@\n")[1:]
    outputs = {command: text for (command, _), text in zip(commands, printed, strict=True)}
    if RECORD in os.environ:
        page.write_text(SESSION.sub(lambda m: _recorded(m, name, outputs), page.read_text()))
    for command, shown in sessions(page, name):
        if not unchecked or f"cloudft {unchecked}" not in command:
            assert matches(shown, outputs[command]), f"{command} prints\n{outputs[command]}"
    return outputs


def _recorded(block: re.Match[str], name: str, outputs: dict[str, str]) -> str:
    if block[1] != name:
        return block[0]
    commands = [line.removeprefix("$ ") for line in block[3].splitlines() if line[:2] == "$ "]
    return f"{block[1]}{block[2]}" + "".join(f"$ {c}\n{outputs[c]}" for c in commands)


@pytest.mark.real_model
def test_the_tutorial_of_the_first_job(tmp_path: Path, home: Path, real_model: None) -> None:
    page = TUTORIALS / "first-job.md"
    outputs = run_session(page, "first-job", tmp_path, home)
    assert "tuned:      billing\n" in "".join(outputs.values())
    folder = tmp_path / "my-job"
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "merged-model" / "model.safetensors").is_file()
    [job] = (home / "jobs").iterdir()
    result = json.loads((job / "artifacts" / "result.json").read_text())["summary"]
    assert result["tuned"]["validationLoss"] < 0.5 * result["base"]["validationLoss"]


@pytest.mark.real_model
def test_the_tutorial_with_ones_own_data(tmp_path: Path, home: Path, real_model: None) -> None:
    write_starter("FINE_TUNING", tmp_path / "my-job")
    run_session(TUTORIALS / "your-own-data.md", "your-own-data", tmp_path, home)


@pytest.mark.real_model
def test_the_session_of_the_serving_page(tmp_path: Path, home: Path, real_model: None) -> None:
    pytest.importorskip("llguidance")
    page = HOW_TO / "serve-locally.md"
    write_starter("FINE_TUNING", tmp_path / "job")
    done = shell("cloudft submit --wait --quiet", tmp_path / "job", CLOUDFT_HOME=str(home))
    assert done.returncode == 0, done.stderr
    [script] = blocks(page, "python")
    (tmp_path / "ask.py").write_text(script)
    outputs = run_session(page, "serve-locally", tmp_path, home)
    assert outputs["python3 ask.py"].startswith("shipping\n")


def test_the_page_on_exports(tmp_path: Path, home: Path, cli: Cli, job_file: JobFile) -> None:
    path = job_file(name="ticket-router", validation=tiny.pairs(4))
    assert cli("submit", str(path), "--wait").returncode == 0
    run_session(HOW_TO / "take-the-model-away.md", "take-away", tmp_path, home)
    assert (tmp_path / "for-llama" / "model.gguf").is_file()


def test_the_tutorial_of_bedrock(tmp_path: Path, home: Path, tiny_model: Path) -> None:
    page, name = TUTORIALS / "bedrock-on-your-machine.md", "bedrock-on-your-machine"
    options = ("--authorization", "--stand-in", tiny_model, "--set", "local.device=cpu")
    with running_endpoint(*options) as endpoint:
        run_session(page, name, tmp_path, home, unchecked="generate", **endpoint.environ)


def test_the_sessions_of_the_readme_are_those_of_the_tutorials() -> None:
    for name in ("first-job", "your-own-data"):
        tutorial = dict(sessions(TUTORIALS / f"{name}.md", name))
        shown = sessions(README, name)
        assert shown
        for command, output in shown:
            assert matches(output, tutorial[command]), command


def load_generator() -> Any:
    """Import docs/generate.py."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with patch.object(sys, "path", [str(DOCS), *sys.path]):  # as when it is run as a script
        spec.loader.exec_module(module)
    return module


def test_the_generated_reference_is_current() -> None:
    generated = dict(load_generator().render_pages())
    outdated = [page for page, text in generated.items() if page.read_text() != text]
    assert outdated == [], "run: python docs/generate.py"
    pages = {page for page in (DOCS / "reference" / "cli").glob("*.md") if page.stem != "index"}
    assert pages <= generated.keys(), "remove the page of a command that no longer exists"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="needs Python 3.11 or newer")
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    done = shell("python -m zensical build --strict", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "build" / "site" / "index.html").is_file()


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = []
    for page in [*PAGES, ROOT / "CHANGELOG.md", *sorted((ROOT / "examples").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def test_every_file_that_the_docs_name_exists() -> None:
    folders = "cloudft|local_backend|tests|docs|examples|benchmarks|infra|findings"
    missing = []
    for page in PAGES:
        for name in re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text()):
            if "NAME" not in name and not (ROOT / name).exists():
                missing.append(f"{page.relative_to(ROOT)}: {name}")
    assert missing == []


def test_the_versions_of_the_clients_are_those_that_are_run() -> None:
    page = (DOCS / "reference" / "endpoint-clients.md").read_text()
    shown = dict(re.findall(r"^\| (\S+) \| (\^?\d\S+) \|", page, re.MULTILINE))
    pins = (ROOT / "tests" / "clients" / "requirements.txt").read_text()
    pins += "".join(re.findall(r"^awscli==.*\n", (ROOT / "constraints.txt").read_text(), re.M))
    installed = dict(re.findall(r"^([^#\s]+)==(\S+)$", pins, re.MULTILINE))
    assert installed.pop("pytest")
    package = json.loads((ROOT / "examples" / "endpoint" / "node" / "package.json").read_text())
    runtime = "@aws-sdk/client-bedrock-runtime"
    assert shown == {**installed, runtime: package["dependencies"][runtime]}


def test_every_page_is_in_the_navigation() -> None:
    navigation = set(re.findall(r'"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text()))
    commands = {page for page in navigation if page.startswith("reference/cli/")}
    assert commands == {"reference/cli/index.md"}
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert {p for p in pages if not p.startswith("reference/cli/")} == navigation - commands


def test_every_exported_name_exists_and_the_api_example_runs(
    tmp_path: Path, home: Path, tiny_model: Path
) -> None:
    assert all(getattr(cloudft, name) for name in cloudft.__all__)
    [example, *_] = blocks(DOCS / "reference" / "python-api.md", "python")
    write_starter("FINE_TUNING", tmp_path / "job")
    settings = {
        "CLOUDFT_HYPERPARAMETERS__EPOCHCOUNT": "1",
        "CLOUDFT_LOCAL__DEVICE": "cpu",
    }
    path = tmp_path / "job" / "cloudft.yaml"
    path.write_text(path.read_text().replace("smollm2-135m", str(tiny_model)))
    script = tmp_path / "job" / "example.py"
    script.write_text(f"{example}\nprint(state.status)\n")
    done = shell("python example.py", script.parent, CLOUDFT_HOME=str(home), **settings)
    assert done.stdout == "Completed\n", done.stderr


@pytest.mark.real_model
def test_the_commands_of_the_data_page(tmp_path: Path, real_weights: None) -> None:
    [block] = blocks(HOW_TO / "prepare-data.md", "console")
    commands = [line.removeprefix("$ ") for line in block.splitlines()]
    assert {tuple(shlex.split(c)[1:3]) for c in commands if " data " in c} == {
        words for words in COMMAND_PATHS if words[0] == "data"
    }
    general = (json.dumps({"prompt": f"{n} + 1?", "completion": str(n + 1)}) for n in range(20))
    (tmp_path / "general.jsonl").write_text("\n".join(general))
    done = shell("\n".join(commands), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert "[[" in done.stdout and "nothing found" in done.stdout and "0 leaks" in done.stdout
    made = {path.name for path in (tmp_path / "shop").iterdir()}
    assert {"parts", "unique.jsonl", "held-out.csv", "mixed.jsonl", "data.html"} <= made


def test_the_commands_of_the_bedrock_page(tmp_path: Path, tiny_model: Path) -> None:
    [block] = blocks(HOW_TO / "train-on-bedrock.md", "console")
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
    [block] = blocks(HOW_TO / "set-up-aws.md", "console")
    commands = [line.removeprefix("$ ") for line in block.splitlines()]
    shown = {tuple(shlex.split(c)[1:3]) for c in commands if " infra " in c}
    assert shown == {words for words in COMMAND_PATHS if words[0] == "infra"}
    [section] = blocks(HOW_TO / "set-up-aws.md", "yaml")
    write_starter("FINE_TUNING", tmp_path / "job")
    path = tmp_path / "job" / "cloudft.yaml"
    path.write_text(path.read_text() + section)
    with running_endpoint("--clock", "fast", "--authorization") as endpoint:
        done = shell("\n".join(commands), path.parent, **endpoint.environ)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "28 changes, none executed" in done.stdout
    assert "drift: none" in done.stdout and "stack team, BedrockRoleArn" in done.stdout
    assert "Completed" in done.stdout and "UPDATE_COMPLETE" in done.stdout
    assert "removed custom-model" in done.stdout and "team: removed" in done.stdout
    policy = json.loads((path.parent / "policy.json").read_text())
    assert policy["Statement"]


ENDPOINT_PAGE = HOW_TO / "use-the-endpoint.md"


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


def test_the_map_of_the_endpoint_page_is_taken(tmp_path: Path, tiny_model: Path) -> None:
    [shown] = blocks(ENDPOINT_PAGE, "yaml")
    (tmp_path / "map.yaml").write_text(shown)
    (tmp_path / "my-model").symlink_to(tiny_model)
    assert read_local_models(tmp_path / "map.yaml") == {
        "nova-pro": "smollm2-360m",
        "titan-text-lite": str(tmp_path / "my-model"),
    }


def test_the_job_file_of_the_docs_has_every_field_and_is_accepted(
    tmp_path: Path, home: Path
) -> None:
    [text] = blocks(DOCS / "reference" / "job-file.md", "yaml")
    [prices] = blocks(DOCS / "reference" / "prices.md", "yaml")
    home.mkdir(exist_ok=True)
    (home / "prices.yaml").write_text(prices)
    found = read_stated_prices()
    assert found.models and found.instances and found.import_units
    (tmp_path / "cloudft.yaml").write_text(text)
    job = load_job(tmp_path / "cloudft.yaml")
    assert [finding for finding in job.findings if finding.severity == "error"] == []
    shown = set(re.findall(r"(\w+):", text))
    local = job.spec.local.model_fields_set | job.spec.data.model_fields_set
    assert local <= shown
    tracking = job.spec.tracking
    assert tracking is not None
    trackers = (tracking, tracking.mlflow, tracking.tensorboard, tracking.wandb, tracking.trackio)
    sections = (job.spec.local, job.spec.bedrock, job.spec.sagemaker, job.spec.prices)
    for section in (*sections, *trackers):
        assert type(section).model_fields.keys() <= shown


def invocations() -> Iterator[tuple[str, list[str]]]:
    """Yield each `cloudft ...` that a text shows: the page, and the words after `cloudft`."""
    for page in TEXTS:
        if page.parent == DOCS / "reference" / "cli":  # generated, and with synopses
            continue
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

"""A model that was trained here, imported into Bedrock: it answers as the adapter did."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
from endpoint import BUCKET, REGION, ROLE, Endpoint, running_endpoint
from job_files import write_job_file
from processes import Cli, kill, wait_until

ASKED = ("--prompt", "Where is parcel 3?", "--max-new-tokens", "12", "--output", "json")


@dataclass(frozen=True)
class Story:
    """A trained job, its import, and where they are."""

    endpoint: Endpoint
    home: Path
    model: Path
    trained: str
    imported: dict[str, Any]


def value(done: Any) -> Any:
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Story]:
    """Run `submit --import` once for all tests."""
    root = tmp_path_factory.mktemp("import")
    model = shutil.copytree(tiny_model, root / "model")
    section = {"region": REGION, "import_role_arn": ROLE, "s3_uri": f"s3://{BUCKET}/team"}
    write_job_file(
        root / "job",
        model,
        name="routed",
        bedrock=section,
        tags={"team": "support"},
        validation=tiny.pairs(4),
        hyperparameters={"epochCount": 12, "learningRate": 0.03},
    )
    with running_endpoint() as endpoint:
        endpoint.fault({"operation": "CreateModelImportJob", "do": "drop"})  # its answer is lost
        command = ["submit", "--wait", "--import", "--output", "json"]
        done = subprocess.run(
            [preloaded.interpreter_path(), "-m", "cloudft", *command],
            cwd=root / "job",
            env=os.environ | endpoint.environ | {"CLOUDFT_HOME": str(root / "home")},
            capture_output=True,
            text=True,
            check=False,
        )
        imported = value(done)
        [trained] = (p.name for p in (root / "home" / "jobs").iterdir() if "-import-" not in p.name)
        yield Story(endpoint, root / "home", model, trained, imported)


@pytest.fixture
def story(made: Story, monkeypatch: pytest.MonkeyPatch) -> Story:
    for name, setting in made.endpoint.environ.items():
        monkeypatch.setenv(name, setting)
    monkeypatch.setenv("CLOUDFT_HOME", str(made.home))
    return made


def imports(story: Story) -> list[Any]:
    """Return the import jobs of the account."""
    listed = story.endpoint.client("bedrock").list_model_import_jobs()
    return list(listed["modelImportJobSummaries"])


def test_asking_an_imports_base_leaves_no_job(cli: Cli, story: Story) -> None:
    words = ("generate", story.imported["id"], "--base", "--prompt", "Where is parcel 1?")
    done = cli(*words, "--output", "json")
    assert done.returncode == 0, done.stderr
    listed = cli("list", "--output", "json")
    assert len(value(listed)) == 2 and listed.stderr == ""
    shown = cli("status", story.imported["id"]).stdout
    assert story.imported["summary"]["importedModel"] in shown and "custom model unit" in shown


def test_a_trained_model_is_merged_sent_and_imported_once(cli: Cli, story: Story) -> None:
    made = story.imported
    assert (made["backend"], made["status"]) == ("import", "Completed")
    assert made["name"] == "routed-import" and made["summary"]["converse"] is True
    assert ":imported-model/" in made["summary"]["importedModel"]
    requested, repeated = story.endpoint.calls("CreateModelImportJob")
    assert repeated == requested and len(imports(story)) == 1
    assert {"key": "team", "value": "support"} in requested["importedModelTags"]
    assert requested["clientRequestToken"] and requested["jobName"] == made["id"]
    sent = {key.rpartition("/")[2] for key in story.endpoint.object_keys() if "/imports/" in key}
    assert sent == {
        *("config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    plan = value(cli("import", story.trained, "--dry-run", "--output", "json"))
    assert plan["request"]["calls"][-1]["parameters"] == requested
    again = value(cli("import", story.trained, "--output", "json"))
    assert again["id"] == made["id"] and len(imports(story)) == 1


def test_the_imported_model_answers_as_the_adapter_did(cli: Cli, story: Story) -> None:
    here = value(cli("generate", story.trained, "--base", *ASKED))[0]
    there = value(cli("generate", story.imported["id"], *ASKED))[0]
    assert there["tuned"]["text"] == here["tuned"]["text"] != here["base"]["text"]
    words = ("evaluate", story.imported["id"], "--quick", "--yes", "--output", "json")
    found = value(cli(*words))
    assert found["identities"]["tuned"] == story.imported["summary"]["importedModel"]
    assert found["n"] == 4 and found["identities"]["base"] != found["identities"]["tuned"]


def test_what_bedrock_would_refuse_is_found_before_anything_is_merged(
    cli: Cli, story: Story
) -> None:
    path = story.model / "config.json"
    kept = path.read_text()
    path.write_text(json.dumps(json.loads(kept) | {"architectures": ["GemmaForCausalLM"]}))
    words = ("import", story.trained, "--dtype", "float32", "--output", "json")
    try:
        done = cli(*words)
    finally:
        path.write_text(kept)
    assert done.returncode == 3
    assert "GemmaForCausalLM" in json.loads(done.stdout)["error"]["message"]
    missing = cli(*words, "--set", "bedrock.import_role_arn=")
    assert missing.returncode == 3 and "import_role_arn" in missing.stdout
    assert not (story.home / "jobs" / story.trained / "import" / "float32").exists()
    other = cli("import", story.imported["id"])
    assert other.returncode == 2 and "exports no weights" in other.stderr


def test_another_machine_finds_the_import_and_gc_removes_its_model(cli: Cli, story: Story) -> None:
    made = story.imported
    shutil.rmtree(story.home / "jobs" / made["id"])
    listed = cli("list", "--backend", "import", "--output", "json")
    assert value(listed)[0]["id"] == made["id"] and "another machine" in listed.stderr
    collected = value(cli("gc", "--kind", "imported-model", "--live", "--yes", "--output", "json"))
    removed = [resource["id"] for resource in collected["removed"]]
    assert removed == [made["summary"]["importedModel"]]
    staged = value(cli("gc", "--kind", "data", "--dry-run", "--output", "json"))["found"]
    assert {t["name"] for t in staged} >= {"model.safetensors", "config.json"}
    assert {t["job"] for t in staged} == {made["id"]}
    refused = cli("generate", made["id"], "--prompt", "x")
    assert refused.returncode == 2 and "was removed from Bedrock" in refused.stderr
    again = value(cli("import", story.trained, "--wait", "--output", "json"))
    assert again["status"] == "Completed" and again["id"] != made["id"]
    assert again["summary"]["importedModel"] != made["summary"]["importedModel"]
    assert value(cli("import", story.trained, "--output", "json"))["id"] == again["id"]


def test_after_an_import_killed_while_merging_the_next_one_works_and_nothing_is_left(
    cli: Cli, story: Story
) -> None:
    """Kill the command, which ends its merge; wait for another import that is under way."""
    folder, before = story.home / "jobs" / story.trained / "import", len(imports(story))
    words = ("import", story.trained, "--dtype", "float16", "--output", "json")
    command = [preloaded.interpreter_path(), "-m", "cloudft", *words]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: list(folder.glob(".float16.*")), "it merges")
    kill(killed.pid)
    wait_until(lambda: not list(folder.glob(".float16.*")), "the merge has ended with it")
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in others]
    assert [process.returncode for process in others] == [0, 0], said
    assert json.loads(said[0])["id"] == json.loads(said[1])["id"]
    killed.wait()
    assert len(imports(story)) == before + 1
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ["bfloat16", "float16"]

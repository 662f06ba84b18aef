"""Push a tuned model to a stand-in of the Hub, and load it from there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import evaluated_job
import pytest
import tiny
import yaml
from hub_stand_in import TOKEN, USER, HubStandIn
from processes import Cli

REPO = f"{USER}/parcels"
LOAD = """
from transformers import AutoModelForCausalLM, AutoTokenizer
import sys
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], revision=sys.argv[2])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], revision=sys.argv[2])
for city in sys.argv[3:]:
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": f"Where is parcel 7 for {city}?"}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )
    answer = model.generate(**prompt, max_new_tokens=16, do_sample=False)
    print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
"""
Push = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def evaluated_home(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    root = evaluated_job.shared_root(tmp_path_factory.getbasetemp())
    return evaluated_job.make_evaluated_home(root, tiny_model)


@pytest.fixture(scope="module")
def exported(
    evaluated_home: Path, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Path:
    """Return the merged model of the job, exported once."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    subprocess.run(
        [sys.executable, "-m", "cloudft", "export", "-", str(folder)],
        env=os.environ | {"CLOUDFT_HOME": str(evaluated_home)},
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    with HubStandIn(tmp_path / "hub").serving() as stand_in:
        for name, value in stand_in.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield stand_in


@pytest.fixture
def push(cli: Cli, home: Path, hub: HubStandIn, evaluated_home: Path, exported: Path) -> Push:
    """Push the job's exported model, with more words."""
    shutil.copytree(evaluated_home, home)

    def run(*words: str | Path, repo: str = REPO) -> subprocess.CompletedProcess[str]:
        given = words if {"--from", "--format"} & set(words) else (*words, "--from", exported)
        return cli("push", "-", repo, *given)

    return run


def test_a_pushed_model_answers_as_the_tuned_one_and_its_card_has_the_report(
    push: Push, hub: HubStandIn, tmp_path: Path
) -> None:
    done = push("--output", "json", repo="parcels")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["hubId"] == REPO and result["private"] and result["pushed"]
    [commit] = hub.commits(REPO)
    assert commit["oid"] == result["commit"]
    assert hub.repositories[REPO]["private"]

    cities = tiny.CITIES[:3]
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, REPO, "main", *cities],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.split() == list(cities)

    card = hub.files(REPO)["README.md"].decode()
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["library_name"] == "transformers"
    assert metadata["license"] == "unknown"
    [entry] = metadata["model-index"]
    assert {"type": "accuracy", "value": 1.0, "name": "accuracy"} in entry["results"][0]["metrics"]
    assert "| accuracy | 0.000 (0.000 to 0.194) | 1.000 (0.806 to 1.000) | +1.000 |" in card
    for part in ("learningRate", "Limits", "not published", "near duplicates", "logits differ"):
        assert part in card


def test_nothing_private_is_in_what_is_pushed_nor_in_what_is_printed(
    push: Push, hub: HubStandIn, home: Path, tmp_path: Path
) -> None:
    done = push("--verbose")
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    for name, content in hub.files(REPO).items():
        for secret in (str(home), str(tmp_path), TOKEN, "Where is parcel"):
            assert secret.encode() not in content, name
    assert not list(home.glob(".push-*"))


def test_a_second_push_makes_no_second_commit(push: Push, hub: HubStandIn) -> None:
    assert push().returncode == 0
    before = len(hub.requests)
    done = push()
    assert done.returncode == 0, done.stderr
    assert "has this model already" in done.stdout
    assert len(hub.commits(REPO)) == 1
    assert all(method in ("GET", "HEAD") for method, _ in hub.requests[before:])


def test_files_that_another_format_left_are_removed_by_the_same_commit(
    push: Push, hub: HubStandIn, exported: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(exported, other)
    (other / "added_tokens.json").write_text("{}")
    assert push("--from", other).returncode == 0
    assert "added_tokens.json" in hub.files(REPO)
    assert push().returncode == 0
    assert "added_tokens.json" not in hub.files(REPO)
    assert ".gitattributes" in hub.files(REPO)
    assert len(hub.commits(REPO)) == 2


def test_a_commit_whose_reply_is_lost_is_made_once(push: Push, hub: HubStandIn) -> None:
    hub.lose_reply_to_commit = True
    done = push()
    assert done.returncode == 5
    assert "run the command again" in done.stderr
    assert push().returncode == 0
    assert len(hub.commits(REPO)) == 1


def test_a_dry_run_needs_no_hub_and_shows_files_and_card(push: Push, hub: HubStandIn) -> None:
    done = push("--dry-run", "--output", "json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"README.md", "cloudft.json", "model.safetensors"} <= {
        f["name"] for f in result["files"]
    }
    assert result["card"].startswith("---\n")
    assert hub.requests == []


def test_a_branch_is_made_where_it_is_missing(push: Push, hub: HubStandIn) -> None:
    assert push("--revision", "v2").returncode == 0
    assert len(hub.commits(REPO, "v2")) == 1
    assert hub.commits(REPO) == []
    assert "has this model already" in push("--revision", "v2").stdout


def test_a_new_branch_of_a_foreign_repository_is_foreign_too(push: Push, hub: HubStandIn) -> None:
    hub.create(REPO, private=True)
    hub.commit(REPO, "main", "by hand", {"notes.md": hub._put(b"mine")})
    done = push("--revision", "v2")
    assert done.returncode == 2
    assert "that cloudft did not push" in done.stderr
    assert "v2" not in hub.repositories[REPO]["branches"]


def test_the_card_that_another_tool_wrote_into_the_folder_is_replaced(
    push: Push, hub: HubStandIn, exported: Path, tmp_path: Path, home: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(exported, other)
    (other / "README.md").write_text(f"base: {home}")
    assert push("--from", other).returncode == 0
    assert "Scores" in hub.files(REPO)["README.md"].decode()
    assert (other / "README.md").read_text() == f"base: {home}"


def test_a_public_push_is_confirmed_and_the_unknown_license_said(
    push: Push, hub: HubStandIn
) -> None:
    done = push("--public")
    assert done.returncode != 0
    assert "the license of the base model" in done.stderr and "is not known" in done.stderr
    assert hub.repositories == {}
    assert push("--public", "--yes").returncode == 0
    assert not hub.repositories[REPO]["private"]


def test_a_private_push_into_a_public_repository_is_refused_before_anything_is_sent(
    push: Push, hub: HubStandIn
) -> None:
    hub.create(REPO, private=False)
    done = push()
    assert done.returncode == 2
    assert "is public: everybody would read the model" in done.stderr
    assert hub.commits(REPO) == []


def test_a_public_push_into_a_private_repository_is_refused(push: Push, hub: HubStandIn) -> None:
    hub.create(REPO, private=True)
    done = push("--public", "--yes")
    assert done.returncode == 2
    assert "is private" in done.stderr


@pytest.mark.parametrize("revision", ["main", "v2"])
def test_a_repository_or_branch_that_somebody_else_makes_meanwhile_gets_no_model(
    push: Push, hub: HubStandIn, revision: str
) -> None:
    """What was read before the export says neither that it is private nor that it is empty."""

    def make_first(method: str, path: str) -> None:
        if method == "POST" and path == "/api/repos/create" and revision == "main":
            hub.create(REPO, private=False)
        if method == "POST" and path.endswith("/branch/v2"):
            hub.repositories[REPO]["branches"]["v2"] = [*hub.repositories[REPO]["branches"]["main"]]
            hub.commit(REPO, "v2", "by hand", {"notes.md": hub._put(b"mine")})

    hub.on_request = make_first
    done = push("--revision", revision)
    assert done.returncode == 4, done.stderr
    assert "run the command again" in done.stderr
    assert all(one["summary"] == "by hand" for one in hub.commits(REPO, revision))
    hub.on_request = lambda method, path: None
    assert push("--revision", revision).returncode == 2, "it is public, or has foreign files"


def test_files_of_somebody_else_are_not_replaced_without_saying_so(
    push: Push, hub: HubStandIn
) -> None:
    hub.create(REPO, private=True)
    hub.commit(
        REPO, "main", "by hand", {"notes.md": hub._put(b"mine"), "README.md": hub._put(b"x")}
    )
    done = push()
    assert done.returncode == 2
    assert "that cloudft did not push" in done.stderr and "--overwrite" in done.stderr
    assert len(hub.commits(REPO)) == 1
    assert push("--overwrite").returncode == 0
    assert hub.files(REPO)["notes.md"] == b"mine"
    assert hub.files(REPO)["README.md"].startswith(b"---")


def test_the_license_of_the_base_is_read_from_its_card_on_the_hub(
    push: Push, hub: HubStandIn
) -> None:
    hub.models["org/base"] = {"license": "apache-2.0"}
    assert push("--base-model", "org/base").returncode == 0
    metadata = yaml.safe_load(hub.files(REPO)["README.md"].decode().split("---\n")[1])
    assert metadata["license"] == "apache-2.0"
    assert metadata["base_model"] == "org/base"
    assert metadata["base_model_relation"] == "finetune"


def test_an_adapter_names_its_base_by_the_hub_and_no_path(
    push: Push, hub: HubStandIn, home: Path
) -> None:
    [adapter] = home.glob("jobs/*/artifacts/model")
    done = push("--from", adapter)
    assert done.returncode == 2
    assert "--base-model ORG/NAME" in done.stderr
    assert push("--from", adapter, "--base-model", "org/base").returncode == 0
    config = json.loads(hub.files(REPO)["adapter_config.json"])
    assert config["base_model_name_or_path"] == "org/base"
    metadata = yaml.safe_load(hub.files(REPO)["README.md"].decode().split("---\n")[1])
    assert (metadata["library_name"], metadata["base_model_relation"]) == ("peft", "adapter")


def test_without_a_token_it_is_said_how_to_log_in(
    push: Push, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    done = push()
    assert done.returncode == 4
    assert "hf auth login" in done.stderr


def test_a_wrong_token_is_refused_and_not_printed(
    push: Push, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "hf_" + "y" * 34
    monkeypatch.setenv("HF_TOKEN", wrong)
    done = push("--verbose")
    assert done.returncode == 4
    assert "hf auth login" in done.stderr
    assert wrong not in done.stdout + done.stderr


def test_a_hub_that_is_switched_off_or_away_is_named(
    push: Push, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = push()
    assert done.returncode == 2
    assert "HF_HUB_OFFLINE" in done.stderr
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = push()
    assert done.returncode == 5
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("form", "weights", "library"),
    [
        ("adapter", "adapter_model.safetensors", "peft"),
        ("gguf", "model.gguf", "gguf"),
        ("merged", "model.safetensors", "transformers"),
    ],
)
def test_a_push_exports_the_job_itself(
    push: Push, hub: HubStandIn, home: Path, form: str, weights: str, library: str
) -> None:
    hub.models["org/base"] = {"license": "mit"}
    done = push("--format", form, "--base-model", "org/base")
    assert done.returncode == 0, done.stderr
    files = hub.files(REPO)
    assert weights in files
    assert f"library_name: {library}\n" in files["README.md"].decode()
    assert "## Verification" in files["README.md"].decode()
    assert str(home).encode() not in b"".join(files.values())
    assert not list(home.glob(".push-*"))

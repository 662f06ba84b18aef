"""The environment of the trainer's programs, as read in a running trainer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from processes import JobFile, kill, read_json, wait_until

from cloudft.backends import make_backend as backend_by_name
from cloudft.backends.base import Backend
from cloudft.jobs import lifecycle, prepare
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from cloudft.storage.store import Store

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_BEARER_TOKEN_BEDROCK": "secret-1",
    "AWS_PROFILE": "secret-2",
    "DATABASE_URL": "postgres://user:secret-3@db/x",
    "GITHUB_TOKEN": "secret-4",
    "HF_TOKEN": "secret-5",
    "HF_HUB_TOKEN": "secret-6",
    "HTTPS_PROXY": "http://user:secret-7@proxy:3128",
    "OPENAI_API_KEY": "secret-8",
    "PYTHON_KEYRING_PASSWORD": "secret-9",
    "MY_APP_SETTING": "secret-10",
    "SSH_AUTH_SOCK": "/secret-11",
    "WORLD_SIZE": "2",
}
USEFUL = {
    "CUDA_VISIBLE_DEVICES": "0",
    "HF_HOME": "/hub",
    "LC_ALL": "C.UTF-8",
    "LD_LIBRARY_PATH": "/lib",
    "MKL_NUM_THREADS": "1",
    "NCCL_DEBUG": "INFO",
    "PYTHONPATH": "",
    "TOKENIZERS_PARALLELISM": "true",
}


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(pair.decode().partition("=")[::2] for pair in pairs if pair)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
@pytest.mark.usefixtures("plain_starts")
def test_a_trainer_and_the_programs_beside_it_get_no_secret(
    job_file: JobFile, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (SECRETS | USEFUL).items():
        monkeypatch.setenv(name, value)
    where = Home.from_environ()
    local = backend_by_name("local", where)
    assert isinstance(local, Backend)
    job = load_job(job_file(records=8, hyperparameters={"epochCount": 1000}))
    staged, _ = prepare.prepare(job, local, where)
    submitted = lifecycle.submit(staged, local, Store(where.jobs))
    folder = where.jobs / submitted.record.id
    pids = wait_until(lambda: read_json(folder / "trainer.json"), "the trainer")
    try:
        seen = [environment_of(pids["supervisor"]), environment_of(pids["pid"])]
    finally:
        kill(pids["supervisor"])
        kill(pids["pid"])
    for environ in seen:
        assert not any("secret" in value or "AKIA" in value for value in environ.values())
        assert not SECRETS.keys() & environ.keys()
        assert {name: environ.get(name) for name in USEFUL} == USEFUL
        assert environ["CLOUDFT_MODEL_CACHE"] == str(where.models)
        assert environ["CLOUDFT_TOKEN_CACHE"] == str(where.tokens)
        assert environ["PATH"] == os.environ["PATH"]


def test_the_hub_s_token_goes_with_what_is_fetched_from_the_hub_alone(tmp_path: Path) -> None:
    from cloudft.backends.local.environment import (
        WeightLocation,
        filter_environment,
        needs_download,
    )

    environ = {"HF_TOKEN": "t", "HTTPS_PROXY": "p", "HF_HUB_TOKEN": "x", "AWS_PROFILE": "a"}
    assert filter_environment(environ, hub=False) == {}
    assert filter_environment(environ, hub=True) == {"HF_TOKEN": "t", "HTTPS_PROXY": "p"}
    hub, folder = WeightLocation("hub"), WeightLocation("folder", path=str(tmp_path))
    package = WeightLocation("package", module="torch")
    assert needs_download([hub]) and needs_download(
        [WeightLocation("package", module="nowhere"), hub]
    )
    assert not any(map(needs_download, ([], [folder], [folder, hub], [package, hub])))

"""The store, with several processes at work on it."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from job_records import make_record
from processes import wait_until

from cloudft.errors import DamagedJob, JobNotFound, JobStateConflict, StoreError, UsageError
from cloudft.storage.store import JobRecord, Store

CREATE = """
import os, sys, time
from pathlib import Path
from cloudft.storage.store import Store
from job_records import make_record
store, ids = Store(Path(sys.argv[1])), sys.argv[2:]
print("ready", flush=True)
sys.stdin.readline()
for job_id in ids:
    with store.create(make_record(store, job_id)) as made:
        marker = store.jobs / job_id / "sent"
        if made:
            time.sleep(0.002)
            marker.touch(exist_ok=False)
            print(job_id, flush=True)
        else:
            assert marker.exists(), "the submit that made it was still at work"
"""
HOLD = """
import sys
from pathlib import Path
from cloudft.storage.store import Store
from job_records import make_record
store = Store(Path(sys.argv[1]))
with store.create(make_record(store, sys.argv[2])):
    print("within", flush=True)
    sys.stdin.readline()
"""


def python(code: str, *args: object) -> subprocess.Popen[str]:
    """Start a fresh interpreter that runs `code` and may import what the tests do."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.fixture
def store(home: Path) -> Store:
    return Store(home / "jobs")


def add(store: Store, job_id: str, created: int = 0, *, submitted: bool = True) -> JobRecord:
    """Write a job as a submit leaves it, `created` seconds into a minute."""
    record = make_record(store, job_id, created_at=f"2026-01-02T03:04:{created:02d}.000+00:00")
    with store.create(record) as made:
        assert made
    if submitted:
        store.mark_submitted(job_id, f"backend-{job_id}")
    return store.get(job_id)


def listed(store: Store) -> list[str]:
    return [r.id if isinstance(r, JobRecord) else r.code for r in store.iter_records()]


def test_a_link_in_a_jobs_place_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    store, other = Store(tmp_path / "jobs"), tmp_path / "other"
    other.mkdir()
    store.jobs.mkdir()
    (store.jobs / "link-00000000").symlink_to(other)
    store.delete("link-00000000")
    assert list(store.jobs.iterdir()) == [] and other.is_dir()


def test_a_record_comes_back_as_it_was_written(store: Store) -> None:
    record = make_record(store, "router-12345678")
    with store.create(record) as made:
        assert made and store.get(record.id).is_being_submitted
    assert store.get(record.id) == record
    assert not store.get(record.id).is_being_submitted
    store.mark_submitted(record.id, "arn:job")
    assert store.get(record.id).backend_job_id == "arn:job"


def test_reading_creates_nothing(store: Store, home: Path) -> None:
    assert list(store.iter_records()) == []
    with pytest.raises(JobNotFound, match="no job yet"):
        store.find_by_reference("-")
    assert not home.exists()


def test_a_job_is_found_by_id_prefix_name_and_as_the_last_one(store: Store) -> None:
    add(store, "router-aaaa1111", 1)
    add(store, "router-bbbb2222", 3)
    add(store, "summary-cccc3333", 2)
    found = {
        reference: store.find_by_reference(reference).id
        for reference in ("router-aaaa1111", "router-b", "s", "router", "summary", "-")
    }
    assert found == {
        "router-aaaa1111": "router-aaaa1111",
        "router-b": "router-bbbb2222",
        "s": "summary-cccc3333",
        "router": "router-bbbb2222",  # the newest of that name
        "summary": "summary-cccc3333",
        "-": "router-bbbb2222",
    }
    assert listed(store) == ["router-bbbb2222", "summary-cccc3333", "router-aaaa1111"]


def test_a_prefix_of_several_jobs_is_refused_with_their_ids(store: Store) -> None:
    add(store, "router-aaaa1111")
    add(store, "router-bbbb2222")
    with pytest.raises(UsageError, match="rout matches 2 jobs: router-aaaa1111, router-bbbb2222"):
        store.find_by_reference("rout")


@pytest.mark.parametrize("reference", ["nothing", "", ".", "..", "../jobs", "router-aaaa1111/data"])
def test_what_is_no_job_is_not_found(store: Store, reference: str) -> None:
    add(store, "router-aaaa1111")
    with pytest.raises(JobNotFound):
        store.find_by_reference(reference)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "can't be read"),
        (b'{"version": 1', "can't be read"),
        (b'{"version": 1}', "missing required field `id`"),
        (b"[]", "can't be read"),
        (b"\xff\xfe", "can't be read"),
        (b'{"version": 2}', "has version 2, and this cloudft reads version 1"),
        (None, "No such file"),
    ],
    ids=["empty", "cut", "keys-missing", "no-mapping", "no-text", "from-the-future", "gone"],
)
def test_a_damaged_job_is_reported_and_the_others_list(
    store: Store, content: bytes | None, said: str
) -> None:
    add(store, "good-aaaa1111", 1)
    bad = add(store, "bad-bbbb2222", 2)
    add(store, "good-cccc3333", 3)
    path = bad.folder / "record.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert listed(store) == ["good-cccc3333", "good-aaaa1111", "DamagedJob"]
    assert store.find_by_reference("-").id == "good-cccc3333"
    with pytest.raises(DamagedJob, match=re.escape(said)) as damaged:
        store.find_by_reference("bad-bbbb2222")
    assert str(path) == damaged.value.file
    assert "bad-bbbb2222" in damaged.value.message
    assert damaged.value.fix


def test_of_processes_that_create_one_job_at_once_exactly_one_does(store: Store) -> None:
    ids = [f"job-{number:08d}" for number in range(25)]
    creators = [python(CREATE, store.jobs, *ids) for _ in range(4)]
    for creator in creators:  # all of them have started when the first one goes
        assert creator.stdout is not None
        assert creator.stdout.readline() == "ready\n"
    for creator in creators:
        assert creator.stdin is not None
        creator.stdin.write("go\n")
        creator.stdin.flush()
    made = [job_id for creator in creators for job_id in creator.communicate()[0].split()]
    assert [creator.returncode for creator in creators] == [0] * 4
    assert sorted(made) == ids
    assert sorted(listed(store)) == ids
    assert not [p for p in store.jobs.iterdir() if p.name.startswith(".")]


@pytest.fixture
def held(store: Store) -> Iterator[str]:
    """Yield the id of a job that another process is submitting."""
    with python(HOLD, store.jobs, "job-11111111") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "within\n"
        yield "job-11111111"
        holder.kill()


def test_a_job_is_not_deleted_while_it_is_being_submitted(store: Store, held: str) -> None:
    assert store.get(held).is_being_submitted
    with pytest.raises(JobStateConflict, match="is being submitted"):
        store.delete(held)
    assert listed(store) == [held]


def test_a_killed_submit_leaves_an_intent_that_is_not_being_submitted(
    store: Store, held: str
) -> None:
    pid = _holder_of(store.jobs / held / "submit.lock")
    os.kill(pid, 9)
    wait_until(lambda: not store.get(held).is_being_submitted, "the lock went with its holder")
    assert store.get(held).backend_job_id is None
    with store.create(make_record(store, held)) as made:
        assert not made
    store.delete(held)
    assert listed(store) == []


def _holder_of(path: Path) -> int:
    """Return the process that has `path` open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == str(path) and int(link.parts[2]) != os.getpid():
                return int(link.parts[2])
        except OSError:
            continue
    pytest.skip("needs /proc")


def test_deleting_leaves_nothing(store: Store) -> None:
    record = add(store, "job-11111111")
    (record.folder / "artifacts").mkdir()
    (record.folder / "artifacts" / "model").write_text("weights")
    store.delete(record.id)
    assert list(store.jobs.iterdir()) == []
    with pytest.raises(JobNotFound):
        store.get(record.id)


def test_what_a_kill_left_half_done_goes_with_the_next_submit_unless_it_is_in_use(
    store: Store,
) -> None:
    store.jobs.mkdir(parents=True)
    for name in (".new-old", ".new-fresh", ".trash-job-1", ".new-held"):
        (store.jobs / name).mkdir()
        (store.jobs / name / "submit.lock").touch()
        if name != ".new-fresh":
            long_ago = time.time() - 3600
            os.utime(store.jobs / name, (long_ago, long_ago))
    import fcntl

    with (store.jobs / ".new-held" / "submit.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        add(store, "job-11111111")
    assert listed(store) == ["job-11111111"]
    assert {p.name for p in store.jobs.iterdir()} == {"job-11111111", ".new-fresh", ".new-held"}


def test_a_home_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    store = Store(tmp_path / "file" / "jobs")
    with pytest.raises(StoreError) as refused, store.create(make_record(store, "job-11111111")):
        pass
    assert "can't be saved: Not a directory" in refused.value.message
    assert "set CLOUDFT_HOME to a folder" in str(refused.value.fix)
    with pytest.raises(StoreError, match="can't be listed: Not a directory"):
        store.job_ids()


def test_a_disk_without_room_leaves_no_job_behind(store: Store) -> None:
    add(store, "old-11111111")
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, {INFINITE}))\n"
    with python(limit + HOLD, store.jobs, "new-22222222") as creator:
        creator.stdin.close()  # type: ignore[union-attr]
        assert creator.wait(30) == 1
    assert [p.name for p in store.jobs.iterdir()] == ["old-11111111"]


INFINITE = resource.RLIM_INFINITY


def test_three_hundred_jobs_list_in_a_moment(store: Store) -> None:
    first = add(store, "job-00000000").folder
    content = json.loads((first / "record.json").read_bytes())
    for number in range(1, 300):
        job_id = f"job-{number:08d}"
        shutil.copytree(first, store.jobs / job_id)
        record = content | {"id": job_id, "createdAt": f"2026-01-02T03:{number // 60:02d}"}
        (store.jobs / job_id / "record.json").write_text(json.dumps(record))
    started = time.perf_counter()
    assert len(listed(store)) == 300
    assert time.perf_counter() - started < 2, "a machine ten times slower than ours still passes"

"""Run surveys of data in processes of their own, one at a time, and keep what they found."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import orjson

from cloudft.errors import BadDocument, JobStateConflict
from cloudft.jobs.data_survey import Survey, SurveyFile, SurveyRequest
from cloudft.spec.serialize import to_portable_values
from cloudft.storage.atomic_files import atomic_write, make_private_folder
from cloudft.storage.documents import decode
from cloudft.workbench.data_pages.choices import DataSet

NEAR_SIMILARITY = 0.8
PROGRAM = "cloudft.jobs.data_survey"
VERSION = 1


@dataclass
class RunningSurvey:
    """A survey that runs, or has failed or been canceled. `what` is done, over `records` so far."""

    key: str
    process: subprocess.Popen[bytes]
    what: str = "starting"
    records: int = 0
    error: str = ""
    is_canceled: bool = False

    @property
    def has_ended(self) -> bool:
        """Return whether it runs no more."""
        return self.process.poll() is not None


class SurveyKeeper:
    """The surveys of one workbench. `folder` is where their results are kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: RunningSurvey | None = None
        self._lock = threading.Lock()

    def find(self, data: DataSet) -> Survey | None:
        """Return what a survey of these very files found; None if there was none.

        One with near duplicates counts for one without.
        """
        for near in (True, False):
            path = self._kept_file(survey_key(data, near=near))
            with contextlib.suppress(OSError, BadDocument):
                return decode(path.read_bytes(), Survey, file=path)
        return None

    def running(self, data: DataSet) -> RunningSurvey | None:
        """Return the survey of these files that runs, or that has ended without a result."""
        running = self._running
        keys = {survey_key(data, near=near) for near in (True, False)}
        return running if running is not None and running.key in keys else None

    def start(self, data: DataSet, *, near: bool) -> None:
        """Start a survey, unless it runs. Raise JobStateConflict while another one runs."""
        key = survey_key(data, near=near)
        with self._lock:
            if self._running is not None and not self._running.has_ended:
                if self._running.key == key:
                    return
                fix = "wait until it has ended, or cancel it on its page."
                raise JobStateConflict("another survey of data is running", fix=fix)
            process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._running = RunningSurvey(key, process)
            request = msgspec.json.encode(_request_of(data, near=near))
            threading.Thread(
                target=self._follow, args=(self._running, request), daemon=True
            ).start()

    def cancel(self, data: DataSet) -> None:
        """End the survey of these files, if it runs."""
        running = self.running(data)
        if running is not None and not running.has_ended:
            running.is_canceled = True
            running.process.kill()

    def close(self) -> None:
        """End the survey that runs."""
        if self._running is not None:
            self._running.process.kill()
            self._running.process.wait()

    def _follow(self, running: RunningSurvey, request: bytes) -> None:
        """Send the request, read the replies, and keep the result."""
        process = running.process
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError), process.stdin:
            process.stdin.write(request)
        kept = False
        with process.stdout:
            for line in process.stdout:
                if line.startswith(b'{"survey":'):
                    self._keep(running.key, line)
                    kept = True
                else:
                    _note_reply(running, orjson.loads(line))
        process.wait()
        if not kept and not running.is_canceled:
            running.error = running.error or f"its process ended with status {process.returncode}"

    def _keep(self, key: str, line: bytes) -> None:
        survey = decode(line, _Reply, file="survey").survey
        path = self._kept_file(key)
        make_private_folder(path.parent)
        atomic_write(path, msgspec.json.encode(survey))

    def _kept_file(self, key: str) -> Path:
        return self._folder / f"{key}.survey.json"


class _Reply(msgspec.Struct):
    survey: Survey


def _note_reply(running: RunningSurvey, reply: Mapping[str, Any]) -> None:
    if "progress" in reply:
        running.what, running.records = reply["progress"]["what"], reply["progress"]["records"]
    elif "error" in reply:
        error = reply["error"]
        running.error = ": ".join(filter(None, (error["message"], error["fix"])))


def survey_key(data: DataSet, *, near: bool) -> str:
    """Return the digest of what a survey's result depends on: request, and each file's identity."""
    request = msgspec.to_builtins(_request_of(data, near=near))
    files = []
    paths = [file.source.path for file in data.files]
    if data.job is not None and data.job.path is not None:
        paths.append(data.job.path)  # its limits decide what is found
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.stat()
            files.append([status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns])
    content = orjson.dumps([VERSION, request, files], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:40]


def _request_of(data: DataSet, *, near: bool) -> SurveyRequest:
    files = [
        SurveyFile(file.role, str(file.source.path), file.name, file.source.file_type)
        for file in data.files
    ]
    job_file, spec = None, None
    if data.job is not None and data.job.path is not None:
        job_file = str(data.job.path)
    elif data.job is not None:
        spec = to_portable_values(data.job)
    similarity = NEAR_SIMILARITY if near else None
    return SurveyRequest(files, dict(data.columns), data.target, job_file, spec, similarity)

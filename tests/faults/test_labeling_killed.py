"""kill -9 of the workbench between keys, many times: every label that it acknowledged is there."""

from __future__ import annotations

import json
import re
import threading
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from label_projects import LABELS, make_project, tickets
from workbench_server import RunningWorkbench, running_workbench

from cloudft.labeling.project import open_project

KILLS = 3
KEYS_BEFORE_KILL = 6


class Labeler(threading.Thread):
    """Labels as fast as the workbench saves, until it is gone."""

    def __init__(
        self, workbench: RunningWorkbench, person: str, begun: threading.Semaphore
    ) -> None:
        super().__init__()
        self.workbench, self.person, self.begun = workbench, person, begun
        self.acknowledged: dict[str, str] = {}
        self.sent: dict[str, str] = {}
        self.problem = ""

    def run(self) -> None:
        """Label until the connection breaks."""
        try:
            _, page = self.workbench.get(f"label/tickets/work?person={self.person}")
            match = re.search(r'data-token="(\w+)"', page)
            assert match is not None, page
            for number in range(1000):
                query = urlencode({"person": self.person, "held": ""})
                _, text = self.workbench.get(f"label/tickets/queue?{query}")
                records = json.loads(text)["records"]
                if not records:
                    return
                key, label = records[0]["key"], LABELS[number % len(LABELS)]
                self.sent[key] = label
                self._save(match[1], key, label, f"{self.person}-{key}")
                self.acknowledged[key] = label
                self.begun.release()
        except (URLError, HTTPException, ConnectionError, ValueError):
            pass  # killed, as is to be
        except AssertionError as error:
            self.problem = str(error)

    def _save(self, token: str, key: str, label: str, event_id: str) -> None:
        fields = {"person": self.person, "key": key, "label": label, "action": "label"}
        body = urlencode({**fields, "id": event_id, "form": token}).encode()
        request = Request(
            self.workbench.url + "label/tickets/save",
            data=body,
            headers={"accept": "application/json"},
        )
        with urlopen(request, timeout=60) as got:
            assert json.loads(got.read())["saved"] == event_id


def test_no_acknowledged_label_of_two_people_is_lost(tmp_path: Path) -> None:
    make_project(tmp_path, tickets(400, ""), overlap_share=0.5)
    acknowledged: dict[str, dict[str, str]] = {"ada": {}, "bob": {}}
    sent: dict[str, dict[str, str]] = {"ada": {}, "bob": {}}
    for _ in range(KILLS):
        with running_workbench(tmp_path) as workbench:
            begun = threading.Semaphore(0)
            people = [Labeler(workbench, name, begun) for name in acknowledged]
            for person in people:
                person.start()
            for _ in range(KEYS_BEFORE_KILL):
                assert begun.acquire(timeout=60)
            workbench.process.kill()
            for person in people:
                person.join(60)
                assert person.problem == ""
                acknowledged[person.person] |= person.acknowledged
                sent[person.person] |= person.sent
        project = open_project(tmp_path / "labels", "tickets")
        for name, labels in acknowledged.items():
            saved = {key: one.label for key, one in project.labels_of(name).decided.items()}
            assert labels.items() <= saved.items()
            assert saved.items() <= sent[name].items()
    assert sum(map(len, acknowledged.values())) >= KILLS * KEYS_BEFORE_KILL

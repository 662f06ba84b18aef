"""A stand-in of the Hugging Face Hub's HTTP API, which keeps repositories and their bytes on disk.

It has what huggingface_hub 2.4 calls to push and to load a model: whoami, create, preupload, the
LFS batch and its uploads, commits, branches, and files by revision. Xet needs a service of its own:
the clients run with HF_HUB_DISABLE_XET=1, which makes them upload by LFS. A commit is refused where
the Hub refuses it: without a token, for another parent, or for a large file that is not there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import yaml
from stand_in_server import StandInHandler, StandInServer

TOKEN = "hf_" + "x" * 34
USER = "tester"
LARGE = 16 << 10
"""Files of so many bytes go by LFS (on the Hub: 10 MiB, and all binary files)."""
ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
CHUNK = 1 << 12


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(StandInHandler):
    """Answers one request after the other."""

    @property
    def hub(self) -> HubStandIn:
        return cast("HubStandIn", self.stand_in)

    def do_GET(self) -> None:
        self._route("GET")

    def do_HEAD(self) -> None:
        self._route("HEAD")

    def do_POST(self) -> None:
        self._route("POST")

    def do_PUT(self) -> None:
        self._route("PUT")

    def _route(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((method, path))
        self.hub.on_request(method, path)
        self.hub.authorizations.add(self.headers.get("Authorization", ""))
        parts = path.strip("/").split("/")
        if path.startswith("/objects/"):
            self._upload(parts[1])
        elif path == "/api/whoami-v2":
            self._whoami()
        elif path == "/api/repos/create":
            self._create()
        elif path == "/api/validate-yaml":
            self._validate_yaml()
        elif path.startswith("/api/models/"):
            self._model(method, "/".join(parts[2:4]), parts[4:])
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch()
        elif len(parts) > 4 and parts[2] == "resolve":
            self._resolve(method, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._reply(404, {"error": "Not found"})

    @property
    def is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self._body())
        return value

    def _reply(
        self, status: int, value: object = None, headers: Mapping[str, str] = {}, data: bytes = b""
    ) -> None:
        self.send(status, dict(headers), data if value is None else json.dumps(value).encode())

    def _missing(self, what: str) -> None:
        names = {"repo": "RepoNotFound", "revision": "RevisionNotFound", "file": "EntryNotFound"}
        status = 401 if what == "repo" and not self.is_known else 404
        self._reply(status, {"error": f"{what} not found"}, {"X-Error-Code": names[what]})

    def _whoami(self) -> None:
        if not self.is_known:
            self._reply(401, {"error": "Invalid username or password."})
            return
        self._reply(200, {"type": "user", "name": USER, "orgs": []})

    def _create(self) -> None:
        body = self._json()
        if not self.is_known:
            self._reply(401, {"error": "Invalid username or password."})
            return
        repo_id = f"{body.get('organization') or USER}/{body['name']}"
        with self.hub.lock:
            if repo_id in self.hub.repositories:
                self._reply(409, {"error": "You already created this model repo"})
                return
            self.hub.create(repo_id, private=body.get("visibility") == "private")
        self._reply(200, {"url": f"{self.hub.url}/{repo_id}", "name": repo_id})

    def _validate_yaml(self) -> None:
        content = str(self._json()["content"])
        try:
            metadata = yaml.safe_load(content.split("---\n")[1])
            problems = [] if isinstance(metadata, dict) else ["no mapping"]
        except (IndexError, yaml.YAMLError) as error:
            problems = [str(error)]
        errors = [{"message": one} for one in problems]
        self._reply(400 if errors else 200, {"errors": errors, "warnings": []})

    def _model(self, method: str, repo_id: str, rest: list[str]) -> None:
        if repo_id in self.hub.models and not rest:
            card = self.hub.models[repo_id]
            self._reply(200, {"id": repo_id, "cardData": card, "private": False, "siblings": []})
            return
        found = self.hub.repositories.get(repo_id)
        if found is None or (found["private"] and not self.is_known):
            self._body()
            self._missing("repo")
        elif method == "GET" and rest[:1] in ([], ["revision"]):
            self._info(repo_id, rest[1] if rest else "main")
        elif not self.is_known:
            self._body()
            self._reply(403, {"error": "Forbidden"})
        elif rest[0] == "preupload":
            self._preupload(repo_id, rest[1])
        elif rest[0] == "branch":
            self._branch(found, rest[1])
        elif rest[0] == "commit":
            self._commit(repo_id, rest[1])
        else:
            self._reply(404, {"error": "Not found"})

    def _info(self, repo_id: str, revision: str) -> None:
        commit = self.hub.find_commit(repo_id, revision)
        if commit is None:
            self._missing("revision")
            return
        siblings = [
            {"rfilename": name, "size": one["size"], "blobId": one["oid"]}
            | (
                {"lfs": {"sha256": one["sha256"], "size": one["size"], "pointerSize": 130}}
                if one["lfs"]
                else {}
            )
            for name, one in commit["files"].items()
        ]
        private = self.hub.repositories[repo_id]["private"]
        value = {"id": repo_id, "sha": commit["oid"], "private": private, "siblings": siblings}
        self._reply(200, value)

    def _preupload(self, repo_id: str, revision: str) -> None:
        commit = self.hub.find_commit(repo_id, revision)
        body = self._json()
        if commit is None:
            self._missing("revision")
            return
        files = []
        for one in body["files"]:
            before = commit["files"].get(one["path"])
            is_large = one["size"] >= LARGE
            known = before["sha256"] if before and before["lfs"] else before and before["oid"]
            files.append(
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if is_large else "regular",
                    "shouldIgnore": False,
                    "oid": known,
                }
            )
        self._reply(200, {"files": files})

    def _batch(self) -> None:
        body = self._json()
        if not self.is_known:
            self._reply(401, {"error": "Forbidden"})
            return
        objects = []
        for one in body["objects"]:
            value: dict[str, Any] = {"oid": one["oid"], "size": one["size"]}
            if not (self.hub.objects / one["oid"]).exists():
                value["actions"] = {"upload": {"href": f"{self.hub.url}/objects/{one['oid']}"}}
            objects.append(value)
        self._reply(200, {"transfer": "basic", "objects": objects})

    def _upload(self, oid: str) -> None:
        """Keep an object, once it is whole and has its digest."""
        left, content = int(self.headers["Content-Length"]), b""
        while left:
            chunk = self.rfile.read(min(CHUNK, left))
            if not chunk:
                return
            content += chunk
            left -= len(chunk)
            self.hub.on_upload(len(content))
        if hashlib.sha256(content).hexdigest() != oid:
            self._reply(400, {"error": "wrong digest"})
            return
        (self.hub.objects / oid).write_bytes(content)
        self._reply(200)

    def _branch(self, repository: dict[str, Any], name: str) -> None:
        self._body()
        if name in repository["branches"]:
            self._reply(409, {"error": "Reference already exists"})
            return
        repository["branches"][name] = list(repository["branches"]["main"])
        self._reply(200)

    def _commit(self, repo_id: str, branch: str) -> None:
        lines = [json.loads(line) for line in self._body().splitlines()]
        header = lines[0]["value"]
        with self.hub.lock:
            head = self.hub.find_commit(repo_id, branch)
            if head is None:
                self._missing("revision")
                return
            if header.get("parentCommit") not in (None, head["oid"]):
                self._reply(412, {"error": "A commit has happened since."})
                return
            files = dict(head["files"])
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "deletedFile":
                    del files[value["path"]]
                elif line["key"] == "file":
                    files[value["path"]] = self.hub._put(base64.b64decode(value["content"]))
                elif not (self.hub.objects / value["oid"]).exists():
                    self._reply(400, {"error": f"{value['path']} was not uploaded"})
                    return
                else:
                    files[value["path"]] = self.hub.entry(value["oid"], value["size"], large=True)
            oid = self.hub.commit(repo_id, branch, header["summary"], files)
        if self.hub.lose_reply_to_commit:
            self.hub.lose_reply_to_commit = False
            self.close_connection = True
            return
        self._reply(200, {"commitUrl": f"{self.hub.url}/{repo_id}/commit/{oid}", "commitOid": oid})

    def _resolve(self, method: str, repo_id: str, revision: str, name: str) -> None:
        found = self.hub.repositories.get(repo_id)
        commit = self.hub.find_commit(repo_id, revision) if found else None
        if found is None or (found["private"] and not self.is_known):
            self._missing("repo")
        elif commit is None:
            self._missing("revision")
        elif name not in commit["files"]:
            self._missing("file")
        else:
            entry = commit["files"][name]
            etag = entry["sha256"] if entry["lfs"] else entry["oid"]
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit["oid"]}
            content = (self.hub.objects / entry["sha256"]).read_bytes()
            self._reply(200, headers=headers, data=content)


class HubStandIn(StandInServer):
    """Repositories in `folder`. `on_upload` is called with each chunk of a large file.

    `on_request` is called with method and path before a request is answered.
    """

    handler = _Handler

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.objects = folder / "objects"
        self.objects.mkdir(parents=True)
        self.repositories: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        """Cards of models of others, by id."""
        self.requests: list[tuple[str, str]] = []
        self.authorizations: set[str] = set()
        self.on_request: Callable[[str, str], object] = lambda method, path: None
        self.on_upload: Callable[[int], None] = lambda received: None
        self.lose_reply_to_commit = False
        self.lock = threading.RLock()

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the environment of a client: no login and no cache but those of a test."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def create(self, repo_id: str, *, private: bool) -> None:
        first = self._commit_object(
            None, "initial commit", {".gitattributes": self._put(ATTRIBUTES)}
        )
        self.repositories[repo_id] = {"private": private, "branches": {"main": [first]}}

    def _put(self, content: bytes, *, large: bool = False) -> dict[str, Any]:
        sha256 = hashlib.sha256(content).hexdigest()
        (self.objects / sha256).write_bytes(content)
        return self.entry(sha256, len(content), large=large)

    def entry(self, sha256: str, size: int, *, large: bool) -> dict[str, Any]:
        if large:
            pointer = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
            )
            return {"sha256": sha256, "size": size, "lfs": True, "oid": git_oid(pointer.encode())}
        content = (self.objects / sha256).read_bytes()
        return {"sha256": sha256, "size": size, "lfs": False, "oid": git_oid(content)}

    def _commit_object(
        self, parent: str | None, summary: str, files: Mapping[str, Any]
    ) -> dict[str, Any]:
        text = json.dumps([parent, summary, files], sort_keys=True)
        oid = hashlib.sha1(text.encode()).hexdigest()
        return {"oid": oid, "parent": parent, "summary": summary, "files": dict(files)}

    def commit(self, repo_id: str, branch: str, summary: str, files: Mapping[str, Any]) -> str:
        commits = self.repositories[repo_id]["branches"][branch]
        commits.append(self._commit_object(commits[-1]["oid"], summary, files))
        return str(commits[-1]["oid"])

    def commits(self, repo_id: str, branch: str = "main") -> list[dict[str, Any]]:
        """Return the commits, the first one last made by the Hub itself left out."""
        return list(self.repositories[repo_id]["branches"][branch][1:])

    def files(self, repo_id: str, branch: str = "main") -> dict[str, bytes]:
        entries = self.repositories[repo_id]["branches"][branch][-1]["files"]
        return {name: (self.objects / one["sha256"]).read_bytes() for name, one in entries.items()}

    def find_commit(self, repo_id: str, revision: str) -> dict[str, Any] | None:
        branches = self.repositories[repo_id]["branches"]
        if revision in branches:
            return dict(branches[revision][-1])
        every = (one for commits in branches.values() for one in commits)
        return next((one for one in every if one["oid"] == revision), None)

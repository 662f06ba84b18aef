"""A model repository of the Hugging Face Hub: read what it has, and push one commit.

huggingface_hub is imported here and not in a process of the trainer: it imports no torch, and the
token stays in this process. Its `upload_folder` makes several commits of a large folder, so that a
broken upload would leave half a model (huggingface_hub 2.4): `create_commit` makes one, or none.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudft import __version__
from cloudft.errors import CloudRefused, CloudUnreachable, ResourceConflict, UsageError
from cloudft.publishing.model_files import ModelFile

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

MANIFEST = "cloudft.json"
"""The file that says which of a repository's files cloudft has pushed, and of which job."""
HUB_NAME = re.compile(r"[A-Za-z0-9_](?:(?:[A-Za-z0-9_-]|\.(?!\.)){0,94}[A-Za-z0-9_])?")
"""An owner or a repository, by the rules of huggingface_hub's `validate_repo_id`."""
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
UNTOUCHED = frozenset({".gitattributes"})
"""What the Hub itself puts into a new repository."""
LOGIN_FIX = "log in by `hf auth login`, or set HF_TOKEN to a token with write access."


@dataclass(frozen=True)
class RemoteFile:
    """A file in a repository: its size, sha256 of a large one, and git's digest of a small one."""

    size: int
    sha256: str | None
    git_oid: str | None

    def holds(self, file: ModelFile) -> bool:
        """Return whether it has the content of a file here."""
        same = self.sha256 == file.sha256 if self.sha256 else self.git_oid == file.git_oid
        return same and self.size == file.size


@dataclass(frozen=True)
class RepositoryState:
    """What a repository has now. `head` is None where it does not exist, or has no such branch.

    A branch that does not exist begins with the files of the main branch.
    """

    exists: bool
    is_private: bool = True
    head: str | None = None
    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    manifest: Mapping[str, Any] | None = None

    @property
    def is_foreign(self) -> bool:
        """Return whether it has files, and cloudft pushed none of them."""
        return self.manifest is None and bool(self.files.keys() - UNTOUCHED)

    @property
    def pushed(self) -> frozenset[str]:
        """Return the names of the files that an earlier push left here."""
        known = (self.manifest or {}).get("files")
        names = known.keys() if isinstance(known, dict) else ()
        return frozenset(name for name in names if name in self.files)

    def has(self, files: Sequence[ModelFile]) -> bool:
        """Return whether it has exactly these files, of those that cloudft pushes."""
        return (
            self.head is not None
            and self.pushed <= {file.name for file in files}
            and all(file.name in self.files and self.files[file.name].holds(file) for file in files)
        )


def require_hub_id(hub_id: str) -> None:
    """Raise UsageError for what the Hub takes for no repository's name, before anything is done."""
    parts = hub_id.split("/")
    is_id = len(parts) <= 2 and all(map(HUB_NAME.fullmatch, parts)) and "--" not in parts[-1]
    if not is_id:
        raise UsageError(
            f"{hub_id[:200]!r} is no name of a repository on the Hub",
            fix="write ORG/NAME with letters, digits and single - . _ between them.",
        )


class HubRepository:
    """A model repository and its branch. `hub_id` is ORG/NAME once `log_in` has been called."""

    def __init__(self, hub_id: str, revision: str = "main") -> None:
        self._api = _open_api()
        self.hub_id = hub_id
        self.revision = revision

    def log_in(self) -> str:
        """Return the name of the user whose token is used; add it to an id without owner."""
        with _hub_errors("the Hub can't say who you are"):
            user = str(self._api.whoami()["name"])
        if "/" not in self.hub_id:
            self.hub_id = f"{user}/{self.hub_id}"
        return user

    def read_state(self, scratch: Path) -> RepositoryState:
        """Return what the repository has now. `scratch` is a folder for what is read."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        with _hub_errors(f"{self.hub_id} can't be read"):
            try:
                general = self._api.model_info(self.hub_id)
            except RepositoryNotFoundError:
                return RepositoryState(exists=False)
            is_branch = True
            try:
                info = self._read_info(self.revision)
            except RevisionNotFoundError:  # it will begin as the main branch is
                info, is_branch = self._read_info("main"), False
            files = {one.rfilename: _remote_file(one) for one in info.siblings or ()}
            manifest = self._read_manifest(scratch, str(info.sha)) if MANIFEST in files else None
        head = str(info.sha) if is_branch else None
        return RepositoryState(True, bool(general.private), head, files, manifest)

    def _read_info(self, revision: str) -> ModelInfo:
        return self._api.model_info(self.hub_id, revision=revision, files_metadata=True)

    def _read_manifest(self, scratch: Path, commit: str) -> Mapping[str, Any]:
        path = self._api.hf_hub_download(
            self.hub_id, MANIFEST, revision=commit, local_dir=scratch / "remote"
        )
        try:
            manifest = json.loads(Path(path).read_bytes())
        except ValueError:
            return {}
        return manifest if isinstance(manifest, dict) else {}

    def read_license(self, base_id: str) -> str | None:
        """Return the license in the card of a model on the Hub, None where there is none."""
        from huggingface_hub.errors import HfHubHTTPError

        with _hub_errors(f"{base_id} can't be read"), contextlib.suppress(HfHubHTTPError):
            card = self._api.model_info(base_id).card_data
            name = card and (card.get("license_name") or card.get("license"))
            return str(name) if isinstance(name, str) else None
        return None

    def push(
        self, state: RepositoryState, files: Sequence[ModelFile], message: str, *, private: bool
    ) -> str:
        """Create the repository where it is missing, and push one commit; return its address.

        What an earlier push left and this one has not is removed in the same commit. It fails where
        somebody else has pushed or made the repository since `state` was read. Raise CloudRefused,
        CloudUnreachable, ResourceConflict.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

        stale = sorted(state.pushed - {file.name for file in files})
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            *(CommitOperationAdd(file.name, str(file.path)) for file in files),
            *(CommitOperationDelete(name, is_folder=False) for name in stale),
        ]
        with _hub_errors(f"the model can't be pushed to {self.hub_id}"):
            # Both fail for one that has appeared since: it may be public, or have foreign files.
            if not state.exists:
                self._api.create_repo(self.hub_id, private=private)
            head = state.head
            if head is None and self.revision != "main":
                self._api.create_branch(self.hub_id, branch=self.revision)
            commit = self._api.create_commit(
                self.hub_id,
                operations,
                commit_message=message,
                revision=self.revision,
                parent_commit=head,
            )
        return str(commit.commit_url)


def _open_api() -> HfApi:
    if any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFFLINE_VARIABLES
    ):
        raise UsageError(
            f"the Hub is switched off by {' or '.join(OFFLINE_VARIABLES)}",
            fix="unset it: env -u HF_HUB_OFFLINE cloudft push ...",
        )
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as error:
        raise UsageError(
            "push needs huggingface_hub, which is not installed",
            fix="pip install 'cloudft[hub]'",
        ) from error
    if not sys.stderr.isatty():
        disable_progress_bars()
    return HfApi(library_name="cloudft", library_version=__version__)


def _remote_file(sibling: Any) -> RemoteFile:
    large = sibling.lfs
    return RemoteFile(sibling.size or 0, large.sha256 if large else None, sibling.blob_id)


@contextlib.contextmanager
def _hub_errors(failure: str) -> Iterator[None]:
    """Raise errors of the Hub as cloudft's own. No message has the token."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError:
        raise CloudRefused(f"{failure}: there is no token", fix=LOGIN_FIX) from None
    except HFValidationError as error:
        message = _first_line(error)
        raise UsageError(f"{failure}: {message}", fix="name it as ORG/NAME.") from None
    except HfHubHTTPError as error:
        raise _refusal(failure, error) from None
    except (httpx2.HTTPError, OSError) as error:
        raise CloudUnreachable(
            f"{failure}: {_first_line(error) or type(error).__name__}",
            fix="run the command again: what was uploaded is not uploaded again.",
        ) from None
    except (ValueError, RuntimeError) as error:
        reason = error.__cause__ or error
        raise CloudUnreachable(
            f"{failure}: {_first_line(error)} ({_first_line(reason)})",
            fix="run the command again: what was uploaded is not uploaded again.",
        ) from None


def _refusal(failure: str, error: Any) -> CloudRefused | CloudUnreachable:
    status = error.response.status_code
    text = f"{failure} ({status}): {error.server_message or _first_line(error)}"
    if status in (401, 403):
        return CloudRefused(text, fix=LOGIN_FIX)
    if status in (409, 412):
        fix = "somebody else has pushed meanwhile: run the command again."
        return ResourceConflict(text, fix=fix)
    if status == 429 or status >= 500:
        fix = "run the command again: what was uploaded is not uploaded again."
        return CloudUnreachable(text, fix=fix)
    return CloudRefused(text, fix="see the message, and https://huggingface.co/docs/hub.")


def _first_line(error: BaseException) -> str:
    return " ".join((str(error).splitlines() or [""])[0].split())[:300]

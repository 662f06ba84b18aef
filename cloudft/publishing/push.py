"""Prepare what is pushed to the Hub: the model's files, its card, and the list of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from cloudft.backends.export_options import PROOF
from cloudft.errors import JobStateConflict, UsageError
from cloudft.publishing.base_model import License
from cloudft.publishing.facts import ModelFacts
from cloudft.publishing.hub_repository import MANIFEST, RepositoryState
from cloudft.publishing.model_card import (
    ADAPTER,
    GGUF,
    MERGED,
    MLX,
    CardOptions,
    render_model_card,
)
from cloudft.publishing.model_files import ModelFile, list_model_files
from cloudft.storage.atomic_files import as_store_error

CARD = "README.md"
WEIGHTS = (".safetensors", ".gguf")
ADAPTER_CONFIG, BASE_KEY = "adapter_config.json", "base_model_name_or_path"
CONFIG = "config.json"
NOT_PUSHED = (CARD, MANIFEST, PROOF)
"""The card has the proof's figures, without the paths of this machine that the file has."""


@dataclass(frozen=True)
class PreparedModel:
    """What is pushed: all files, among them the card, whose text is `card`."""

    format: str
    files: Sequence[ModelFile]
    card: str

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self.files)


def prepare_model(
    facts: ModelFacts, folder: Path, hub_id: str, private: Sequence[str], scratch: Path
) -> PreparedModel:
    """Return the files of an exported model, with a card and a list that are written to `scratch`.

    `private` are texts that nothing may hold. Raise UsageError for a file that is not published.
    """
    format = find_format(folder)
    data = {one.sha256: one.name for one in facts.data}
    replaced = scratch / "replaced"
    with as_store_error("the model card can't be written", replaced):
        replaced.mkdir()
        if (folder / ADAPTER_CONFIG).is_file():
            _write_adapter_config(folder / ADAPTER_CONFIG, facts, replaced)
    files = list_model_files(folder, private, data, replaced=replaced, without=NOT_PUSHED)
    if not any(file.name.endswith(WEIGHTS) for file in files):
        raise UsageError(
            f"{folder} has no weights",
            fix="name a folder that `cloudft export JOB DIR` has written.",
        )
    names = [file.name for file in files]
    card = render_model_card(facts, CardOptions(hub_id, format, names, _read_json(folder / PROOF)))
    own = scratch / "own"
    with as_store_error("the model card can't be written", own):
        own.mkdir()
        (own / CARD).write_text(card, encoding="utf-8")
        (own / MANIFEST).write_bytes(_manifest(facts, format, files))
    return PreparedModel(format, [*files, *list_model_files(own, private, data)], card)


def find_format(folder: Path) -> str:
    """Return the format of an exported model, by its files. Raise UsageError for none."""
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is no folder", fix="name a folder that `cloudft export JOB DIR` has written."
        )
    if (folder / ADAPTER_CONFIG).is_file():
        return ADAPTER
    if any(folder.glob("*.gguf")):
        return GGUF
    return MLX if "quantization" in _read_json(folder / CONFIG) else MERGED


def check_adapter_base(facts: ModelFacts) -> None:
    """Raise UsageError for an adapter whose base nobody else could load."""
    if facts.base.hub_id is None:
        raise UsageError(
            f"the adapter's base model is {facts.base.title}, which has no known id on the Hub:"
            " nobody else could load it",
            fix="name its id: --base-model ORG/NAME, or push the merged model: --format merged",
        )


def _write_adapter_config(path: Path, facts: ModelFacts, folder: Path) -> None:
    """Write an adapter's configuration that names its base by the id on the Hub."""
    check_adapter_base(facts)
    config = _read_json(path)
    content = {**config, BASE_KEY: facts.base.hub_id}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _manifest(facts: ModelFacts, format: str, files: Sequence[ModelFile]) -> bytes:
    """Return the list of the pushed files. It has no time: a second push changes nothing."""
    content = {
        "cloudft": facts.versions["cloudft"],
        "job": facts.job_id,
        "format": format,
        "data": {"sha256": facts.data_sha256},
        "files": {
            CARD: {},
            MANIFEST: {},
            **{file.name: {"sha256": file.sha256, "bytes": file.size} for file in files},
        },
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def check_target(state: RepositoryState, hub_id: str, *, public: bool, overwrite: bool) -> None:
    """Raise JobStateConflict where a push would publish or replace what it must not."""
    if state.exists and not state.is_private and not public:
        raise JobStateConflict(
            f"{hub_id} exists and is public: everybody would read the model",
            fix="push with --public, or name another repository.",
        )
    if state.exists and state.is_private and public:
        raise JobStateConflict(
            f"{hub_id} exists and is private; a push does not change that",
            fix="push without --public, and make it public in its settings on the Hub.",
        )
    if state.is_foreign and not overwrite:
        some = ", ".join(sorted(state.files)[:5])
        raise JobStateConflict(
            f"{hub_id} has files that cloudft did not push ({some})",
            fix="name another repository, or push with --overwrite: files of the same name are"
            " replaced, the others stay.",
        )


def with_license(facts: ModelFacts, name: str | None) -> ModelFacts:
    """Return the facts with the base's license as the Hub has it, where it was not known."""
    if name is None or facts.base.license is not None:
        return facts
    known = License(name, "the base's model card on the Hub")
    return replace(facts, base=replace(facts.base, license=known))

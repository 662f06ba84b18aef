"""Recognize the folder of a data set: a Hugging Face repository, or what `save_to_disk` wrote.

Which files are which split is decided as the datasets library does it: by the data set card
(README.md), else by the names of files and folders. Both are described in "Structure your
repository" and "Create a dataset card" of the Hugging Face Hub's documentation.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

SPLIT_WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""The words in names by which the datasets library recognizes a split."""
METADATA_NAMES = frozenset(
    {"config.json", "dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"}
)
"""Files beside the data that describe it."""
TEXT_SUFFIXES = frozenset({".md", ".txt"})
CARD_KEYS = frozenset(
    ("configs", "dataset_info", "task_categories", "size_categories", "pretty_name", "license")
)
"""Keys by which the metadata of a README show a data set's card."""
WHOLE = "all"
"""The name of what is saved without splits."""
MAX_CARD_BYTES = 1024 * 1024
_ABOUT = re.compile(
    r"(?i)(readme|licen[cs]e|notice|changelog|citation|contributing|authors)([-_.].*)?"
)
_WORD = re.compile(r"[^-._ 0-9]+")
_SHARD = re.compile(r"([\w.]+)-\d{5}-of-\d{5}.*")
_NUMBER = re.compile(r"-\d{5}-of-\d{5}")
_PLAIN = re.compile(r"[\w./~-][\w./~*-]*")


class BadDatasetFolder(Exception):
    """A folder from which no split can be taken: the message and its remedy."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message, self.fix = message, fix


@dataclass(frozen=True)
class DatasetFolder:
    """A data set's folder: the files of each split, and those of none."""

    kind: str
    splits: Mapping[str, tuple[Path, ...]]
    others: tuple[Path, ...] = ()

    def choose(self, wanted: str, field: str, shown: Path) -> tuple[tuple[Path, ...], str]:
        """Return the files of a split, and the message that says what was left out.

        `field` is the job file's field that names the folder, `shown` the folder as it is named.
        Raises BadDatasetFolder if there is none, or more than one.
        """
        names = [name for name in self.splits if _is_split(name, wanted)]
        if wanted in names:
            names = [wanted]
        if len(names) != 1:
            raise self._no_choice(names, wanted, field, shown)
        files = self.splits[names[0]]
        left_out = [name for name in self.splits if name != names[0]]
        message = f"read as {self.kind}"
        if names[0] != WHOLE:
            message += f": the split {names[0]!r} alone ({_count(files)})"
        if left_out:
            counted = ", ".join(f"{name!r} ({_count(self.splits[name])})" for name in left_out)
            message += f"; left out: {counted}"
        lines = [
            f"data.{_split_of(name)}: {self.paths_as_yaml(name, shown)}"
            for name in left_out
            if _split_of(name) not in (None, "train", wanted)
        ]
        if lines:
            message += f"; to use them: {', '.join(lines)}"
        if self.others:
            listed = ", ".join(str(path) for path in self.others[:5])
            message += f"; of no split: {listed}{', ...' * (len(self.others) > 5)}"
        return files, message

    def _no_choice(
        self, names: Sequence[str], wanted: str, field: str, shown: Path
    ) -> BadDatasetFolder:
        what = f"{len(names)} splits may be {wanted!r}" if names else f"no split {wanted!r}"
        listed = ", ".join(map(repr, self.splits)) or "none"
        message = f"{what} in {self.kind}; the splits are {listed}"
        if field.startswith("data.validation") and not names:
            return BadDatasetFolder(message, "data.validation: 0.1, to hold out a share of train")
        offered = [name for name in self.splits if _split_of(name) != "train"]
        to_value = " " if field.startswith("--") else ": "
        lines = [f"{field}{to_value}{self.paths_as_yaml(name, shown)}" for name in names or offered]
        return BadDatasetFolder(message, " or ".join(lines[:4]) or "name other files")

    def paths_as_yaml(self, split: str, shown: Path) -> str:
        """Return the paths of a split as YAML, as short as they can be written."""
        files = [PurePath(shown, path) for path in self.splits[split]]
        patterns = list(dict.fromkeys(_NUMBER.sub("-*", str(path)) for path in files))
        quoted = [p if _PLAIN.fullmatch(p) else json.dumps(p, ensure_ascii=False) for p in patterns]
        return quoted[0] if len(quoted) == 1 else f"[{', '.join(quoted)}]"


def is_about_data(path: Path) -> bool:
    """Return whether a file's name says that it is about a data set, and no part of it."""
    return bool(_ABOUT.fullmatch(path.name)) or path.name in METADATA_NAMES


def recognize_folder(folder: Path, files: Sequence[Path], shown: Path) -> DatasetFolder | None:
    """Return the data set that a folder with these files holds, paths relative to the folder.

    `shown` is the folder as it is named. None for a folder that is no data set: without a card, and
    with names of files that do not say which split they are. Raises BadDatasetFolder.
    """
    saved = _read_saved(folder, files)
    if saved is not None:
        return saved
    data = [path for path in files if not is_about_data(path)]
    card = _read_card(folder / "README.md")
    configs = _read_configs(card)
    dataset = _from_configs(folder, configs, data, shown) if configs else None
    if dataset is not None and dataset.splits:
        return dataset
    splits, others = _by_name(data)
    # Without a card, texts are documents: `test-plan.md` is no test set.
    has_tables = any(path.suffix.lower() not in TEXT_SUFFIXES for path in data)
    is_split = has_tables and "train" in splits and len(splits) > 1
    if not splits or (card is None and not is_split):
        return None
    kind = "a folder with splits by name" if card is None else "a Hugging Face repository"
    return DatasetFolder(kind, splits, others)


def _by_name(data: Sequence[Path]) -> tuple[dict[str, tuple[Path, ...]], tuple[Path, ...]]:
    """Return the files of each split that is named in their paths, and the other files."""
    splits: dict[str, tuple[Path, ...]] = {}
    for path in data:
        name = _split_of_path(path) or ""
        splits[name] = (*splits.get(name, ()), path)
    others = splits.pop("", ())
    return splits, others


def _read_saved(folder: Path, files: Sequence[Path]) -> DatasetFolder | None:
    """Return what `save_to_disk` wrote: of one data set, or of several in folders by split."""
    parts: dict[Path, tuple[Path, ...]] = {}
    for path in files:
        if path.name == "state.json":
            state = _read_json(folder / path)
            names = state.get("_data_files") if isinstance(state, dict) else None
            if isinstance(names, list):
                parts[path.parent] = tuple(_saved_files(folder, path.parent, names))
    if not parts:
        return None
    kind = "a data set of `save_to_disk`"
    if list(parts) == [Path()]:
        return DatasetFolder(kind, {WHOLE: parts[Path()]})
    return DatasetFolder(kind, {part.name: paths for part, paths in parts.items()})


def _saved_files(folder: Path, part: Path, names: Sequence[Any]) -> Iterator[Path]:
    for entry in names:
        name = entry.get("filename") if isinstance(entry, dict) else None
        # A name is no path: what is read stays below the folder that was named.
        if not isinstance(name, str) or Path(name).name != name:
            raise BadDatasetFolder("state.json names no files", "save the data set again")
        if not (folder / part / name).is_file():
            fix = "copy the whole folder, or save the data set again"
            raise BadDatasetFolder(f"{name} is missing, which state.json names", fix)
        yield part / name


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _read_card(path: Path) -> Mapping[str, Any] | None:
    """Return the metadata of a data set's card; None if the file is none."""
    import yaml

    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CARD_BYTES)
    except (OSError, ValueError):
        return None
    start, _, rest = text.partition("---\n")
    header, end, _ = rest.partition("\n---")
    if start.strip() or not end:
        return None
    try:
        card = yaml.safe_load(header)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    return card if isinstance(card, dict) and CARD_KEYS & card.keys() else None


def _read_configs(card: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    configs = (card or {}).get("configs")
    entries = configs if isinstance(configs, list) else []
    return [c for c in entries if isinstance(c, dict) and ({"data_files", "data_dir"} & c.keys())]


def _from_configs(
    folder: Path, configs: Sequence[Mapping[str, Any]], data: Sequence[Path], shown: Path
) -> DatasetFolder:
    """Return the default configuration's splits. Raises BadDatasetFolder if none is the default."""
    chosen = configs[0]
    if len(configs) > 1:
        default = [c for c in configs if c.get("default") or c.get("config_name") == "default"]
        if not default:
            names = ", ".join(repr(str(c.get("config_name"))) for c in configs)
            lines = [
                f"data.train: {split.paths_as_yaml(name, shown)}"
                for split in (_config_splits(folder, c, data) for c in configs)
                for name in split.splits
                if _is_split(name, "train")
            ]
            message = f"a Hugging Face repository of {len(configs)} data sets: {names}"
            raise BadDatasetFolder(message, " or ".join(lines[:4]) or "name the files")
        chosen = default[0]
    return _config_splits(folder, chosen, data)


def _config_splits(folder: Path, config: Mapping[str, Any], data: Sequence[Path]) -> DatasetFolder:
    known, root = set(data), Path(str(config.get("data_dir") or ""))
    splits: dict[str, tuple[Path, ...]] = {}
    for name, patterns in _split_patterns(config.get("data_files")):
        matches = {
            Path(root, match)
            for pattern in patterns
            for match in glob.glob(str(pattern), root_dir=folder / root, recursive=True)  # noqa: PTH207
        }
        files = tuple(sorted(matches & known, key=lambda path: path.parts))
        if files:
            splits[name] = files
    others: tuple[Path, ...] = ()
    if not splits:
        splits, others = _by_name([path for path in data if path.is_relative_to(root)])
    if others and not splits:
        splits, others = {"train": others}, ()
    return DatasetFolder("a Hugging Face repository", splits, others)


def _split_patterns(entry: object) -> Iterator[tuple[str, list[object]]]:
    """Yield each split and its patterns, in the ways that a card may write them."""
    if isinstance(entry, dict):
        entry = [{"split": split, "path": path} for split, path in entry.items()]
    if isinstance(entry, list) and all(isinstance(part, dict) for part in entry):
        for part in entry:
            path = part.get("path")
            yield str(part.get("split", "train")), path if isinstance(path, list) else [path]
    elif entry is not None:
        yield "train", entry if isinstance(entry, list) else [entry]


def _split_of_path(path: Path) -> str | None:
    """Return the split that a path names: in the file's name, else in that of a folder."""
    shard = _SHARD.fullmatch(path.name)
    if shard:
        return _split_of(shard[1]) or shard[1]
    for name in (path.name, *reversed(path.parent.parts)):
        found = _splits_in(name)
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _splits_in(name: str) -> list[str]:
    words = {word.lower() for word in _WORD.findall(name)}
    return [split for split, known in SPLIT_WORDS.items() if words & set(known)]


def _split_of(name: str) -> str | None:
    """Return the kind of split that a split's name is: `train_sft` is one of `train`."""
    return next((split for split in SPLIT_WORDS if _is_split(name, split)), None)


def _is_split(name: str, wanted: str) -> bool:
    first = re.split(r"[-._ ]", name.lower(), maxsplit=1)[0]
    return name == WHOLE or first in SPLIT_WORDS[wanted]


def _count(files: Sequence[Path]) -> str:
    return "1 file" if len(files) == 1 else f"{len(files)} files"

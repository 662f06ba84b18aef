"""Compare what a model has with what a runtime reads, by the table in `runtimes.py`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from local_backend.errors import TrainerError
from local_backend.export.features import ModelFiles, find_features, rope_types
from local_backend.export.options import RUNTIME_FORMATS, ExportOptions
from local_backend.export.runtime_results import Cell, load_cells
from local_backend.export.runtimes import RUNTIMES, VLLM_RANKS

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
FAMILY = "family"
"""The feature of a model whose family a runtime does not know."""
WINDOW = "sliding-window"
LENGTH_FREE_ROPES = frozenset({"default", "linear", "llama3"})
"""Rope scalings that do not follow from the context length in config.json."""


@dataclass(frozen=True)
class RemedyWords:
    """How remedies are written: as options of the command, or as fields of the job file."""

    context: str
    format: str
    runtime: str
    flag: str = ""


COMMAND_WORDS = RemedyWords("add --context {}", "use --format {}", "use --for {}", "--for ")
JOB_FILE_WORDS = RemedyWords(
    "set export.context: {}", "set export.format: {}", "name another runtime in export.for: {}"
)


@dataclass(frozen=True)
class Note:
    """What is worth knowing of a runtime, and what to do about it. Both are sentences."""

    text: str
    fix: str


@dataclass(frozen=True)
class Difference:
    """A feature that a runtime takes otherwise. `what` describes it; `effect` as in `Reading`."""

    runtime: str
    feature: str
    what: str
    effect: str

    @property
    def is_other_model(self) -> bool:
        """Return whether the runtime's model would be another one, or none."""
        return self.effect != "default"

    def describe(self) -> str:
        """Return the difference as a clause."""
        runtime = RUNTIMES[self.runtime]
        name = f"{runtime.title} {runtime.version}"
        if self.effect == "drops":
            return f"{name} silently drops {self.what}"
        if self.effect == "changes":
            return f"{name} silently computes {self.what} by a rule of its own"
        if self.effect == "refuses":
            return f"{name} does not run {self.what}"
        return f"{name} does not take {self.what} from the model's files: a request has to say it"


def find_differences(files: ModelFiles, runtime: str, form: str) -> list[Difference]:
    """Return what a runtime takes otherwise from a model that is exported in a format."""
    table, found = RUNTIMES[runtime], find_features(files)
    differences = [
        Difference(runtime, reading.feature, found[reading.feature], reading.effect)
        for reading in table.readings
        if reading.feature in found
        and (not reading.families or files.family in reading.families)
        and (not reading.formats or form in reading.formats)
    ]
    if files.family in refused_families(runtime):
        differences.append(Difference(runtime, FAMILY, f"the family {files.family}", "refuses"))
    if files.family in table.computed_otherwise:
        what = f"a part of what the family {files.family} computes"
        differences.append(Difference(runtime, FAMILY, what, "drops"))
    return differences


def is_measured(files: ModelFiles, runtime: str) -> bool:
    """Return whether the runtime's answers for a model's family were compared, and right."""
    return files.family in right_families(runtime)


def right_families(runtime: str) -> frozenset[str]:
    """Return the families whose answers in a runtime were those of transformers."""
    cells = _cells_of(runtime)
    return RUNTIMES[runtime].measured | {
        case for case, cell in cells.items() if cell.result in ("right", "close")
    }


def refused_families(runtime: str) -> frozenset[str]:
    """Return the families that a runtime does not run."""
    engine = RUNTIMES[runtime].engine
    return frozenset(case for case, cell in _cells_of(runtime).items() if cell.by == engine)


def _cells_of(runtime: str) -> dict[str, Cell]:
    """Return what was measured of each family; cases with special settings are named otherwise."""
    engine = RUNTIMES[runtime].engine
    return {case: cells[engine] for case, cells in load_cells().items() if engine in cells}


def limit_context(
    files: ModelFiles, context: int | None, form: str, words: RemedyWords = COMMAND_WORDS
) -> ModelFiles:
    """Return the files of a model that is exported in a format for at most `context` tokens.

    Raise TrainerError where that would change what the model computes.
    """
    if context is None:
        return files
    if files.context is not None and context > files.context:
        raise TrainerError(
            f"The context is limited to {context} tokens, and the model was made for"
            f" {files.context}.",
            fix=f"{words.context.format(files.context)}, or less.",
        )
    ropes = rope_types(files.text_config)
    others = sorted(ropes.keys() - LENGTH_FREE_ROPES)
    is_gguf_free = all(_says_its_lengths(kind, ropes[kind]) for kind in others)
    if others and not (form == "gguf" and is_gguf_free):
        fix = "leave the context as it is, and limit it where the model runs (vLLM: --max-model-len"
        other = f", or {words.format.format('gguf')}" if is_gguf_free and form != "gguf" else ""
        raise TrainerError(
            f"The model's rope scaling ({', '.join(others)}) follows from its context length: with"
            f" {context} tokens it would be another model.",
            fix=f"{fix} {context}){other}.",
        )
    shorter = {**files.text_config, "max_position_embeddings": context}
    nested = files.text_config is not files.config
    config = {**files.config, "text_config": shorter} if nested else shorter
    return replace(files, config=config)


def _says_its_lengths(kind: str, rope: Mapping[str, Any]) -> bool:
    """Return whether a rope scaling names all that it follows from.

    transformers 5 and llama.cpp then take nothing from the context length. transformers 4 takes the
    factor of YaRN from it all the same, so such a context is for GGUF files alone.
    """
    named = rope.get("factor") and rope.get("original_max_position_embeddings")
    return kind == "yarn" and bool(named)


def check_export(
    files: ModelFiles, options: ExportOptions, words: RemedyWords = COMMAND_WORDS
) -> list[Note]:
    """Return what is worth knowing of the named runtime.

    Raise TrainerError naming everything that would make it run another model, with the way out.
    """
    if options.runtime is None:
        return []
    differences = find_differences(files, options.runtime, options.format)
    others = [difference for difference in differences if difference.is_other_model]
    if others:
        raise TrainerError(
            f"{'; '.join(difference.describe() for difference in others)}.",
            fix=find_remedy(others, files, options, words),
        )
    notes = [Note(f"{one.describe()}.", "set it in requests.") for one in differences]
    table = RUNTIMES[options.runtime]
    if right_families(options.runtime) and not is_measured(files, options.runtime):
        name = f"{table.title} {table.version}"
        text = f"no model of the family {files.family} was compared in {name}."
        cell = _cells_of(options.runtime).get(files.family)
        if cell is not None and cell.result == "wrong":
            text = f"a model of the family {files.family} differed in {name}: {cell.detail}."
        notes.append(Note(text, "compare its answers before you rely on them."))
    return notes


def find_remedy(
    others: list[Difference], files: ModelFiles, options: ExportOptions, words: RemedyWords
) -> str:
    """Return what to do about differences: a shorter context, another format or runtime."""
    ways = []
    is_window_alone = {difference.feature for difference in others} == {WINDOW}
    if is_window_alone and rope_types(files.text_config).keys() <= LENGTH_FREE_ROPES:
        context = words.context.format(files.text_config["sliding_window"])
        ways.append(f"{context}: up to that many tokens a window makes no difference")
    if options.format == "adapter" and not find_other_models(
        replace(files, adapter=None), str(options.runtime), "merged"
    ):
        ways.append(words.format.format("merged"))
    able = [name for name in runtimes_reading(files) if name != options.runtime]
    if able:
        ways.append(words.runtime.format(f" or {words.flag}".join(able)))
    return f"{', or '.join(ways) or 'run it with transformers'}."


def find_other_models(files: ModelFiles, runtime: str, form: str) -> list[Difference]:
    """Return the differences that make the runtime's model another one."""
    return [one for one in find_differences(files, runtime, form) if one.is_other_model]


def runtimes_reading(files: ModelFiles) -> Iterator[str]:
    """Yield the runtimes that are known to compute this model, by its merged weights."""
    merged = replace(files, adapter=None)
    for name, forms in RUNTIME_FORMATS.items():
        known = name == "transformers" or is_measured(merged, name)
        if known and not find_other_models(merged, name, forms[0]):
            yield name


def run_command(options: ExportOptions, files: ModelFiles) -> str | None:
    """Return a command that runs the exported folder DIR in the named runtime, if there is one."""
    if options.runtime is None:
        return None
    commands = RUNTIMES[options.runtime].commands
    rank = int((files.adapter or {}).get("r", 0))
    largest = next((allowed for allowed in VLLM_RANKS if allowed >= rank), rank)
    values = {
        "base": shlex.quote(str(options.base or "BASE")),
        "rank": str(largest),
        # By itself vLLM computes float32 folders in half precision.
        "dtype": options.dtype,
    }
    text = commands.get(options.format)
    return text.format(**values) if text else None


def read_otherwise(files: ModelFiles, form: str) -> dict[str, list[str]]:
    """Return what each runtime that reads a format would take otherwise, as clauses."""
    found = {
        name: [difference.describe() for difference in find_differences(files, name, form)]
        for name, forms in RUNTIME_FORMATS.items()
        if form in forms
    }
    return {name: differences for name, differences in found.items() if differences}


def read_model_files(source: str, adapter: Mapping[str, Any] | None) -> ModelFiles:
    """Return what the files of a model folder or hub id say. Raise TrainerError."""
    return ModelFiles(_read(source, CONFIG), _read(source, GENERATION_CONFIG), adapter)


def _read(source: str, name: str) -> dict[str, Any]:
    """Return the content of a JSON file of a model; nothing where it has none of that name."""
    path = Path(source) / name if Path(source).is_dir() else _hub_file(source, name)
    if path is None or not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainerError(
            f"The file {path} can't be read: {error}", fix="restore the model's folder."
        ) from error
    return content


def _hub_file(hub_id: str, name: str) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(hub_id, name))
    except (EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError):
        return None  # of an unreachable hub, loading the weights says so

"""The job file's data as canonical files in one folder: read, convert, split, mix."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.data.findings import Findings
from cloudft.data.mix import chosen, counts, interleave
from cloudft.data.shortage import enough_general, note_unsplittable
from cloudft.data.sources import Sources
from cloudft.data.split import held_out_up_to
from cloudft.data.spool import Line, Spool
from cloudft.data.validate import Validator
from cloudft.types import DataFile, Source

if TYPE_CHECKING:
    from cloudft.spec.models import DataSpec

NAMES = {role: f"{role}.jsonl" for role in ("train", "validation", "test")}


class Collector:
    """One pass over a job's data. `findings` and `read_from` fill as it goes."""

    def __init__(
        self,
        data: DataSpec,
        target: str,
        seed: int,
        base_dir: Path,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.findings = Findings()
        self.read_from: list[Source] = []
        self._data, self._target, self._seed = data, target, seed
        base_dir = Path(os.path.abspath(base_dir))  # noqa: PTH100  (links stay as they are named)
        self._sources = Sources(base_dir, self.findings)
        columns = {str(name): column for name, column in data.columns.items()}
        self._validator = Validator(target, columns, self.findings, progress)

    def collect(self, folder: Path) -> dict[str, DataFile] | None:
        """Write the final files into `folder`, by role; None when an error was found.

        Raises OSError when the disk does not take them. Leaves other files beside them.
        """
        data = self._data
        share = isinstance(data.validation, float)
        purpose = "split" if share else ""
        train = self._spool(folder, "all-train", "train", "data.train", data.train, purpose)
        final: dict[str, Spool] = {}
        for role, paths in (("validation", data.validation), ("test", data.test)):
            if isinstance(paths, tuple):
                final[role] = self._spool(folder, NAMES[role], role, f"data.{role}", paths)
        general = [
            self._spool(folder, f"all-mix-{i}", "mix", f"data.mix.{i}.path", part.path, "mix")
            for i, part in enumerate(data.mix)
        ]
        self._validator.finish()
        if isinstance(data.validation, float) and not self.findings.errors():
            train, final["validation"] = self._split(folder, train, data.validation)
        if general and not self.findings.errors():
            train = self._mix(folder, train, general)
        if self.findings.errors():
            return None
        train.path.rename(folder / NAMES["train"])
        final["train"] = train
        return {role: final[role].data_file(NAMES[role]) for role in NAMES if role in final}

    def _spool(
        self,
        folder: Path,
        name: str,
        role: str,
        where: str,
        patterns: tuple[str, ...],
        purpose: str = "",
    ) -> Spool:
        """Every record that field `where` names, in canonical form, in order."""
        with Spool(folder / name, self._target, self._seed, purpose) as spool:
            for source in self._sources.files(where, patterns):
                self.read_from.append(self._validator.read(source, role, spool))
        return spool

    def _split(self, folder: Path, train: Spool, share: float) -> tuple[Spool, Spool]:
        """The records that stay and the ones held out, each in the source's order."""
        cut = held_out_up_to(train.keys, share)
        if cut is None:
            note_unsplittable(self.findings, len(train))
            return train, train
        with Spool(folder / "own-train") as kept, Spool(folder / NAMES["validation"]) as held:
            for key, line in zip(train.keys, train, strict=True):
                (held if key <= cut else kept).write(line)
        return kept, held

    def _mix(self, folder: Path, train: Spool, general: list[Spool]) -> Spool:
        """The training records with the asked shares of general ones spread among them."""
        shares = [part.share for part in self._data.mix]
        wanted = counts(len(train), shares)
        if not enough_general(self.findings, shares, wanted, list(map(len, general))):
            return train
        streams: list[tuple[int, Iterator[Line]]] = [(len(train), iter(train))]
        for spool, count in zip(general, wanted, strict=True):
            streams.append((count, compress(spool, chosen(spool.keys, count))))
        with Spool(folder / "mixed-train") as mixed:
            for line in interleave(streams):
                mixed.write(line)
        return mixed

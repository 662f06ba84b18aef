"""TensorBoard: one event file a job, continued where it ends, so that every reader sees one curve.

Readers differ in what they make of several files in one folder, of `purge_step` and of a step given
twice. One file in which no step is twice leaves them no choice. A record that a kill cut off is cut
away before the next one is appended; a run with outdated values is written again into a new file.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter, masked_crc32c

from cloudft.tracking.curve import Point, PointKey
from cloudft.tracking.sink import EvaluationFacts, Outcome, RunFacts, Settings

FILE_PREFIX = "events.out.tfevents"
EVALUATION = "evaluation"
"""Folder of the evaluation beside the curve: TensorBoard shows it as a run of its own."""
NOT_FINITE = "not_finite"
_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")


def make(settings: Settings, folder: Path) -> TensorboardSink:
    """Return the sink for the settings of a job."""
    return TensorboardSink(Path(settings["dir"]))


class TensorboardSink:
    """The folder DIR/JOB."""

    flush_seconds = 1.0

    def __init__(self, root: Path) -> None:
        self.root = root
        self._file: IO[bytes] | None = None
        self._facts: RunFacts | None = None
        self._gaps: Summary | None = None

    @property
    def url(self) -> str | None:
        """Return the folder of the run."""
        return None if self._facts is None else str(self._folder)

    @property
    def _folder(self) -> Path:
        assert self._facts is not None, "open comes first"
        return self.root / self._facts.job_id

    def open(self, facts: RunFacts) -> Mapping[PointKey, float]:
        """Return the values of the run's one event file; it is open for appending then."""
        self._facts = facts
        self._folder.mkdir(parents=True, exist_ok=True)
        files = event_files(self._folder)
        for old in files[:-1]:  # a kill came between writing anew and removing
            old.unlink()
        if not files:
            self._create(self._folder, facts.created_at)
            return {}
        values, self._gaps, end = _read_file(files[-1])
        # Not "ab": a reader of the torn record must see the next one in its place.
        self._file = files[-1].open("r+b")
        self._file.truncate(end)
        self._file.seek(end)
        return values

    def begin_again(self) -> None:
        """Begin a new file and remove the old one."""
        self.close()
        self._gaps = None
        old = event_files(self._folder)
        self._create(self._folder, max(time.time(), _time_of(old[-1]) + 1 if old else 0))
        for path in old:
            path.unlink()

    def _create(self, folder: Path, moment: float) -> None:
        assert self._facts is not None
        name = f"{FILE_PREFIX}.{int(moment):010d}.cloudft"
        hidden = folder / f".{name}"
        with hidden.open("wb") as file:
            writer = RecordWriter(file)
            started = self._facts.created_at
            version = Event(wall_time=started, file_version="brain.Event:2")
            writer.write(version.SerializeToString())
            parameters = dict(self._facts.parameters)
            for summary in (
                hparams_pb(parameters, trial_id=self._facts.job_id, start_time_secs=started),
                _text("job", self._facts.tags),
            ):
                writer.write(Event(wall_time=started, summary=summary).SerializeToString())
            writer.flush()
            os.fsync(file.fileno())
        os.replace(hidden, folder / name)  # a reader never sees a file without its beginning
        self._file = (folder / name).open("r+b")
        self._file.seek(0, os.SEEK_END)

    def log_points(self, points: Sequence[Point]) -> None:
        """Append an event for each step of a curve, and flush."""
        assert self._file is not None
        writer = RecordWriter(self._file)
        for point in points:
            value = Summary.Value(tag=point.name, simple_value=point.value)
            event = Event(wall_time=point.time, step=point.step, summary=Summary(value=[value]))
            writer.write(event.SerializeToString())
        writer.flush()

    def finish(self, outcome: Outcome) -> None:
        """Write steps without a number as a text, and the evaluation as a run beside the curve."""
        assert self._file is not None and self._facts is not None
        gaps = {name: " ".join(map(str, steps)) for name, steps in outcome.not_finite.items()}
        summary = _text(NOT_FINITE, gaps)
        if gaps and summary != self._gaps:
            event = Event(wall_time=self._facts.created_at, summary=summary)
            writer = RecordWriter(self._file)
            writer.write(event.SerializeToString())
            writer.flush()
        os.fsync(self._file.fileno())
        if outcome.evaluation is not None:
            self._write_evaluation(outcome.evaluation)

    def _write_evaluation(self, evaluation: EvaluationFacts) -> None:
        """Replace the event file of the evaluation."""
        folder = self._folder / EVALUATION
        folder.mkdir(exist_ok=True)
        old = event_files(folder)
        name = f"{FILE_PREFIX}.{int(evaluation.time):010d}.cloudft"
        hidden = folder / f".{name}"
        with hidden.open("wb") as file:
            writer = RecordWriter(file)
            version = Event(wall_time=evaluation.time, file_version="brain.Event:2")
            writer.write(version.SerializeToString())
            values = [Summary.Value(tag=k, simple_value=v) for k, v in evaluation.figures.items()]
            for summary in (Summary(value=values), _text("evaluation", evaluation.notes)):
                event = Event(wall_time=evaluation.time, step=evaluation.step, summary=summary)
                writer.write(event.SerializeToString())
            writer.flush()
            os.fsync(file.fileno())
        os.replace(hidden, folder / name)
        for path in old:
            if path.name != name:
                path.unlink()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def event_files(folder: Path) -> list[Path]:
    """Return the event files of a folder, the newest last."""
    return sorted(folder.glob(f"{FILE_PREFIX}.*"))


def _time_of(path: Path) -> int:
    """Return the time in an event file's name, by which readers order the files."""
    return int(path.name.removeprefix(f"{FILE_PREFIX}.").partition(".")[0])


def _read_file(path: Path) -> tuple[dict[PointKey, float], Summary | None, int]:
    """Return an event file's values, its text on gaps, and where its last whole record ends."""
    values: dict[PointKey, float] = {}
    gaps: Summary | None = None
    end = 0
    for content, record_end in _records(path.read_bytes()):
        end = record_end
        event = Event.FromString(content)
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                values[value.tag, event.step] = value.simple_value
            elif value.tag == NOT_FINITE:
                gaps = event.summary
    return values, gaps, end


def _records(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield each whole record of an event file and where it ends."""
    at = 0
    while at + _HEADER.size <= len(content):
        length, check = _HEADER.unpack_from(content, at)
        start = at + _HEADER.size
        end = start + length + _FOOTER.size
        if check != masked_crc32c(content[at : at + 8]) or end > len(content):
            return
        data = content[start : start + length]
        if _FOOTER.unpack_from(content, start + length)[0] != masked_crc32c(data):
            return
        yield data, end
        at = end


def _text(tag: str, values: Mapping[str, str]) -> Summary:
    """Return a text of TensorBoard: a table of names and values.

    Built here, since TensorBoard's own function imports TensorFlow.
    """
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items()]
    text = "\n".join(["| name | value |", "| --- | --- |", *rows]).encode()
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[text], tensor_shape=shape)
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

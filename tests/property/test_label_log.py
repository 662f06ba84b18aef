"""Whatever a crash cuts, and however reads and writes mix, no saved label is lost or changed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudft.labeling.events import EventFile, LabelEvent, fold_events
from cloudft.storage.append_log import LogReader, append_line

KEYS = st.sampled_from("abc")
EVENTS = st.builds(
    LabelEvent,
    id=st.text("0123456789abcdef", min_size=1, max_size=2),
    key=KEYS,
    action=st.sampled_from(["label", "reject", "skip", "undo"]),
    label=st.text(max_size=20),
    seconds=st.floats(0, 1e6),
)
STEPS = st.lists(
    st.one_of(
        EVENTS,
        st.just("read"),
        st.binary(min_size=1, max_size=30).map(lambda raw: raw.replace(b"\n", b" ")),
    ),
    max_size=30,
)


@settings(max_examples=30, deadline=None)
@given(STEPS)
def test_every_saved_event_is_read_back(steps: list[LabelEvent | str | bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels-ada.jsonl"
        early, writer = EventFile(path), EventFile(path)
        saved = []
        for step in steps:
            if isinstance(step, LabelEvent):
                writer.append(step)
                saved.append(step)
            elif isinstance(step, bytes):  # a write that a crash has cut
                with path.open("ab") as file:
                    file.write(step)
            else:
                early.refresh()
        expected = fold_events(saved)
        for found in (writer.labels, early.refresh(), EventFile(path).refresh()):
            assert found.stacks == expected.stacks
            assert found.order == expected.order
            assert found.decided == expected.decided


@settings(max_examples=30, deadline=None)
@given(st.lists(EVENTS, max_size=20), st.integers(0, 2000))
def test_a_file_cut_anywhere_loses_its_last_line_at_most(
    events: list[LabelEvent], length: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels-ada.jsonl"
        path.touch()
        for event in events:
            EventFile(path).append(event)
        content = path.read_bytes()[:length]
        path.write_bytes(content)
        whole = content.count(b"\n")
        assert EventFile(path).refresh().stacks == fold_events(events[:whole]).stacks
        append_line(path, b"{}")
        assert [line for _, line in LogReader(path).read_new_lines()][-1] == b"{}"


@given(st.lists(EVENTS, max_size=40))
def test_the_state_is_that_of_a_plain_replay(events: list[LabelEvent]) -> None:
    stacks: dict[str, list[LabelEvent]] = {}
    seen = set()
    for event in events:
        if event.id in seen:
            continue
        seen.add(event.id)
        if event.action != "undo":
            stacks.setdefault(event.key, []).append(event)
        elif stacks.get(event.key):
            stacks[event.key].pop()
    labels = fold_events(events)
    assert labels.stacks == {key: stack for key, stack in stacks.items() if stack}
    assert sorted(labels.order) == sorted(key for key, stack in stacks.items() for _ in stack)

"""The depth of a JSON text is known before it is decoded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudft.web.json_depth import is_within_depth

VALUES = st.recursive(
    st.text(alphabet='[]{}"\\a', max_size=4) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\', max_size=2), inner)
    ),
)


def measure_depth(value: Any) -> int:
    """Return the number of objects and arrays around the innermost one, that one included."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(measure_depth, value), default=0) if isinstance(value, list) else 0


@given(VALUES, st.integers(0, 6))
def test_brackets_count_outside_strings_alone(value: Any, depth: int) -> None:
    assert is_within_depth(json.dumps(value).encode(), depth) == (measure_depth(value) <= depth)


@pytest.mark.parametrize(("levels", "expected"), [(100, True), (101, False), (3_000_000, False)])
def test_a_hundred_levels_are_taken(levels: int, expected: bool) -> None:
    assert is_within_depth(b"[" * levels + b"]" * levels) is expected

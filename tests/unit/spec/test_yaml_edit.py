"""Changing values in a job file's text: everything else stays, to the character."""

from __future__ import annotations

import pytest
import yaml

from cloudft.errors import UsageError
from cloudft.spec.yaml_edit import edit_yaml, write_scalar

TEXT = """\
# routing of tickets
name: "a"   # quotes stay
hyperparameters:
  learningRate: 1e-4   # found by hand
  epochCount: 3

  # warm-up helps here
local:
  lora: {r: 8}  # small
empty:
seed: 7
"""


def test_a_value_is_replaced_and_comments_stay() -> None:
    edited = edit_yaml(TEXT, {("hyperparameters", "learningRate"): 0.000312, ("seed",): 9})
    assert edited == TEXT.replace("1e-4 ", "0.000312 ").replace("seed: 7", "seed: 9")


def test_missing_keys_are_added_where_they_belong() -> None:
    changes = {
        ("hyperparameters", "batchSize"): 4,
        ("local", "lora", "alpha"): 16,
        ("local", "method"): "full",
        ("empty", "x", "y"): True,
        ("preference", "beta"): 0.25,
    }
    edited = edit_yaml(TEXT, changes)
    assert (
        edited
        == TEXT.replace("epochCount: 3\n", "epochCount: 3\n  batchSize: 4\n")
        .replace("{r: 8}  # small\n", "{r: 8, alpha: 16}  # small\n  method: full\n")
        .replace("empty:", "empty: {x: {y: true}}")
        + "preference:\n  beta: 0.25\n"
    )
    assert yaml.safe_load(edited)["local"] == {"lora": {"r": 8, "alpha": 16}, "method": "full"}


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a: &x 1\nb: *x\n", ("a",)),
        ("a: &x 1\nb: *x\n", ("b",)),
        ("a: 1\n", ("a", "b")),
        ("- a\n", ("a",)),
    ],
)
def test_what_can_not_be_changed_alone_is_refused(text: str, path: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="can't be changed"):
        edit_yaml(text, {path: 2})


@pytest.mark.parametrize(
    "value", [1, 0.5, 1e-5, 3.12e-4, 16.0, 1e-9, True, "full", "no", "1e-5", [1, 2], "a: b # c"]
)
def test_a_written_value_is_read_back(value: object) -> None:
    assert yaml.safe_load(f"x: {write_scalar(value)}\n") == {"x": value}


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        ("a: 1", "a: 2"),
        ("a:\n  - 1\n  - 2\n# end\nb: 1\n", "a:\n  2\n# end\nb: 1\n"),
        ("{b: 1}\n", "{b: 1, a: 2}\n"),
        ("{}\n", "{a: 2}\n"),
        ("b: |\n  text\n", "b: |\n  text\na: 2\n"),
        ("a: >\n  text\nb: 1\n", "a: 2\nb: 1\n"),
        ("a: 'x'  # c\n", "a: 2  # c\n"),
    ],
)
def test_every_style_of_yaml_is_edited(text: str, edited: str) -> None:
    result = edit_yaml(text, {("a",): 2})
    assert yaml.safe_load(result) == yaml.safe_load(edited)
    assert result == edited

"""Names and docstrings use the field's words; docstrings of functions begin with a verb."""

from __future__ import annotations

import language
import pytest

KEPT = {
    "cloudft/aws/upload.py name tell": "the method of Python's file interface",
    "cloudft/evaluate/results.py name asked": "a key of the evaluations' files",
}
"""Retired words that stay, with the reason."""


@pytest.mark.parametrize("folder", ["cloudft", "local_backend", "tests", "benchmarks", "examples"])
def test_no_retired_word_is_in_a_name_or_a_docstring(folder: str) -> None:
    found = language.of((folder,)).retired
    assert [line for line in found if _without_line(line) not in KEPT] == []


@pytest.mark.parametrize("folder", ["cloudft", "local_backend"])
def test_docstrings_of_functions_begin_with_a_verb(folder: str) -> None:
    figures = language.of((folder,))
    assert figures.docstrings > 300
    assert figures.verbs / figures.docstrings >= 0.98, figures.not_verbs


@pytest.mark.parametrize("folder", ["cloudft", "local_backend"])
def test_functions_fit_a_screen(folder: str) -> None:
    figures = language.of((folder,))
    assert max(figures.functions) <= 60


def test_a_retired_word_is_found_wherever_it_is() -> None:
    source = 'def told_off(stranger: int) -> None:\n    """Anew."""\n    asked = stranger\n'
    figures = language.Figures()
    language.count(source, "module.py", figures)
    words = {line.rpartition(" ")[2] for line in figures.retired}
    assert words == {"anew", "asked", "stranger", "told"}


def _without_line(line: str) -> str:
    """Return `PATH name NAME` or `PATH docstring`, without line and word."""
    path, _, rest = line.partition(":")
    return f"{path} {rest.partition(' ')[2].rpartition(':')[0]}"

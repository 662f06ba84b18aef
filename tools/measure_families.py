r"""Measure which form of rows is right in each family of transformers, and write the table of it.

    python tools/measure_families.py            # print what differs from the table
    python tools/measure_families.py --update   # write local_backend/models/family_table.py

Every family is built tiny with random weights. Losses and gradients of rows without padding, and
of padded rows, are compared with those of each row alone. --update keeps what the table knows of
other versions: a family is padding-free if every measured version computes it right. --fresh
measures anew. For another version: pip install --no-deps --target DIR transformers==VERSION, and
PYTHONPATH=DIR.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import tiny_families
import torch

from local_backend.data.batches import collate
from local_backend.models import family_table
from local_backend.training.loss import forward_padded
from local_backend.training.padding_free import forward_lines, pack_lines

CPU = torch.device("cpu")
FORMS: dict[str, Callable[[Any], Any]] = {
    "PADDING_FREE": lambda model: forward_lines(
        model, pack_lines(tiny_families.ROWS, tiny_families.PAD, CPU)
    ),
    "PADDED": lambda model: forward_padded(
        model, collate(tiny_families.ROWS, tiny_families.PAD, CPU)
    ),
}
"""The forms of rows by their name in the table, the cheapest first."""
DOCSTRINGS = {
    "PADDING_FREE": "Families that are right with rows one after another, and padded on the right.",
    "PADDED": "Families that read across rows without padding, and are right padded on the right.",
    "ROW_BY_ROW": "Families that are right with one row at a time alone.",
}


def measure_family(model_type: str) -> str:
    """Return the name in the table of the cheapest form that is right."""
    model = tiny_families.build_family(model_type)
    expected = tiny_families.losses_alone(model)
    for name, forward in FORMS.items():
        try:
            losses = tiny_families.losses_and_gradients(forward(model), model)
        except (RuntimeError, ValueError, IndexError, TypeError):
            continue
        if tiny_families.is_equal(losses, expected):
            return name
    return "ROW_BY_ROW"


def merge(measured: dict[str, str]) -> dict[str, str]:
    """Return the table's families with those measured now, each in the costlier of two forms."""
    forms = list(DOCSTRINGS)
    known = {name: form for form in forms for name in getattr(family_table, form)}
    return {
        name: max((table[name] for table in (known, measured) if name in table), key=forms.index)
        for name in known.keys() | measured.keys()
    }


def write_table(table: dict[str, str], versions: Sequence[str]) -> None:
    """Write family_table.py."""
    ordered = sorted(set(versions), key=lambda text: [int(n) for n in text.split(".")])
    listed = ", ".join(f'"{version}"' for version in ordered)
    parts = [
        '"""Which rows each family computes right: written by tools/measure_families.py."""',
        "",
        f"VERSIONS = ({listed},)" if len(ordered) == 1 else f"VERSIONS = ({listed})",
        '"""The versions of transformers that were measured, in order."""',
    ]
    for form, docstring in DOCSTRINGS.items():
        names = " ".join(sorted(name for name, value in table.items() if value == form))
        lines = textwrap.wrap(names, 100, break_on_hyphens=False)
        parts += [f'_{form} = """', *lines, '"""', f"{form} = frozenset(_{form}.split())"]
        parts += [f'"""{docstring}"""']
    path = Path(str(family_table.__file__))
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the table")
    parser.add_argument("--only", nargs="*", help="families to measure; the others are kept")
    parser.add_argument("--fresh", action="store_true", help="forget other versions")
    options = parser.parse_args()
    from transformers import __version__ as version

    measured = {}
    for model_type in options.only or tiny_families.model_types():
        try:
            measured[model_type] = measure_family(model_type)
        except Exception as error:  # of any kind: the code of a hundred families
            print(f"{model_type}: not measured: {type(error).__name__}: {str(error)[:100]}")
    table = measured if options.fresh else merge(measured)
    for name in sorted(table):
        now = next((form for form in DOCSTRINGS if name in getattr(family_table, form)), "-")
        if now != table[name]:
            print(f"{name}: {now} -> {table[name]}")
    print(f"{len(measured)} families measured with transformers {version}")
    if options.update:
        old = [] if options.fresh else family_table.VERSIONS
        write_table(table, [version, *old])
    return 0


if __name__ == "__main__":
    sys.exit(main())

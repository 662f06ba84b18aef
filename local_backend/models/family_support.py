"""Which form of rows is right in a model's own forward pass, by family.

Rows that follow one another without padding cost least. But whether a token then attends to the row
before it depends on the code of the family, which transformers does not promise anywhere: a family
whose code passes no positions on to its mask, or that has a convolution or a state between tokens,
reads across rows and says nothing. So `family_table.py` has what was measured, and everything else
is padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_backend.models import family_table

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEASURED_ATTENTION = ("sdpa", "eager")
"""Implementations of attention that the table holds for."""


@dataclass(frozen=True)
class RowForm:
    """The form of rows in a model's own forward pass, by the path's name, and why."""

    name: str
    reason: str


def choose_rows(model: PreTrainedModel) -> RowForm:
    """Return `padding-free`, `padded` or `row-by-row` for a model, with the reason."""
    config, table = model.config, _describe_table()
    family = str(config.model_type)
    if family in family_table.ROW_BY_ROW:
        return RowForm("row-by-row", f"padding changes what {family} computes ({table})")
    if family in family_table.PADDED:
        return RowForm("padded", f"rows without padding would be wrong in {family} ({table})")
    if family not in family_table.PADDING_FREE:
        return RowForm("padded", f"{family} is not in the {table}")
    version = installed_version()
    if not is_measured_version(version):
        return RowForm("padded", f"the {table} is not that of transformers {version}")
    attention = getattr(config, "_attn_implementation", None)
    if attention not in MEASURED_ATTENTION:
        return RowForm("padded", f"the {table} does not know the attention {attention}")
    is_bidirectional = getattr(config, "use_bidirectional_attention", None) in (True, "all")
    if is_bidirectional or not getattr(config, "is_causal", True):
        return RowForm("padded", "its attention is not causal")
    return RowForm("padding-free", f"its rows are packed by position_ids ({table})")


def installed_version() -> str:
    """Return the version of transformers."""
    from transformers import __version__

    return __version__


def is_measured_version(version: str) -> bool:
    """Return whether a version of transformers is measured, whatever its patch release."""
    return _minor(version) in map(_minor, family_table.VERSIONS)


def _minor(version: str) -> str:
    """Return major and minor of a version."""
    return ".".join(version.split(".")[:2])


def _describe_table() -> str:
    first, last = _minor(family_table.VERSIONS[0]), _minor(family_table.VERSIONS[-1])
    return f"family table of transformers {first}{'' if first == last else f' to {last}'}"

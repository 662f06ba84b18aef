"""Warn of held-out records that are in the training data too: they falsify an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cloudft.data.checks.record_keys import RecordKeys
from cloudft.data.checks.repeated_keys import Repeats, find_common
from cloudft.data.checks.repeated_records import describe_pairs
from cloudft.data.findings import Findings
from cloudft.types import is_validation_role

if TYPE_CHECKING:
    from cloudft.spec.model import DataSpec

CONSEQUENCES = {
    "test": ("LeakedTestSet", "their scores say nothing about new input"),
    "validation": ("LeakedValidationSet", "the best weights would be chosen by what was learned"),
}
"""Code and reason by role; those of `validation` are every validation set's."""
TRAINED_ROLES = ("train", "mix")


def has_held_out_files(data: DataSpec) -> bool:
    """Return whether a job names files of held-out records, with which leaks are possible."""
    return bool(data.held_out_files)


def warn_leaks(findings: Findings, keys: Mapping[str, RecordKeys]) -> None:
    """Add a warning for each held-out file's role with inputs that are trained on.

    `keys` are those of the roles' records. Inputs are compared without case and white space, as
    in analysis/leakage.py, where all of them were hashed so; else exactly.
    """
    held_out_roles = [role for role in keys if role not in TRAINED_ROLES]
    for role in sorted(held_out_roles, key=is_validation_role):  # the test set first
        code, reason = CONSEQUENCES["validation" if is_validation_role(role) else "test"]
        held_out = keys[role]
        for name in TRAINED_ROLES:
            common = _find_common(keys[name], held_out) if name in keys else None
            if common is None or not common.records:
                continue
            leaked, total = len(common.records), len(held_out)
            count = f"all {total}" if leaked == total else f"{leaked} of {total}"
            where = "the training data" if name == "train" else "data.mix"
            message = (
                f"{count} {role} inputs are in {where} too"
                f" ({describe_pairs(common, held_out, keys[name])}): {reason}."
                " `cloudft data leakage` lists them"
            )
            fix = f"take them out of the training data, or give another {role} file"
            file, line = held_out.locate(common.records[0])
            findings.add(code, message, fix, file=file, line=line, severity="warning")


def _find_common(trained: RecordKeys, held_out: RecordKeys) -> Repeats:
    if trained.normalized is None or held_out.normalized is None:
        return find_common(trained.prompts, held_out.prompts)
    return find_common(trained.normalized, held_out.normalized)

"""Environments of the runtimes, and folders of the models that run in them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))
os.environ["HF_HUB_OFFLINE"] = "1"

import runtime_models  # noqa: E402
from runtime_matrix import Exported, export_for_runtimes  # noqa: E402


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Return a case's folder and GGUF file, made at the first call."""
    made: dict[str, Exported] = {}

    def export(case: str) -> Exported:
        if case not in made:
            assert case in runtime_models.case_names()
            made[case] = export_for_runtimes(case, tmp_path_factory.mktemp("case"))
        return made[case]

    return export

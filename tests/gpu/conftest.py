"""What the tests on a GPU share. `make test-gpu` runs them; no other run collects them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

NO_GPU = "these tests need an NVIDIA GPU, and PyTorch {version} finds none here"


def pytest_configure(config: pytest.Config) -> None:
    """End at once, with one line, where there is no GPU."""
    if not torch.cuda.is_available():
        pytest.exit(NO_GPU.format(version=torch.__version__), returncode=3)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tests' random model."""
    import tiny

    return tiny.build_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def cuda() -> torch.device:
    """Return the GPU."""
    return torch.device("cuda")

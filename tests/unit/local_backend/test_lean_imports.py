"""What a trainer's process imports, and what it does where another version needs more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from local_backend.lean_imports import is_plain_model

NEVER_NEEDED = {
    *("accelerate", "scipy", "sklearn", "pandas", "peft", "PIL", "matplotlib", "boto3"),
    *("torch._inductor", "torch.distributed.tensor", "torch.onnx"),
}
TRAIN = """
import sys, torch
from local_backend import lean_imports, train
lean_imports.allow_lean_imports()
EXTRA
code = train.main(sys.argv[1:])
loaded = sorted(name for name, module in sys.modules.items() if module is not None)
"""
COMPILE = """
double = torch.compile(lambda x: 2 * x, backend="eager")
assert double(torch.ones(2)).tolist() == [2.0, 2.0]
hidden = torch._dynamo.disable(lambda x: x + 1)
assert hidden(1) == 2 and "torch._dynamo.convert_frame" in sys.modules
"""


def train(folder: Path, *, extra: str = "", after: str = "") -> tuple[set[str], str]:
    """Train in a process of its own; return the modules that it has loaded, and its log."""
    code = TRAIN.replace("EXTRA", extra) + after
    code += "import json; print(json.dumps(loaded)); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    log, _, last = done.stdout.rstrip().rpartition("\n")
    return set(json.loads(last)), log


def test_a_lora_job_imports_no_more_than_it_needs(tmp_path: Path, tiny_model: Path) -> None:
    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, {"train": tiny.pairs(8)})
    loaded, log = train(folder, after=COMPILE)  # the compiler is there when somebody uses it
    assert "transformers.modeling_utils" in loaded
    assert sorted(loaded & NEVER_NEEDED) == []
    assert "ended: Completed" in log


def test_what_hides_too_much_is_taken_back(tmp_path: Path, tiny_model: Path) -> None:
    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, {"train": tiny.pairs(8)})
    # As if another version needed what is hidden.
    extra = "lean_imports.UNUSED_PACKAGES += ('transformers.activations',)"
    loaded, log = train(folder, extra=extra)
    assert "importing transformers with all that is installed" in log
    assert "accelerate" in loaded and "ended: Completed" in log


def test_a_tokenizer_of_another_package_gets_all_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    (tmp_path / "tekken.json").write_text("{}")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "mistral_common", None)  # not installed
        assert is_plain_model(tmp_path)
    package = tmp_path / "site" / "mistral_common"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(package.parent)
    assert not is_plain_model(tmp_path)
    (tmp_path / "tekken.json").unlink()
    assert is_plain_model(tmp_path)

#!/usr/bin/env bash
# cyclonedx-python-lib 11.12.0 reads a valid ML-BOM and writes it without its model cards and data.
#
# Guess: the library has classes for `modelCard` and `data` of components, which the specification has
#   since 1.5, or at least keeps what it does not know, or says that it drops it.
# Behavior: it has neither class (both are a TODO in model/component.py), `Bom.from_json` drops the keys
#   without a warning, and what it writes again is valid by its own strict validator: only the scores,
#   the training data and the limits are gone.
# Output seen:
#   valid before: True, after: True
#   model card kept: False, data kept: False, warnings: 0
# Exit status: 1 when that has changed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    "cyclonedx-python-lib[json-validation]==11.12.0"

cat > "$folder/roundtrip.py" <<'PYTHON'
"""Read and write a BOM with a model card and a dataset."""

import json
import sys
import warnings

from cyclonedx.model.bom import Bom
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

metric = {"type": "accuracy", "value": "0.9"}
bom = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "version": 1,
    "components": [
        {
            "type": "machine-learning-model",
            "name": "model",
            "bom-ref": "model",
            "modelCard": {"quantitativeAnalysis": {"performanceMetrics": [metric]}},
        },
        {
            "type": "data",
            "name": "train.jsonl",
            "bom-ref": "data",
            "data": [{"type": "dataset", "name": "train.jsonl"}],
        },
    ],
}
validator = JsonStrictValidator(SchemaVersion.V1_6)
before = validator.validate_str(json.dumps(bom)) is None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    read = Bom.from_json(bom)
    text = make_outputter(read, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
after = validator.validate_str(text) is None
components = json.loads(text)["components"]
card = any("modelCard" in one for one in components)
data = any("data" in one for one in components)
print(f"valid before: {before}, after: {after}")
print(f"model card kept: {card}, data kept: {data}, warnings: {len(caught)}")
sys.exit(0 if before and after and not card and not data and not caught else 1)
PYTHON

"$folder/venv/bin/python" "$folder/roundtrip.py"

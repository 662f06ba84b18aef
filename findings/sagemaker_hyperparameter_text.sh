#!/usr/bin/env bash
# A hyperparameter that is text reaches the training script as another text.
#
# Packages: sagemaker-core 2.27.0 (its container driver, modules/train/container_drivers/scripts/environment.py, which
# ModelTrainer runs before the script), boto3 1.44.5's service model for CreateTrainingJob.
# Guess: HyperParameters is a map of strings to strings, so SM_HP_NAME holds the string that was sent.
# Behavior: the driver decodes each value as JSON where that works and writes it again. A version "1.10" comes as 1.1; a
# short commit id of digits and one e comes as a power of ten, or as Infinity where it is too large. Nothing is logged.
# What is no JSON (a leading zero, letters) stays as it is, so it shows for some versions and commits only.
# Seen:
#   sent                                        SM_HP_*
#   release      1.10                           1.1
#   commit       4e10                           40000000000.0
#   commit2      123e456                        Infinity
#   postcode     01234                          01234
#   release2     1.10.0                         1.10.0
# Way out: quote such a value as JSON before it is sent ('"1.10"'), or read hyperparameters.json.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet sagemaker-core==2.27.0 boto3==1.44.5
cat > "$folder/try.py" <<'PYTHON'
import pathlib
import sys

import botocore.session
import sagemaker.core

model = botocore.session.get_session().get_service_model("sagemaker")
wanted = model.operation_model("CreateTrainingJob").input_shape.members["HyperParameters"]
assert (wanted.key.type_name, wanted.value.type_name) == ("string", "string")

core = pathlib.Path(sagemaker.core.__file__).parent
sys.path.insert(0, str(core / "modules/train/container_drivers/scripts"))
import environment

sent = {"release": "1.10", "commit": "4e10", "commit2": "123e456", "postcode": "01234", "release2": "1.10.0"}
machine = {
    "current_host": "algo-1",
    "current_instance_type": "ml.m5.xlarge",
    "hosts": ["algo-1"],
    "network_interface_name": "eth0",
}
out = pathlib.Path(sys.argv[1])
environment.set_env(machine, {"train": {}}, sent, output_file=str(out))
lines = [line.removeprefix("export ").partition("=") for line in out.read_text().splitlines()]
told = {name.removeprefix("SM_HP_").lower(): value.strip("'") for name, _, value in lines if name.startswith("SM_HP_")}
for name, value in sent.items():
    print(f"{name:12} {value:30} {told[name]}", file=sys.stderr)
seen = {"release": "1.1", "commit": "40000000000.0", "commit2": "Infinity", "postcode": "01234", "release2": "1.10.0"}
sys.exit(told != seen)
PYTHON
TRAINING_JOB_NAME=x "$folder/env/bin/python" "$folder/try.py" "$folder/sm.env" > "$folder/log"

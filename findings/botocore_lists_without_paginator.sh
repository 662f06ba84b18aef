#!/usr/bin/env bash
# botocore 1.44.5: of all operations that take and return a page token, one in five has no paginator.
#
# Guess: an operation whose input and output have NextToken has a paginator, so code that pages with
#   client.get_paginator() covers every list, and only Describe operations of single resources lack one.
# Behavior: counted over every service of botocore, the operations below have the token in input and output
#   and no paginator: can_paginate() is False, get_paginator() raises OperationNotPageableError, and a plain
#   call returns the first page only. Among them are lists that a clean-up or a drift check needs:
#   DescribeStackResourceDrifts (CloudFormation), ListHubs (SageMaker), ListEventBuses (EventBridge),
#   ListStateMachineVersions (Step Functions), DescribeAccountPolicies (CloudWatch Logs).
# Output seen:
#   800 of 3835 in 145 services
#   bedrock 0
#   cloudformation 7
#   events 9
#   logs 10
#   sagemaker 7
#   stepfunctions 2
#   describe_stack_resource_drifts pages: False
# Exit status: 1 when that has changed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "botocore==1.44.5"

cat > "$folder/count.py" <<'PYTHON'
"""Count the operations with a page token on both sides, and those of them without a paginator."""

import botocore.session
from botocore.exceptions import UnknownServiceError

TOKENS = {"NextToken", "nextToken"}
session = botocore.session.get_session()
paged, without = 0, []
for service in session.get_available_services():
    model = session.get_service_model(service)
    try:
        pageable = session.get_paginator_model(service)._paginator_config
    except (UnknownServiceError, ValueError):
        pageable = {}
    for name in model.operation_names:
        operation = model.operation_model(name)
        shapes = [shape for shape in (operation.input_shape, operation.output_shape) if shape]
        if len(shapes) == 2 and all(TOKENS & set(shape.members) for shape in shapes):
            paged += 1
            if name not in pageable:
                without.append((service, name))
print(f"{len(without)} of {paged} in {len({service for service, _ in without})} services")
for service in ("bedrock", "cloudformation", "events", "logs", "sagemaker", "stepfunctions"):
    print(service, sum(one == service for one, _ in without))
client = session.create_client("cloudformation", region_name="us-east-1")
print("describe_stack_resource_drifts pages:", client.can_paginate("describe_stack_resource_drifts"))
PYTHON

EXPECTED="800 of 3835 in 145 services
bedrock 0
cloudformation 7
events 9
logs 10
sagemaker 7
stepfunctions 2
describe_stack_resource_drifts pages: False"
output=$("$folder/venv/bin/python" "$folder/count.py")
echo "$output"
[ "$output" = "$EXPECTED" ]

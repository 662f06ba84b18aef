"""The local trainer: a program whose interface is a folder.

`python -m local_backend JOB_DIR` reads `JOB_DIR/job.json` and the staged files beside it, trains,
and writes status, metrics and artifacts into `JOB_DIR`. It imports neither cloudft nor boto3.
"""

import os

os.environ.setdefault("TQDM_DISABLE", "1")
"""Progress bars would fill the logs. tqdm reads this variable when torch imports it."""

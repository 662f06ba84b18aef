"""The local trainer: a program whose interface is a folder.

`python -m local_backend JOB_DIR` reads `JOB_DIR/job.json` and the staged files beside it, trains,
and writes status, metrics and artifacts into `JOB_DIR`. It knows nothing of cloudft or of AWS.
"""

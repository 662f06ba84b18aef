"""Export one tuned model, verified: `python -m local_backend.export JOB_DIR OUT`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

from local_backend.errors import TrainerError
from local_backend.export import export_model as exporting
from local_backend.export.options import DTYPES, FORMATS, RUNTIME_FORMATS, ExportOptions
from local_backend.job_dir import JobDir
from local_backend.libraries import silence_libraries
from local_backend.process_exit import exit_now, exit_with_parent


def main() -> int:
    """Export one job. Print the proof, or the error, as JSON on standard output.

    Other output (for example, a conversion of weights) goes to standard error.
    """
    args = read_arguments()
    if args.end_with_stdin:
        exit_with_parent()
    silence_libraries()
    options = ExportOptions(
        args.format, args.runtime, args.dtype, args.quantize, args.context, args.base
    )
    try:
        with contextlib.redirect_stdout(sys.stderr):
            proof = exporting.export_model(JobDir(args.job_dir), args.out.resolve(), options)
        print(json.dumps(proof))
    except KeyboardInterrupt:
        return 1
    except TrainerError as error:
        print(json.dumps({"error": error.message, "fix": error.fix}))
        return 1
    return 0


def read_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="python -m local_backend.export", description=__doc__)
    parser.add_argument("job_dir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--format", choices=FORMATS, default=ExportOptions.format)
    parser.add_argument("--for", dest="runtime", choices=RUNTIME_FORMATS, help="what will run it")
    parser.add_argument("--dtype", choices=DTYPES, default=ExportOptions.dtype)
    parser.add_argument(
        "--quantize", default=ExportOptions.quantization, help="of a GGUF file, or for mlx"
    )
    parser.add_argument("--context", type=int, help="tokens of prompt and answer at most")
    parser.add_argument("--base", help="what an adapter's folder names as its base")
    parser.add_argument("--end-with-stdin", action="store_true", help="end when it is closed")
    return parser.parse_args()


if __name__ == "__main__":
    exit_now(main())

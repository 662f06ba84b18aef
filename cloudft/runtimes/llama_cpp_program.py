"""Serve a GGUF file by llama.cpp: `python -m cloudft.runtimes.llama_cpp_program FILE PORT`.

llama.cpp runs within this process (the package xllamacpp), so the process is one of its own. The
API key is read from the environment, which other users of the machine can't read.
"""

from __future__ import annotations

import os
import sys
import threading

KEY_VARIABLE = "CLOUDFT_STARTED_SERVER_KEY"
SLOTS, CONTEXT = 4, 8192
"""Requests that are answered at once, and the tokens that each may have; a model with a shorter
context has its own."""


def main() -> None:
    """Serve until the process is ended."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.port = int(sys.argv[2])
    params.model_alias = [sys.argv[3]]
    params.hostnames = ["127.0.0.1"]
    params.api_keys = [os.environ[KEY_VARIABLE]]
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * CONTEXT
    params.use_jinja = True  # the model's own template, not one that llama.cpp guesses
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# langchain-openai does not detect OpenAI's code context_length_exceeded, with the openai client that it installs.
#
# Packages: langchain-openai 1.7.4, openai 3.57.0.
# Guess: an answer with status 400 and the code context_length_exceeded, as OpenAI's API has it, raises
# ContextOverflowError: middleware that shortens a conversation waits for that class.
# Behavior: langchain-openai looks for the code in str(error). openai 3 writes there "Error code: 400 - MESSAGE", without
# the body that openai 2 wrote, so the code is never in it. The plain OpenAIInvalidRequestError is raised. The messages
# of OpenAI's newer models and of Anthropic ("prompt is too long") are detected, by their words.
# Why it matters: a server that sends the right code only looks as if it had refused a parameter.
# Way out: say "prompt is too long" in the message besides the code, as `cloudft serve` does.
# Seen:
#   code, message of OpenAI:       OpenAIInvalidRequestError
#   code, "prompt is too long":    OpenAIContextOverflowError
# Exit status: 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip --disable-pip-version-check install --quiet langchain-openai==1.7.4 openai==3.57.0
cd "$folder"
cat > try.py <<'PYTHON'
import http.server
import json
import sys
import threading

from langchain_openai import ChatOpenAI

OWN = "This model's maximum context length is 16385 tokens. However, your messages resulted in 20006 tokens."
WORDS = {"code, message of OpenAI": OWN, 'code, "prompt is too long"': f"{OWN} The prompt is too long."}


class Answer(http.server.BaseHTTPRequestHandler):
    message = ""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        error = {"type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}
        body = json.dumps({"error": {"message": Answer.message, **error}}).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
threading.Thread(target=server.serve_forever, daemon=True).start()
model = ChatOpenAI(model="any", api_key="any", base_url=f"http://127.0.0.1:{server.server_port}/v1", max_retries=0)
raised = []
for name, Answer.message in WORDS.items():
    try:
        model.invoke("Hello")
    except Exception as error:
        raised.append(type(error).__name__)
        print(f"{name + ':':31}{raised[-1]}")
same = raised == ["OpenAIInvalidRequestError", "OpenAIContextOverflowError"]
print("as described" if same else "changed")
sys.exit(not same)
PYTHON
env -u OPENAI_API_KEY -u LANGSMITH_TRACING "$folder/env/bin/python" -W ignore try.py 2> log || { cat log >&2; exit 1; }

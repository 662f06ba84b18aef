#!/usr/bin/env bash
# openai 3.57.0 repeats a creation whose answer was lost, and sends nothing by which the service could tell.
#
# Guess: the client sends an Idempotency-Key with each POST, the same one when it retries (its code has
#   such a header), so that a fine-tuning job whose answer was lost is not created twice.
# Behavior: the header is never sent. With the default max_retries=2, a connection that breaks after the
#   service has created the job makes the client create a second one, whose id it returns. The first trains
#   on unseen: on Bedrock two jobs at 80 USD an hour. The same holds for files.create. Set
#   max_retries=0 for creations, and look in the list before trying again.
# Output seen:
#   created: 2, known: ftjob-2
#   idempotency key: False
# Exit status: 1 when that has changed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "openai==3.57.0"

cat > "$folder/lost.py" <<'PYTHON'
"""Lose the first answer to a creation, and count what the client sends."""

import http.server
import json
import threading

import openai


class Lossy(http.server.BaseHTTPRequestHandler):
    """Creates a job for each POST; the answer to the first one is lost."""

    seen = []

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append({name.lower() for name in self.headers})
        if len(self.seen) == 1:
            self.close_connection = True
            self.connection.close()
            return
        content = {"id": f"ftjob-{len(self.seen)}", "object": "fine_tuning.job"}
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass


server = Quiet(("127.0.0.1", 0), Lossy)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(api_key="any", base_url=f"http://127.0.0.1:{server.server_port}/v1")
job = client.fine_tuning.jobs.create(model="openai.gpt-oss-20b", training_file="file-1")
print(f"created: {len(Lossy.seen)}, known: {job.id}")
print(f"idempotency key: {any('idempotency-key' in names for names in Lossy.seen)}")
PYTHON

seen=$("$folder/venv/bin/python" "$folder/lost.py")
echo "$seen"
grep -qx 'created: 2, known: ftjob-2' <<< "$seen" && grep -qx 'idempotency key: False' <<< "$seen"

"""Kill a command at one of its calls to AWS."""

SITECUSTOMIZE = """
import os, signal, sys
if len(sys.orig_argv) > 3 and sys.orig_argv[3] == os.environ.get("KILLED"):
    import botocore.httpsession as http
    state = {"left": int(os.environ["KILL_AT"])}
    send = http.URLLib3Session.send
    def killed(self, request):
        target = str(request.headers.get("X-Amz-Target"))
        call = f"{target} {request.method} {request.url}"
        if os.environ.get("KILL_TARGET", "") not in call:
            return send(self, request)
        state["left"] -= 1
        if os.environ["COUNT"]:
            with open(os.environ["COUNT"], "a") as file:
                file.write(request.method + " " + request.url + chr(10))
        if state["left"] == 0 and os.environ["KILL_WHEN"] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        response = send(self, request)
        if state["left"] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return response
    http.URLLib3Session.send = killed
"""
"""The content of a sitecustomize.py that kills the command KILLED at its call number KILL_AT.

KILL_WHEN says whether `before` the call is sent, or after its response. COUNT is a file to which
the calls are appended. With KILL_TARGET, only calls count whose `X-AMZ-TARGET METHOD URL` has it.
"""

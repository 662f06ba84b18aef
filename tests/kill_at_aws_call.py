"""A command that is killed at one of its calls to AWS."""

SITECUSTOMIZE = """
import os, signal, sys
if len(sys.orig_argv) > 3 and sys.orig_argv[3] == os.environ.get("KILLED"):
    import botocore.httpsession as http
    state = {"left": int(os.environ["KILL_AT"])}
    send = http.URLLib3Session.send
    def killed(self, request):
        target = str(request.headers.get("X-Amz-Target"))
        said = f"{target} {request.method} {request.url}"
        if os.environ.get("KILL_TARGET", "") not in said:
            return send(self, request)
        state["left"] -= 1
        if os.environ["COUNT"]:
            with open(os.environ["COUNT"], "a") as file:
                file.write(request.method + " " + request.url + chr(10))
        if state["left"] == 0 and os.environ["KILL_WHEN"] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = send(self, request)
        if state["left"] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    http.URLLib3Session.send = killed
"""
"""A sitecustomize.py: the command KILLED is killed at its call KILL_AT, `before` it or after it, as
KILL_WHEN says. COUNT is a file for its calls. With KILL_TARGET only those calls count whose
`X-AMZ-TARGET METHOD URL` has it."""

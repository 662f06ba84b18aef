"""`python tests/matrix.py [VERSION...]`: the wheel in a clean environment of each supported Python.

For each version that has an interpreter here: build the wheel once, install it with its base
dependencies alone, run the installed command on a starter job, then the tests that need nothing
more. Versions without an interpreter are listed, and not a failure, except the one that runs this.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / ".venv-matrix"
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
TESTS = ("catalogue", "cli/test_progress.py", "data", "spec", "storage")
"""Below tests/unit. A test that needs torch or an extra is skipped there."""
TOOLS = ("hypothesis", "pytest")


def find_interpreter(version: str) -> str | None:
    """Return a Python of this version: this one, one on PATH, or one of pyenv; None without."""
    if version == ".".join(map(str, sys.version_info[:2])):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for candidate in filter(None, candidates):
        command = [str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return str(candidate)
    return None


def build_wheel(folder: Path) -> Path:
    """Build the wheel into `folder` by the build backend of pyproject.toml and return its path."""
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], REPOSITORY)
    return next(folder.glob("*.whl"))


def run(command: list[str | Path], cwd: Path, **environ: str) -> str:
    """Run a command and return what it printed; raise SystemExit with its output when it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDFT_")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=clean | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        words = " ".join(map(str, command))
        raise SystemExit(f"{words} ended with {done.returncode}\n{done.stdout}")
    return done.stdout


def check_version(version: str, interpreter: str, wheel: Path) -> str:
    """Install the wheel, use the command, run the tests; return the tests' last line."""
    environment = FOLDER / version
    shutil.rmtree(environment, ignore_errors=True)
    run([interpreter, "-m", "venv", environment], REPOSITORY)
    programs = environment / "bin"
    pins = ["-c", REPOSITORY / "constraints.txt"]
    pip = [programs / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, *os.environ.get("PIP_FLAGS", "").split(), *pins, wheel, *TOOLS], environment)
    with tempfile.TemporaryDirectory() as folder:
        # Outside the checkout: what is imported is what the wheel brought.
        here, home = Path(folder), str(Path(folder, "home"))
        run([programs / "cloudft", "init", "job"], here, CLOUDFT_HOME=home)
        # Not `check`: it misses the trainer, which the base install does not have.
        for words in (["show", "--resolved"], ["data", "stats", "data/tickets.jsonl"], ["schema"]):
            run([programs / "cloudft", *words], here / "job", CLOUDFT_HOME=home)
        tests = [REPOSITORY / "tests" / "unit" / name for name in TESTS]
        config = ["-c", REPOSITORY / "pyproject.toml", "--rootdir", REPOSITORY]
        options = ["-q", "-p", "no:cacheprovider", "--tb=short", "-r", "fE"]
        said = run([programs / "pytest", *config, *options, *tests], here)
    return said.strip().splitlines()[-1]


def main(versions: list[str]) -> None:
    """Check the given versions, or all, two at a time; exit with 1 when one fails."""
    interpreters = {version: find_interpreter(version) for version in versions or VERSIONS}
    for version, interpreter in interpreters.items():
        if interpreter is None:
            print(f"{version}: skipped, no interpreter on this machine", flush=True)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        wheel = build_wheel(Path(folder))
        checks = {
            version: pool.submit(check_version, version, interpreter, wheel)
            for version, interpreter in interpreters.items()
            if interpreter is not None
        }
        failures = []
        for version, check in checks.items():
            try:
                print(f"{version}: {check.result()}", flush=True)
            except SystemExit as error:
                failures.append(f"{version}: {error}")
    if failures:
        raise SystemExit("\n".join(failures))


if __name__ == "__main__":
    main(sys.argv[1:])

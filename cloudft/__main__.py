"""Start the command line: `python -m cloudft` and the script `cloudft`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Ctrl-C during the imports exits with 130, as it does later."""
    try:
        from cloudft.cli import startup

        startup.prepare_imports()
        from cloudft.cli.main import main as run

        try:
            run()
        finally:
            startup.prepare_exit()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

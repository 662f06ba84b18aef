"""completion: print a shell's tab completion script."""

from __future__ import annotations

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, console_options


@command(
    "completion",
    epilog="\b\nExamples:\n  cloudft completion bash >> ~/.bashrc\n"
    "  cloudft completion fish > ~/.config/fish/completions/cloudft.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@console_options
def completion_command(shell: str, console: Console) -> int:
    """Print the tab completion script of a shell."""
    from click.shell_completion import get_completion_class

    from cloudft.cli.main import cloudft

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(cloudft, {}, "cloudft", "_CLOUDFT_COMPLETE").source()
    console.print_result({"shell": shell, "script": script}, script)
    return 0

"""doctor: report what is installed, and what is missing."""

from __future__ import annotations

from cloudft.cli.command import command
from cloudft.cli.options import Console, aws_options, console_options
from cloudft.storage.home import Home


@command("doctor", epilog="\b\nExample:\n  cloudft doctor --output json")
@aws_options
@console_options
def doctor_command(console: Console) -> int:
    """Report what is installed, which device is used, and what is missing, with a fix.

    Exit code 1 when something is missing without which no job can be trained on this machine.
    """
    from cloudft.cli.output import findings_text, format_table
    from cloudft.doctor import run_doctor

    report = run_doctor(Home.from_environ())
    rows = [(name, value) for name, value in report.facts.items() if value is not None]
    text = format_table(("WHAT", "FOUND"), rows)
    if report.findings:
        text += "\n\n" + findings_text(report.findings)
    console.print_result(
        {"ok": report.ok, "facts": report.facts, "findings": report.findings}, text
    )
    return 0 if report.ok else 1

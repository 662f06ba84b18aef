"""push: publish a tuned model, with its model card, on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.options import (
    Console,
    aws_options,
    console_options,
    job_argument,
    yes_option,
)
from cloudft.errors import UsageError
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.publishing.facts import ModelFacts
    from cloudft.publishing.hub_repository import HubRepository, RepositoryState
    from cloudft.publishing.push import PreparedModel
    from cloudft.storage.store import JobRecord

SCRATCH_PREFIX = ".push-"


@command(
    "push",
    epilog="\b\nExamples:\n  cloudft push ticket-router my-org/ticket-router --dry-run\n"
    "  cloudft push ticket-router my-org/ticket-router\n"
    "  cloudft push ticket-router my-org/ticket-router-gguf --from exported --public",
)
@job_argument
@click.argument("hub_id", metavar="HUB_ID")
@click.option(
    "--format",
    "format",
    type=click.Choice(["merged", "adapter", "gguf"]),
    default="merged",
    show_default=True,
    help="What is exported and pushed.",
)
@click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Push this exported folder instead.",
)
@click.option("--public", is_flag=True, help="Everybody may read the repository; default: private.")
@click.option("--revision", default="main", show_default=True, help="Branch to push to.")
@click.option(
    "--base-model", metavar="ORG/NAME", help="The base model's id on the Hub, if it is not known."
)
@click.option(
    "--overwrite", is_flag=True, help="Push into a repository with files of somebody else."
)
@click.option("--dry-run", is_flag=True, help="Print the files and the model card; push nothing.")
@yes_option
@aws_options
@console_options
def push_command(
    reference: str,
    hub_id: str,
    format: str,
    folder: Path | None,
    public: bool,
    revision: str,
    base_model: str | None,
    overwrite: bool,
    dry_run: bool,
    yes: bool,
    console: Console,
) -> int:
    """Push the tuned model to HUB_ID (ORG/NAME) on the Hugging Face Hub, with its model card.

    One commit has it all, or nothing: after a broken upload the same command continues, and what is
    there already is not pushed again. No record, path or secret is pushed: the card has the
    digests of the data, the settings, and the scores with their intervals. The token is that of
    `hf auth login` or HF_TOKEN.
    """
    from cloudft.jobs import lifecycle
    from cloudft.publishing.facts import collect_facts
    from cloudft.publishing.hub_repository import HubRepository, require_hub_id
    from cloudft.publishing.push import check_target, with_license

    require_hub_id(hub_id)
    record, backend, _ = open_job(reference)
    facts = collect_facts(lifecycle.refresh(record, backend), base_model)
    exporting = Export(record, backend, format, folder, console)
    with _scratch() as scratch:
        if dry_run:
            return _print_plan(hub_id, exporting.prepare(facts, hub_id, scratch), public, console)
        hub = HubRepository(hub_id, revision)
        console.debug(f"pushing as {hub.log_in()}")
        state = hub.read_state(scratch)
        # Before the export, which may take long.
        check_target(state, hub.hub_id, public=public, overwrite=overwrite)
        if facts.base.hub_id is not None and facts.base.license is None:
            facts = with_license(facts, hub.read_license(facts.base.hub_id))
        if public and not yes:
            _confirm_public(hub.hub_id, facts)
        model = exporting.prepare(facts, hub.hub_id, scratch)
        return _push(hub, state, model, facts, console, public=public)


@dataclass(frozen=True)
class Export:
    """The export that is pushed: the folder that is named, or one that is written for it."""

    record: JobRecord
    backend: Backend
    format: str
    folder: Path | None
    console: Console

    def prepare(self, facts: ModelFacts, hub_id: str, scratch: Path) -> PreparedModel:
        """Return all that is pushed. Raise UsageError for what must not be published."""
        from cloudft.publishing.model_files import private_texts
        from cloudft.publishing.push import prepare_model

        folder = self.folder or self._export(facts, scratch / "model")
        home = Home.from_environ()
        base = str(self.record.base_model)
        private = private_texts(home.path, home.path.resolve(), base, Path.cwd(), *self._data())
        return prepare_model(facts, folder, hub_id, private, scratch)

    def _export(self, facts: ModelFacts, out: Path) -> Path:
        from cloudft.backends.capabilities import SupportsExport
        from cloudft.backends.export_options import choose_export
        from cloudft.publishing.model_card import ADAPTER
        from cloudft.publishing.push import check_adapter_base

        if not isinstance(self.backend, SupportsExport):
            raise UsageError(
                f"a job on {self.record.backend} has no weights to push",
                fix="name the job whose weights are yours: one on local or sagemaker.",
            )
        if self.format == ADAPTER:
            check_adapter_base(facts)
        self.console.note(f"exporting {self.record.id} and comparing it with the tuned model ...")
        job_id = self.record.backend_job_id or self.record.id
        base = facts.base.hub_id if self.format == ADAPTER else None
        self.backend.export(job_id, out, choose_export(None, self.format, base=base))
        return out

    def _data(self) -> Iterator[str]:
        """Yield the folders of the job's data."""
        for value in (self.record.spec.get("data") or {}).values():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, str) and one.startswith("/"):
                    yield str(Path(one).parent)


def _scratch() -> AbstractContextManager[Path]:
    from cloudft.storage.atomic_files import scratch_folder

    return scratch_folder(Home.from_environ().path, SCRATCH_PREFIX)


def _print_plan(hub_id: str, model: PreparedModel, public: bool, console: Console) -> int:
    """Print the files, their sizes and the card."""
    from cloudft.cli.output import format_table

    files = [{"name": file.name, "bytes": file.size, "sha256": file.sha256} for file in model.files]
    rows = [(file.name, f"{file.size:,}", file.sha256[:12]) for file in model.files]
    visibility = "public" if public else "private"
    text = "\n\n".join(
        [
            f"would push {len(files)} files, {model.size:,} bytes, to {hub_id} ({visibility},"
            f" {model.format})",
            format_table(("FILE", "BYTES", "SHA256"), rows),
            model.card.rstrip(),
        ]
    )
    value = {"hubId": hub_id, "private": not public, "format": model.format, "files": files}
    console.print_result({**value, "card": model.card, "pushed": False}, text)
    return 0


def _confirm_public(hub_id: str, facts: ModelFacts) -> None:
    """Confirm that everybody may read the model. Raise click.Abort."""
    if facts.base.license is None:
        base = facts.base.hub_id or facts.base.title
        click.echo(f"warning: the license of the base model {base} is not known", err=True)
    click.confirm(f"make {hub_id} public?", abort=True, err=True)


def _push(
    hub: HubRepository,
    state: RepositoryState,
    model: PreparedModel,
    facts: ModelFacts,
    console: Console,
    *,
    public: bool,
) -> int:
    """Push what the repository has not; print the commit's address."""
    value = {"hubId": hub.hub_id, "private": not public, "format": model.format}
    if state.has(model.files):
        text = f"{hub.hub_id} has this model already ({state.head})"
        console.print_result({**value, "commit": state.head, "pushed": False}, text)
        return 0
    before = (state.manifest or {}).get("job")
    if before not in (None, facts.job_id):
        console.note(f"{hub.hub_id} has the model of {before}: it is replaced, and stays in git")
    console.note(f"pushing {len(model.files)} files, {model.size:,} bytes, to {hub.hub_id} ...")
    url = hub.push(state, model.files, f"cloudft: {facts.job_id}", private=not public)
    console.print_result(
        {**value, "commit": url.rpartition("/")[2], "url": url, "pushed": True}, url
    )
    return 0

"""The command `headrace` of the local stack."""

import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from headrace_local import stack
from headrace_local.credentials import ensure_credentials
from headrace_local.errors import LocalStackError, StackNotRunningError
from headrace_local.health import Health
from headrace_local.home import HOME_VARIABLE, find_home
from headrace_local.tokens import ROLES, TENANT, mint

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Runs Headrace on this machine.",
)
console = Console()
errors = Console(stderr=True)

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", help=f"Folder of the stack; else {HOME_VARIABLE}, else .headrace.", show_default=False
    ),
]


@app.command()
def up(home: HomeOption = None) -> None:
    """Start the stack, or what of it does not run, and wait until all of it is ready."""
    place = find_home(home)
    started = time.monotonic()
    with console.status("starting"):
        running = stack.up(place, report=lambda name: console.print(f"  [green]✓[/] {name}"))
    console.print(f"Headrace is up after {time.monotonic() - started:.1f} s.")
    summary = {
        "API": f"{running.url}/api/v1",
        "Docs": f"{running.url}/docs",
        "Token": f"{place.token_file('admin')} (also editor, viewer)",
        "Tables": f"{place.warehouse_file} (a PostgreSQL database for yours)",
        "Files": f"{place.work} (pipelines may use them)",
        "Logs": str(place.logs),
    }
    for title, text in summary.items():
        console.print(f"  {title:6} {text}", highlight=False, soft_wrap=True)


@app.command()
def down(home: HomeOption = None) -> None:
    """Stop the stack. Its data stay."""
    ran = stack.down(find_home(home))
    console.print("Headrace is down." if ran else "Headrace was not running.")


@app.command()
def status(home: HomeOption = None) -> None:
    """Show each process; exit with 1 where one is not ready."""
    found = stack.status_of(find_home(home))
    table = Table("process", "state", "health", "pid", "up for")
    for entry in found:
        colour = "green" if entry.health is Health.READY else "red"
        since = timedelta(seconds=int(time.time() - entry.since)) if entry.pid and entry.since else ""
        table.add_row(
            entry.name,
            entry.state.lower(),
            f"[{colour}]{entry.health.value}[/]",
            str(entry.pid or ""),
            str(since),
        )
    console.print(table)
    if any(entry.health is not Health.READY for entry in found):
        raise typer.Exit(1)


@app.command()
def token(
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}.")] = "admin",
    tenant: Annotated[str, typer.Option(help="UUID of the tenant.")] = str(TENANT),
    workspace: Annotated[
        list[str] | None, typer.Option(help="UUID of a workspace; may be repeated. Left out: all.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Who it stands for; local-<role> if left out.")] = None,
    ttl: Annotated[int, typer.Option(min=1, help="Seconds for which it is valid.")] = 3600,
    home: HomeOption = None,
) -> None:
    """Print a token for the stack."""
    place = find_home(home)
    if not place.exists():
        raise StackNotRunningError(f"no stack in {place.root}: start one by `headrace up`")
    if role not in ROLES:
        raise typer.BadParameter(f"{role!r} is not one of {', '.join(ROLES)}", param_hint="--role")
    minted = mint(
        ensure_credentials(place),
        role=role,
        tenant=_uuid(tenant, "--tenant"),
        workspaces=[w if w == "*" else str(_uuid(w, "--workspace")) for w in workspace or ["*"]],
        subject=subject,
        lifetime=timedelta(seconds=ttl),
    )
    typer.echo(minted)


@app.command()
def demo(
    home: HomeOption = None,
    scheduled: Annotated[
        bool, typer.Option(help="Also wait, up to a minute, for a schedule to start a run by itself.")
    ] = True,
) -> None:
    """Run the flights demo, starting the stack where it is not up; exit with 0 only if the rows are right."""
    from headrace_local.demo.flights import run_demo

    place = find_home(home)
    running = stack.attach(place)
    if running is None:
        with console.status("starting the stack"):
            running = stack.up(place)
    run_demo(running, console, scheduled=scheduled)


def _uuid(text: str, option: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a UUID", param_hint=option) from None


def main() -> None:
    """Entry point: problems are told in a sentence, without a traceback."""
    try:
        app()
    except LocalStackError as error:
        errors.print(f"headrace: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from None

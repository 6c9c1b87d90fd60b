"""`reelworks up`: runs all services on this machine until Ctrl-C."""

import asyncio
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from services.cli.certs import tls_settings
from services.cli.migrations import migrate
from services.cli.options import VarOption, fail
from services.cli.output import print_error, print_line
from services.cli.stack import (
    DATABASE_SERVICES,
    Ports,
    PortTaken,
    Stack,
    choose_ports,
    make_folder,
    make_keys,
)
from services.cli.supervisor import ProcessFailed, Supervisor
from services.cli.up_file import AlreadyUp, UpFile, lock_folder, remove_up_file, write_up_file

__all__ = ["up"]

COLORS = {"credits": 32, "generation": 36, "webhook": 35, "simulator": 33, "web": 34}
"""ANSI colour of each process's prefix."""
OWN_NAME = "reelworks"
SIMULATOR_PORTS = ("simulator", "delivery", "control")
"""Those that one option chooses."""
NAME_WIDTH = max(map(len, COLORS))
WRONG_USE = 2
EXAMPLE = '"a red fox running through fresh snow, cinematic" --model t2v-14B --resolution 480p'

_WebPort = Annotated[
    int, typer.Option(envvar="REELWORKS_WEB_PORT", min=0, max=65535, help="The studio's page.")
]
_CreditsPort = Annotated[int, typer.Option(envvar="REELWORKS_CREDITS_PORT", min=0, max=65535)]
_GenerationPort = Annotated[int, typer.Option(envvar="REELWORKS_GENERATION_PORT", min=0, max=65535)]
_WebhookPort = Annotated[
    int,
    typer.Option(envvar="REELWORKS_WEBHOOK_PORT", min=0, max=65535, help="Takes webhooks."),
]
_WebhookGrpcPort = Annotated[
    int,
    typer.Option(
        envvar="REELWORKS_WEBHOOK_GRPC_PORT",
        min=0,
        max=65535,
        help="Answers `reelworks webhooks`.",
    ),
]
_WebhookMetricsPort = Annotated[
    int,
    typer.Option(
        envvar="REELWORKS_WEBHOOK_METRICS_PORT", min=0, max=65535, help="Answers Prometheus."
    ),
]
_SimulatorPort = Annotated[
    int,
    typer.Option(
        envvar="REELWORKS_SIMULATOR_PORT",
        min=0,
        max=65533,
        help="Its API; its file host and its control listener take the two ports after it.",
    ),
]


def up(
    speed: Annotated[
        float, typer.Option(min=0.01, max=1000, help="How many times faster than Replicate.")
    ] = 10,
    var: VarOption = Path("var"),
    web_port: _WebPort = 8080,
    credits_port: _CreditsPort = 50051,
    generation_port: _GenerationPort = 50052,
    webhook_port: _WebhookPort = 8081,
    webhook_grpc_port: _WebhookGrpcPort = 50053,
    webhook_metrics_port: _WebhookMetricsPort = 9464,
    simulator_port: _SimulatorPort = 8090,
    certs: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder of `reelworks certs`: the services show certificates to each other.",
        ),
    ] = None,
) -> None:
    """Start all services on this machine and run them until Ctrl-C.

    Databases, keys and videos lie in the folder --var. A port of 0 takes any free one. With
    REPLICATE_API_TOKEN in the environment the real Replicate makes the videos, else a simulator
    does; for the real one's webhooks, REELWORKS_WEBHOOK_PUBLIC_URL is the https address at which it
    reaches the webhook service, and without it the services poll.
    REELWORKS_{CREDITS,GENERATION,WEBHOOK}_DATABASE_URL put a database elsewhere.

    Exit codes: 0 after Ctrl-C; 1 if a service cannot be kept running, or after a second Ctrl-C;
    2 if nothing was started since a port is taken or the folder is in use.
    """
    first = simulator_port
    simulator, delivery, control = (first, first + 1, first + 2) if first else (0, 0, 0)
    wanted = Ports(
        credits_port,
        generation_port,
        webhook_port,
        simulator,
        delivery,
        control,
        webhook_grpc_port,
        webhook_metrics_port,
        web_port,
    )
    stack = Stack(var.absolute(), wanted, speed, dict(os.environ), certs)
    try:
        stack = replace(stack, ports=choose_ports(wanted, stack.needed_ports))
        make_folder(stack.var)
        with lock_folder(stack.var):
            remove_up_file(stack.var)  # Left by one that was killed.
            make_keys(stack.var)
            asyncio.run(_run_until_signal(stack))
    except PortTaken as error:
        option = "simulator" if error.name in SIMULATOR_PORTS else error.name.replace("_", "-")
        print_error(f"{error}; stop that one, or choose another with --{option}-port")
        raise typer.Exit(WRONG_USE) from None
    except AlreadyUp as error:
        print_error(f"{error}; stop that one, or choose another folder with --var")
        raise typer.Exit(WRONG_USE) from None
    except OSError as error:
        print_error(f"{stack.var} cannot be used: {error.strerror}")
        raise typer.Exit(WRONG_USE) from None
    except ProcessFailed as error:
        fail(str(error))


async def _run_until_signal(stack: Stack) -> None:
    """Runs the stack; the first signal stops it in order, the second kills it."""
    is_up = asyncio.Event()
    supervisor = Supervisor(_report, lambda ids: _publish(stack, ids) if is_up.is_set() else None)
    running = asyncio.create_task(_run(stack, supervisor, is_up))
    loop = asyncio.get_running_loop()
    signals_seen = 0

    def leave() -> None:
        nonlocal signals_seen
        signals_seen += 1
        if signals_seen == 1:
            is_up.clear()
            running.cancel()
            _report(OWN_NAME, "stopping; press Ctrl-C again to kill")
        else:
            supervisor.kill()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, leave)
    try:
        await running
    except asyncio.CancelledError:
        if not signals_seen:
            raise
        if signals_seen > 1:
            raise ProcessFailed("killed before all had left") from None
        _report(OWN_NAME, "stopped")
    finally:
        remove_up_file(stack.var)


async def _run(stack: Stack, supervisor: Supervisor, is_up: asyncio.Event) -> NoReturn:
    for migration in await migrate(stack, DATABASE_SERVICES):
        if not migration.succeeded:
            for line in migration.log.splitlines():
                _report(migration.service, line)
            raise ProcessFailed(
                f"the database of {migration.service} cannot be migrated; the lines above say why"
            )
    async with supervisor.running(stack.stages()):
        is_up.set()
        _publish(stack, supervisor.process_ids)
        _greet(stack)
        await asyncio.Event().wait()
    raise AssertionError("it is left by an exception only")


def _publish(stack: Stack, process_ids: Mapping[str, int]) -> None:
    write_up_file(stack.var, UpFile(os.getpid(), stack.addresses, process_ids))


def _report(name: str, line: str) -> None:
    """Prints a line of a process under its name."""
    prefix = f"{name:<{NAME_WIDTH}} | "
    if sys.stdout.isatty():
        prefix = f"\x1b[{COLORS.get(name, 37)}m{prefix}\x1b[0m"
    # Whoever read this may be gone, a pager for one; that is no reason to stop the services.
    with contextlib.suppress(OSError):
        sys.stdout.write(f"{prefix}{line}\n")
        sys.stdout.flush()


def _greet(stack: Stack) -> None:
    """Says where everything is and what to try."""
    addresses = stack.addresses
    program = Path(sys.argv[0])
    with contextlib.suppress(ValueError):
        program = program.relative_to(Path.cwd())
    command = f"{shlex.quote(str(program))} generate {EXAMPLE}"
    if stack.var != Path("var").absolute() and "REELWORKS_VAR" not in os.environ:
        command += f" --var {shlex.quote(str(stack.var))}"
    replicate = (
        f"{addresses['simulator']} (a simulator, {stack.speed:g} times as fast)"
        if stack.simulated
        else "the real one, paid with your REPLICATE_API_TOKEN"
    )
    print_line()
    print_line("Reelworks is up. Ctrl-C stops it.", style="bold green")
    print_line()
    for name, value in (
        ("studio", addresses["web"]),
        ("credits", f"{addresses['credits']} (gRPC)"),
        ("generation", f"{addresses['generation']} (gRPC)"),
        ("webhook", f"{addresses['webhook']} (HTTP), {addresses['webhook_grpc']} (gRPC)"),
        ("Replicate", replicate),
        ("data", str(stack.var)),
    ):
        print_line(f"  {name:<{NAME_WIDTH}}  {value}")
    print_line()
    print_line("Make a video, in another terminal:")
    print_line()
    if stack.certificates is not None:
        for name, value in tls_settings(stack.certificates, "operator").items():
            print_line(f"  export {name}={shlex.quote(value)}", style="bold")
    print_line(f"  {command}", style="bold")
    print_line()

"""Brings databases to their newest schema: one process a service, since each has its own code."""

import asyncio
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Sequence
from dataclasses import dataclass

from services.cli.stack import Stack, make_folder, module_command

__all__ = ["Migration", "migrate"]

MIGRATION_S_MAX = 600.0


@dataclass(frozen=True, slots=True)
class Migration:
    """What came of the migration of one service's database."""

    service: str
    """Whose database."""
    succeeded: bool
    """Whether the database has the newest schema now, or one of a newer release."""
    log: str
    """What the process wrote."""


async def migrate(stack: Stack, services: Sequence[str]) -> list[Migration]:
    """Migrates the databases of `services`, all at the same time; a second run changes nothing."""
    make_folder(stack.var)
    return await asyncio.gather(*(_migrate_one(stack, service) for service in services))


async def _migrate_one(stack: Stack, service: str) -> Migration:
    process = await asyncio.create_subprocess_exec(
        *module_command(f"services.{service}", "migrate"),
        env=stack.settings(service),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        async with asyncio.timeout(MIGRATION_S_MAX):
            output, _ = await process.communicate()
    except BaseException:
        # Out of time or interrupted. Its database transaction ends with it: all or nothing.
        process.kill()
        await process.wait()
        raise
    return Migration(service, process.returncode == 0, output.decode(errors="replace").strip())

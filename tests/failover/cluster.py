"""Three nodes of PostgreSQL under Patroni, three members of etcd, and HAProxy before them, all on
loopback, with the configuration of `deploy/patroni`."""

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import httpx

from tests.failover.node import Node, spawn
from tests.failover.programs import Programs
from tests.postgresql import NOBODY, PostgresqlServer, installed_postgresql
from tests.serving import free_address

TEMPLATES = Path(__file__).parents[2] / "deploy" / "patroni"
NODES = 3
READY_S_MAX = 120.0
LOOK_S = 0.25
ASK_S_MAX = 10.0
"""A switchover is answered when it is done."""


class NotInTime(Exception):
    """The cluster did not come to a state that it had to come to."""


@dataclass
class Cluster:
    """A cluster that runs."""

    folder: Path
    nodes: Sequence[Node]
    server: PostgresqlServer
    """Its primary, as HAProxy leads to it."""
    api_password: str
    helpers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    async def primary(self) -> Node:
        """Returns the node that takes writes, as soon as there is one."""
        found: list[Node] = []

        async def look() -> bool:
            roles = await asyncio.gather(*(node.role() for node in self.nodes))
            found[:] = [n for n, role in zip(self.nodes, roles, strict=True) if role == "primary"]
            return len(found) == 1

        await self._until(look, "one primary")
        return found[0]

    async def whole(self) -> None:
        """Waits until every node is there, and standbys follow closely enough to take over."""

        async def look() -> bool:
            members = await self._members()
            standbys = [one for one in members if one["role"] == "quorum_standby"]
            streaming = [one for one in standbys if one["state"] == "streaming"]
            has_primary = any(one["role"] == "leader" for one in members)
            return has_primary and len(members) == NODES and len(streaming) == NODES - 1

        await self._until(look, "a primary and two standbys that are confirmed")

    async def switch_over(self) -> None:
        """Has the primary hand over to a standby, as before maintenance."""
        primary = await self.primary()
        async with httpx.AsyncClient(timeout=60.0) as client:
            answer = await client.post(
                f"http://{primary.api_address}/switchover",
                json={"leader": primary.name},
                auth=("patroni", self.api_password),
            )
        if answer.status_code != httpx.codes.OK:
            raise NotInTime(f"the switchover was answered with {answer.status_code} {answer.text}")

    async def acknowledge_alone(self) -> None:
        """Has the primary acknowledge what no standby has, as nobody should."""
        primary = await self.primary()
        async with httpx.AsyncClient(timeout=ASK_S_MAX) as client:
            await client.patch(
                f"http://{primary.api_address}/config",
                json={"synchronous_mode": False, "synchronous_mode_strict": False},
                auth=("patroni", self.api_password),
            )

        async def look() -> bool:
            return await asyncio.to_thread(self._waits_for) == ""

        await self._until(look, "a primary that waits for nobody")

    def _waits_for(self) -> str:
        return self.server.execute("SHOW synchronous_standby_names")

    async def situation(self) -> list[dict[str, Any]]:
        """Returns what the cluster says of its members."""
        return [
            {name: one.get(name) for name in ("name", "role", "state", "timeline", "lag")}
            for one in await self._members()
        ]

    async def _members(self) -> list[dict[str, Any]]:
        for node in self.nodes:
            with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
                async with httpx.AsyncClient(timeout=ASK_S_MAX) as client:
                    answer = await client.get(f"http://{node.api_address}/cluster")
                    members: list[dict[str, Any]] = answer.json()["members"]
                    return members
        return []

    async def _until(self, look: Callable[[], Awaitable[bool]], what: str) -> None:
        ends_at = time.monotonic() + READY_S_MAX
        while not await look():
            if time.monotonic() > ends_at:
                raise NotInTime(f"there is not {what}: {await self.situation()}")
            await asyncio.sleep(LOOK_S)

    def stop(self) -> None:
        """Ends everything."""
        for node in self.nodes:
            node.thaw()
            node.kill()
        for helper in self.helpers:
            helper.kill()
            helper.wait()


@contextlib.asynccontextmanager
async def running_cluster(programs: Programs) -> AsyncIterator[Cluster]:
    """Starts a cluster, waits until it is whole, and ends it with the block."""
    with installed_postgresql() as (binaries, folder):
        packages = folder.parent / "patroni"
        shutil.copytree(programs.patroni, packages)
        cluster = _prepared(programs, binaries, packages, folder)
        try:
            for node in cluster.nodes:
                node.start()
            await cluster.whole()
            yield cluster
        finally:
            cluster.stop()


def _prepared(programs: Programs, binaries: Path, packages: Path, folder: Path) -> Cluster:
    """Writes all configuration and starts what serves the nodes."""
    usual = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
    passwords = {
        f"{name}_password": secrets.token_hex(12)
        for name in ("api", "superuser", "replicator", "rewinder")
    }
    places = [_place(number, folder) for number in range(NODES)]
    shared = passwords | {
        "etcd_members": ",".join(f"{one['node']}={one['etcd_peer_url']}" for one in places),
        "etcd_addresses": ",".join(one["etcd_client_url"].rpartition("/")[2] for one in places),
        "postgresql_programs": str(binaries),
        "shared_buffers": "64MB",
        "network": "127.0.0.1/32",
        "hba": "host",
        "ssl": "off",
        "certificate_file": "none",
        "key_file": "none",
        "watchdog": "off",
    }
    helpers, nodes = [], []
    for place in places:
        own = Path(place["folder"])
        own.mkdir()
        _own(own)
        etcd, patroni = (
            _written(own, name, shared | place) for name in ("etcd.yaml", "patroni.yaml")
        )
        log = own / "etcd.log"
        helpers.append(spawn([programs.etcd, "--config-file", etcd], own, log, usual))
        environment = usual | {"PYTHONPATH": str(packages)}
        command: list[str | Path] = [programs.python, "-m", "patroni", patroni]
        nodes.append(
            Node(
                place["node"], own, place["api_address"], place["postgresql_address"], command,
                environment,
            )
        )  # fmt: skip
    primary, standbys = free_address(), free_address()
    proxy = _written(
        folder,
        "haproxy.cfg",
        {
            "primary_address": primary,
            "standbys_address": standbys,
            "servers": "\n".join(
                f"    server {node.name} {node.postgresql_address} "
                f"port {node.api_address.rpartition(':')[2]}"
                for node in nodes
            ),
        },
    )
    command = [programs.haproxy, "-db", "-f", proxy]
    helpers.append(spawn(command, folder, folder / "haproxy.log", usual))
    os.environ["PGPASSWORD"] = passwords["superuser_password"]  # For whoever connects.
    server = PostgresqlServer(binaries, folder / "none", int(primary.rpartition(":")[2]), "")
    return Cluster(folder, nodes, server, passwords["api_password"], helpers)


def _place(number: int, folder: Path) -> dict[str, str]:
    """Returns what is a node's own."""
    own = folder / f"node{number}"
    return {
        "node": f"node{number}",
        "folder": str(own),
        "etcd_folder": str(own / "etcd"),
        "etcd_client_url": f"http://{free_address()}",
        "etcd_peer_url": f"http://{free_address()}",
        "api_address": free_address(),
        "postgresql_address": free_address(),
        "postgresql_folder": str(own / "data"),
        "pgpass_file": str(own / "pgpass"),
        "socket_folder": str(own),
    }


def _written(folder: Path, name: str, values: Mapping[str, str]) -> Path:
    path = folder / name
    path.write_text(Template((TEMPLATES / name).read_text()).substitute(values))
    return path


def _own(folder: Path) -> None:
    if os.getuid() == 0:
        os.chown(folder, NOBODY, NOBODY)

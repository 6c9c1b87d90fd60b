"""Options of the simulator and how the command line gives them."""

import argparse
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import ValidationError

from services.runtime.telemetry import LogFormat
from services.simulator.complaints import sentences
from services.simulator.faults.profiles import Profile
from services.simulator.switches import Switches

__all__ = ["LOOPBACK_HOSTS", "SimulatorSettings", "VideoMode", "read_settings"]

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
SPEED_MAX = 1000.0

VideoMode = Literal["full", "stamp"]


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """What a simulator is told when it starts."""

    host: str = "127.0.0.1"
    """Address that all three listeners are bound to."""
    public_host: str | None = None
    """Name under which others reach it; None: that address. Links to itself carry it."""
    api_port: int = 8090
    """Port of the API; 0 takes any free one, here and for the other two."""
    delivery_port: int = 8091
    """Port of the file host."""
    control_port: int = 8092
    """Port of the control listener, which the product must never see."""
    seed: int = 1
    """Seed of everything that is drawn: ids, durations, jitter, webhook secrets."""
    speed: float = 10.0
    """Divides boot and run times, log intervals, the time limit and the pauses between webhook
    attempts; 0.01 to 1000. It leaves timestamps, `Cancel-After`, retention and network timeouts
    alone."""
    tokens: tuple[str, ...] = ("r8_simulator",)
    """API tokens; each is an account of its own."""
    retention_s: float = 3600.0
    """Seconds from the end of a prediction until its input, output, logs and file are removed."""
    data: Path | None = None
    """Folder in which predictions and files survive a restart; None keeps nothing."""
    allowed_hosts: frozenset[str] = LOOPBACK_HOSTS
    """Hosts to which webhooks may go and from which images may be fetched."""
    video: VideoMode = "full"
    """`full` draws each video, `stamp` copies one drawing per size and marks the copy."""
    switches: Switches = field(default_factory=Switches)
    """How it behaves where Replicate's behavior is not known; can be changed while it runs."""
    profile: Profile = Profile.CALM
    """Which weather of faults it begins with."""
    log_format: LogFormat = "console"
    """How the log on standard error looks."""


def read_settings(arguments: Sequence[str]) -> SimulatorSettings:
    """Returns the settings that `arguments` give; a wrong one ends the process with code 2."""
    given = _parser().parse_args(arguments)
    return SimulatorSettings(
        host=given.host,
        public_host=given.public_host,
        api_port=given.api_port,
        delivery_port=given.delivery_port,
        control_port=given.control_port,
        seed=given.seed,
        speed=given.speed,
        tokens=tuple(dict.fromkeys(given.token or SimulatorSettings().tokens)),
        retention_s=given.retention_s,
        data=given.data,
        allowed_hosts=LOOPBACK_HOSTS | {host.lower() for host in given.allow_host},
        video=cast("VideoMode", given.video),
        switches=_switches(given.switch),
        profile=given.profile,
        log_format=cast("LogFormat", given.log_format),
    )


def _parser() -> argparse.ArgumentParser:
    default = SimulatorSettings()
    parser = argparse.ArgumentParser(
        prog="python -m services.simulator",
        description="Plays Replicate's API, webhooks and file host on this machine.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default=default.host, help="address to listen on")
    parser.add_argument("--public-host", help="name under which others reach it, if not that")
    for name in ("api", "delivery", "control"):
        parser.add_argument(
            f"--{name}-port",
            type=_port,
            default=getattr(default, f"{name}_port"),
            help=f"port of the {name} listener, 0 for any free one",
        )
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of all draws")
    parser.add_argument(
        "--speed", type=_speed, default=default.speed, help="how much faster than Replicate it runs"
    )
    parser.add_argument(
        "--token", action="append", help="an API token, repeatable (default: r8_simulator)"
    )
    parser.add_argument(
        "--retention-s",
        type=_positive,
        default=default.retention_s,
        help="seconds after which the data of a finished prediction is removed",
    )
    parser.add_argument("--data", type=Path, help="folder that survives a restart")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        help="a host, besides loopback, for webhooks and input images; repeatable",
    )
    parser.add_argument(
        "--video", choices=("full", "stamp"), default=default.video, help="how videos are made"
    )
    parser.add_argument(
        "--switch",
        action="append",
        default=[],
        type=_switch,
        metavar="NAME=VALUE",
        help=f"how to behave where Replicate's behavior is not known, repeatable; one of"
        f" {', '.join(Switches.model_fields)}",
    )
    parser.add_argument(
        "--profile",
        choices=tuple(Profile),
        type=Profile,
        default=default.profile,
        help="weather of faults to begin with",
    )
    parser.add_argument(
        "--log-format", choices=("console", "json"), default=default.log_format, help="log format"
    )
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError("must be a port, 0 to 65535")
    return port


def _speed(text: str) -> float:
    speed = float(text)
    if not 0.01 <= speed <= SPEED_MAX:
        raise argparse.ArgumentTypeError("must be 0.01 to 1000")
    return speed


def _switch(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    with contextlib.suppress(ValueError):  # What is no JSON is a word.
        value = json.loads(value)
    try:
        Switches.model_validate({name: value})
    except ValidationError as error:
        raise argparse.ArgumentTypeError("; ".join(sentences(error))) from None
    return name, value


def _switches(given: Sequence[tuple[str, Any]]) -> Switches:
    return Switches.model_validate(dict(given))


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be greater than 0")
    return value

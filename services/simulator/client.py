"""Talks to the control listener of a running simulator, for tests and benchmarks."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import ClientSession, ClientTimeout

from services.simulator.faults.action import Operation
from services.simulator.faults.engine import Firing
from services.simulator.faults.fault import AnyAction, Fault, Match
from services.simulator.faults.profiles import Profile
from services.simulator.judging.case import Violation
from services.simulator.judging.terms import Terms
from services.simulator.judging.verdict import Orphan, Verdict
from services.simulator.ledger import Charge, Ledger, Total
from services.simulator.prediction import Status
from services.simulator.switches import Switches

__all__ = ["ClockReading", "ControlError", "FaultInForce", "SimulatorControl"]

TIMEOUT_S = 30.0
ANYTHING = Match()
USUAL_TERMS = Terms()


class ControlError(Exception):
    """The simulator did not take it; the text names fields and rules."""


@dataclass(frozen=True, slots=True)
class FaultInForce:
    """A fault that a simulator has, and how far it has come."""

    id: int
    fault: Fault
    seen: int
    """How often all but `nth` and `probability` matched."""
    fired: int


@dataclass(frozen=True, slots=True)
class ClockReading:
    """How wrong a simulator's clock is."""

    jumped_s: float
    """By how much it lives ahead of the machine."""
    skew_s: float
    """By how much what it shows is ahead of what it lives by."""


class SimulatorControl:
    """The control listener at one address; an asynchronous context manager.

    async with SimulatorControl(addresses.control) as simulator:
        await simulator.fault(CreateThenDrop(), Match(nth=3))
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._session = ClientSession(timeout=ClientTimeout(total=TIMEOUT_S))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def fault(
        self,
        action: AnyAction,
        match: Match = ANYTHING,
        *,
        times: int | None = 1,
        lasts_s: float | None = None,
    ) -> FaultInForce:
        """Puts a fault into force, behind those that are; `times` of None is without end.

        Raises pydantic's ValidationError, before anything is sent, for what makes no sense.
        """
        fault = Fault(match=match, action=action, times=times, lasts_s=lasts_s)
        return _in_force(await self._call("POST", "/faults", fault.model_dump(mode="json")))

    async def faults(self) -> list[FaultInForce]:
        """Returns the faults in force, in the order in which they are tried."""
        return [_in_force(one) for one in (await self._call("GET", "/faults"))["faults"]]

    async def remove(self, fault: FaultInForce) -> None:
        """Removes one fault."""
        await self._call("DELETE", f"/faults/{fault.id}")

    async def remove_all(self) -> None:
        """Removes all faults."""
        await self._call("DELETE", "/faults")

    async def profile(self, profile: Profile, lasts_s: float | None = None) -> list[FaultInForce]:
        """Puts the faults of a whole weather in place of those in force; returns them."""
        weather = {"profile": profile, "lasts_s": lasts_s}
        answer = await self._call("PUT", "/profile", weather)
        return [_in_force(one) for one in answer["faults"]]

    async def firings(self) -> list[Firing]:
        """Returns what fired, oldest first."""
        firings = (await self._call("GET", "/firings"))["firings"]
        return [Firing(**{**one, "operation": Operation(one["operation"])}) for one in firings]

    async def switches(self) -> Switches:
        """Returns how the switches stand."""
        return Switches.model_validate(await self._call("GET", "/switches"))

    async def switch(self, **values: Any) -> Switches:
        """Changes the switches that are named, as `Switches` describes them."""
        return Switches.model_validate(await self._call("PATCH", "/switches", values))

    async def predictions(self) -> list[dict[str, Any]]:
        """Returns what really is and was with all predictions."""
        found: list[dict[str, Any]] = (await self._call("GET", "/state"))["predictions"]
        return found

    async def requests(self, after: int = 0) -> list[dict[str, Any]]:
        """Returns the requests with numbers above `after` that are still known, oldest first."""
        found: list[dict[str, Any]] = []
        last = after
        while page := (await self._call("GET", f"/requests?after={last}"))["requests"]:
            found += page
            last = page[-1]["number"]
        return found

    async def ledger(self) -> Ledger:
        """Returns what each prediction costs, and the sums."""
        answer = await self._call("GET", "/ledger")
        return Ledger(
            charges=tuple(
                Charge(**{**one, "status": Status(one["status"])}) for one in answer["charges"]
            ),
            generations={key: Total(**one) for key, one in answer["generations"].items()},
            accounts={key: Total(**one) for key, one in answer["accounts"].items()},
            total=Total(**answer["total"]),
            missing=answer["missing"],
        )

    async def violations(self, terms: Terms = USUAL_TERMS) -> Verdict:
        """Returns what the truth proves against a customer who was to keep `terms`."""
        answer = await self._call("POST", "/violations", terms.model_dump(mode="json"))
        violations = tuple(
            Violation(
                rule=one["rule"],
                group=one["group"],
                proof=one["proof"],
                predictions=tuple(one["predictions"]),
                requests=tuple(one["requests"]),
            )
            for one in answer["violations"]
        )
        orphans = tuple(Orphan(**one) for one in answer["orphans"])
        return Verdict(**{**answer, "violations": violations, "orphans": orphans})

    async def clock(self) -> ClockReading:
        """Returns how wrong the clock is."""
        return ClockReading(**await self._call("GET", "/clock"))

    async def change_clock(
        self, *, skew_s: float | None = None, jumped_s: float | None = None
    ) -> ClockReading:
        """Lets the clock be so wrong; what is not given stays as it is."""
        change = {"skew_s": skew_s, "jumped_s": jumped_s}
        return ClockReading(**await self._call("PATCH", "/clock", change))

    async def reset(self) -> None:
        """Forgets predictions, files and journals; puts faults, switches and clock right."""
        await self._call("POST", "/reset")

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        address = f"{self._address}/control{path}"
        async with self._session.request(method, address, json=body) as answer:
            content = await answer.json() if answer.content_type == "application/json" else None
            if answer.status in (400, 422) and content is not None:
                raise ControlError(
                    "; ".join(f"{one['field']}: {one['rule']}" for one in content["errors"])
                )
            answer.raise_for_status()
            return content


def _in_force(answer: dict[str, Any]) -> FaultInForce:
    known = {key: answer[key] for key in Fault.model_fields}
    return FaultInForce(answer["id"], Fault.model_validate(known), answer["seen"], answer["fired"])

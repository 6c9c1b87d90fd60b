"""What can be changed while the stand-in runs: its clock, its switches, its faults."""

import asyncio
import time

from services.simulator.clock import Clock
from services.simulator.faults.engine import FaultEngine
from services.simulator.faults.profiles import Profile, profile_faults
from services.simulator.limits import Limits
from services.simulator.switches import Switchboard, Switches

__all__ = ["Conditions", "WasReset"]


class WasReset(Exception):
    """The stand-in was reset while a fault kept somebody waiting."""


class Conditions:
    """The conditions under which the stand-in works now."""

    def __init__(self, seed: int, switches: Switches, profile: Profile) -> None:
        self.clock = Clock()
        self.limits = Limits()
        self.switchboard = Switchboard(switches)
        self.faults = FaultEngine(seed, time.time)
        self._first_profile = profile
        self._reset = asyncio.Event()
        self.change_weather(self._first_profile)

    @property
    def switches(self) -> Switches:
        """The switches as they stand now."""
        return self.switchboard.now

    def change_weather(self, profile: Profile, lasts_s: float | None = None) -> None:
        """Removes all faults and puts those of `profile` in their place."""
        self.faults.remove_all()
        for fault in profile_faults(profile, lasts_s):
            self.faults.add(fault)
        low_credit = profile is Profile.LOW_CREDIT or self.switchboard.initial.low_credit
        self.switchboard.change({"low_credit": low_credit})

    def reset(self) -> None:
        """Puts everything as it was at the start, and lets nobody wait any longer."""
        self.clock.reset()
        self.limits.clear()
        self.switchboard.reset()
        self.faults.clear()
        self.change_weather(self._first_profile)
        reset, self._reset = self._reset, asyncio.Event()
        reset.set()

    async def sleep(self, seconds: float) -> None:
        """Waits so long in real time; raises WasReset if the stand-in is reset meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._reset.wait()
        except TimeoutError:
            return
        raise WasReset

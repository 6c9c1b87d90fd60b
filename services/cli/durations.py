"""Says how long something takes, or will take, as people do."""

from datetime import datetime

from services.client.generations import Eta

__all__ = ["duration", "time_left"]

# Each unit serves up to about a hundred, beyond which the next one says enough.
_UNITS = ((100, 1, "s"), (100 * 60, 60, "min"), (48 * 3600, 3600, "h"))
_DAY_S = 86_400


def duration(seconds: float) -> str:
    """Returns a length of time in its fitting unit: `42 s`, `3 min`, `5 h`, `3 d`."""
    for limit_s, unit_s, name in _UNITS:
        if seconds < limit_s:
            return f"{max(0, round(seconds / unit_s))} {name}"
    return f"{round(seconds / _DAY_S)} d"


def time_left(eta: Eta, now: datetime) -> str:
    """Returns when something will be done, seen from `now`: `in 40 s to 2 min`."""
    likely_s = (eta.likely_at - now).total_seconds()
    latest_s = (eta.latest_at - now).total_seconds()
    if latest_s <= 0:
        return "any moment"
    if likely_s <= 0:
        return f"within {duration(latest_s)}"
    likely, latest = duration(likely_s), duration(latest_s)
    return f"in about {latest}" if likely == latest else f"in {likely} to {latest}"

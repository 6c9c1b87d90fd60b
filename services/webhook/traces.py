"""Remembers in which trace an event was stored, for who delivers it from the same process."""

from collections import OrderedDict

from services.runtime.tracing import current_traceparent

__all__ = ["Traces"]

TRACES_MAX = 10_000
"""Remembered at once; a delivery that comes later, or from elsewhere, begins a trace of its own."""


class Traces:
    """The traces of events that wait to be delivered."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, str] = OrderedDict()

    def keep(self, webhook_id: str) -> None:
        """Remembers that an event belongs to the current trace, if there is one."""
        traceparent = current_traceparent()
        if traceparent is not None:
            self._kept[webhook_id] = traceparent
            if len(self._kept) > TRACES_MAX:
                self._kept.popitem(last=False)

    def take(self, webhook_id: str) -> str | None:
        """Returns the trace of an event, and forgets it; None if nobody knows."""
        return self._kept.pop(webhook_id, None)

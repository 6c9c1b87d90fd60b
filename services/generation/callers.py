"""Says which services may call the methods of generation; operators may call all of them."""

from services.runtime.identity import Callers

__all__ = ["CALLERS"]

_WEB = frozenset({"web"})
_WEBHOOK = frozenset({"webhook"})
_OPERATORS: frozenset[str] = frozenset()

_SERVICE = "/reelworks.generation.v1.GenerationService"
_EVENTS = "/reelworks.generation.v1.PredictionEventService"
CALLERS: Callers = {
    f"{_SERVICE}/ListModels": _WEB,
    f"{_SERVICE}/QuoteGeneration": _WEB,
    f"{_SERVICE}/UploadImage": _WEB,
    f"{_SERVICE}/CreateGeneration": _WEB,
    f"{_SERVICE}/GetGeneration": _WEB,
    f"{_SERVICE}/ListGenerations": _WEB,
    f"{_SERVICE}/WatchGenerations": _WEB,
    f"{_SERVICE}/CancelGeneration": _WEB,
    f"{_SERVICE}/RetryGeneration": _WEB,
    f"{_SERVICE}/DeleteGenerations": _WEB,
    f"{_SERVICE}/GetStats": _OPERATORS,
    f"{_SERVICE}/ListParked": _OPERATORS,
    f"{_SERVICE}/ResumeGeneration": _OPERATORS,
    f"{_EVENTS}/DeliverPredictionEvent": _WEBHOOK,
}
"""The roles, by method; a method without roles is for operators alone."""

"""Makes the web app of parts."""

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware

from services.web.bodies import BodyLimits
from services.web.headers import DOCS_PATH, SecurityHeaders
from services.web.hosts import Hosts
from services.web.openapi import describe
from services.web.parts import Parts
from services.web.refusals import Guard, answer_refusals
from services.web.routes import (
    creating,
    events,
    generations,
    health,
    media,
    models,
    page,
    quotes,
    sign_in,
    uploads,
)
from services.web.routes import credits as money

__all__ = ["create_app"]

ROUTERS = (
    creating.router,
    generations.router,
    quotes.router,
    models.router,
    money.router,
    uploads.router,
    events.router,
    sign_in.router,
    media.router,
    health.router,
    page.router,
)
"""In the order of the documentation."""


def create_app(parts: Parts) -> FastAPI:
    """Returns the app that answers with `parts`."""
    # It is FastAPI itself, but its page of documentation loads nothing from elsewhere.
    app = FastAPIOffline(
        docs_url=DOCS_PATH,
        redoc_url=None,
        static_url=f"{DOCS_PATH}/files",
        # Programs that are made from the description call routes what we call them.
        generate_unique_id_function=lambda route: route.name,
        middleware=_layers(parts),
        # Ours say less, and nothing that people wrote.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        # An address is one thing; the other spelling is not found.
        redirect_slashes=False,
    )
    app.state.parts = parts
    page.read_page()  # A file that cannot be served ends the start, not a request.
    answer_refusals(app)
    for router in ROUTERS:
        app.include_router(router)
    describe(app)
    return app


def _layers(parts: Parts) -> list[Middleware]:
    """Returns what is around all routes, outermost first."""
    settings = parts.settings
    return [
        Middleware(
            SecurityHeaders, media_origins=settings.media_origin_list, metrics=parts.metrics
        ),
        # Inside of the headers, so that a failure has them too.
        Middleware(Guard),
        Middleware(Hosts, settings=settings),
        Middleware(
            BodyLimits,
            bytes_max=settings.body_bytes_max,
            upload_bytes_max=settings.upload_bytes_max,
            limit_s=settings.body_limit_s,
        ),
    ]

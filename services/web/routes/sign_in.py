"""Signs people in and out, and says who they are."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from services.web.callers import SignedIn, refuse_foreign_pages, sign_in_away
from services.web.development import NAME_RULE
from services.web.headers import add_header
from services.web.identity import Identity, SignInAway, SignInRefused
from services.web.limits import CallRate, SignInRate
from services.web.openapi import problems
from services.web.parts import WiredParts
from services.web.problems import FieldProblem, Refused, invalid, problem
from services.web.resources import Moment, Resource
from services.web.sessions import Person

__all__ = ["Me", "SignInMethods", "SignInRequest", "router"]

LOW_CREDIT_WARNING = 20

router = APIRouter(prefix="/api", tags=["sign-in"])


class SignInMethods(Resource):
    """How people can sign in here."""

    methods: list[str]
    """`name`, or `password` and `access_token`."""
    environment: str
    """Name of the installation."""


class SignInRequest(BaseModel):
    """One proof of who somebody is: a name, an e-mail address and its password, or a token."""

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    name: Annotated[str | None, Field(max_length=64)] = None
    """In development: 1 to 64 characters of `a-z 0-9 _ -`."""
    email: Annotated[str | None, Field(max_length=320)] = None
    """With `password`."""
    password: Annotated[SecretStr | None, Field(max_length=1024)] = None
    """With `email`."""
    access_token: Annotated[SecretStr | None, Field(max_length=8192)] = None
    """A good token of who vouches for people here."""


class Me(Resource):
    """Who asks."""

    user_id: str
    """The id of their account."""
    name: str
    """What to call them."""
    email: str
    """Empty if unknown."""
    is_admin: bool
    """Whether they may do what operators may."""
    by_cookie: bool
    """Whether the page's session proves it, rather than a token."""
    session_expire_time: Moment | None
    """Until when the session holds if it is not used; null with a token."""
    low_credit_warning: int
    """With fewer credits than this the page warns."""


@router.get("/sign-in", responses=problems())
async def get_sign_in(parts: WiredParts) -> SignInMethods:
    """Says how people can sign in."""
    return SignInMethods(
        methods=list(parts.identity.methods), environment=parts.settings.environment
    )


@router.post(
    "/sign-in",
    dependencies=[SignInRate],
    responses=problems(400, 401, 403, 408, 413, 422, 429, 503),
)
async def sign_in(request: Request, parts: WiredParts, body: SignInRequest) -> Me:
    """Signs somebody in: the answer has the cookie of their session."""
    refuse_foreign_pages(request, parts)
    try:
        person = await _prove(parts.identity, body)
    except SignInRefused:
        raise Refused(
            problem(401, "SIGN_IN_REFUSED", "That does not prove who you are; try again.")
        ) from None
    except SignInAway:
        raise sign_in_away() from None
    now = datetime.now(UTC)
    session = parts.sessions.begin(person, now)
    add_header(request, "Set-Cookie", parts.sessions.cookie(session, now))
    return _me(person, session.expires_at)


@router.post("/sign-out", status_code=204, responses=problems(403))
async def sign_out(request: Request, parts: WiredParts) -> Response:
    """Has the browser forget its session, whether there is one or not."""
    refuse_foreign_pages(request, parts)
    add_header(request, "Set-Cookie", parts.sessions.farewell())
    return Response(status_code=204)


@router.get("/me", dependencies=[CallRate], responses=problems(401, 429, 503))
async def get_me(caller: SignedIn) -> Me:
    """Says who asks."""
    return Me(
        user_id=caller.user_id,
        name=caller.name,
        email=caller.email,
        is_admin=caller.is_admin,
        by_cookie=caller.by_cookie,
        session_expire_time=caller.expires_at if caller.by_cookie else None,
        low_credit_warning=LOW_CREDIT_WARNING,
    )


async def _prove(identity: Identity, body: SignInRequest) -> Person:
    """Returns who somebody proves to be; raises Refused for what is malformed."""
    methods = identity.methods
    given = sorted(body.model_fields_set)
    match given:
        case ["name"] if body.name is not None and "name" in methods:
            person = identity.by_name(body.name)
            if person is None:
                raise Refused(invalid(FieldProblem("/name", NAME_RULE)))
            return person
        case ["email", "password"] if body.email and body.password and "password" in methods:
            return await identity.by_password(body.email, body.password.get_secret_value())
        case ["access_token"] if body.access_token and "access_token" in methods:
            return await identity.by_access_token(body.access_token.get_secret_value())
        case _:
            forms = {
                "name": "name",
                "password": "email and password",
                "access_token": "access_token",
            }
            wanted = ", or ".join(forms[method] for method in methods)
            raise Refused(invalid(FieldProblem("", f"must have {wanted}, and nothing else")))


def _me(person: Person, expires_at: datetime) -> Me:
    return Me(
        user_id=person.user_id,
        name=person.name,
        email=person.email,
        is_admin=person.is_admin,
        by_cookie=True,
        session_expire_time=expires_at,
        low_credit_warning=LOW_CREDIT_WARNING,
    )

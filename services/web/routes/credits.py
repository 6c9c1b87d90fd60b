"""Tells what a user has, and why."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from services.web.callers import SignedIn
from services.web.limits import CallRate
from services.web.openapi import problems
from services.web.parts import WiredParts
from services.web.problems import FieldProblem, Refused, invalid
from services.web.requests import TransactionQuery
from services.web.resources import Balance, TransactionPage
from services.web.statement import PAGE_SIZE, write_statement

__all__ = ["get_balance", "list_transactions", "router"]

PAGE_SIZE_DEFAULT = 24
CSV = "text/csv"
FILE_NAME = "reelworks-statement.csv"

router = APIRouter(prefix="/api/credits", tags=["credits"], dependencies=[CallRate])


@router.get("", responses=problems(401, 429, 503, 504))
async def get_balance(caller: SignedIn, parts: WiredParts) -> Balance:
    """Returns what the caller has now."""
    return Balance.of(await parts.credits.get_balance(caller.user_id))


@router.get(
    "/transactions",
    response_model=TransactionPage,
    responses={
        200: {
            "content": {CSV: {"schema": {"type": "string"}}},
            "headers": {
                "Content-Disposition": {
                    "description": "With `format=csv`: the name of the file.",
                    "schema": {"type": "string"},
                }
            },
        },
        **problems(401, 404, 422, 429, 503, 504),
    },
)
async def list_transactions(
    wanted: Annotated[TransactionQuery, Query()], caller: SignedIn, parts: WiredParts
) -> TransactionPage | StreamingResponse:
    """Lists what moved the caller's credits, newest first: a page as JSON, or all of it as CSV.

    Each `available_after` is that of the transaction before it, which is the next one in the list,
    plus its own `credits`. A file that ends early was cut off: the last line of a whole one is
    version 1, or the one that follows `after_version`.
    """
    client, after_version = parts.credits, wanted.after_version
    if wanted.format == "json":
        page = await client.list_transactions(
            caller.user_id,
            wanted.page_size or PAGE_SIZE_DEFAULT,
            wanted.page_token,
            after_version=after_version,
        )
        return TransactionPage.of(page)
    if wanted.page_token or wanted.page_size is not None:
        name = "page_token" if wanted.page_token else "page_size"
        raise Refused(invalid(FieldProblem(f"/{name}", "must be left out with format=csv")))
    # Read before the answer begins, so that what fails is told as such.
    first = await client.list_transactions(caller.user_id, PAGE_SIZE, after_version=after_version)
    statement = write_statement(client, caller.user_id, first, after_version)
    headers = {"Content-Disposition": f'attachment; filename="{FILE_NAME}"'}
    return StreamingResponse(statement, media_type=CSV, headers=headers)

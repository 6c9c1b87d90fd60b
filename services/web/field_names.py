"""Names fields as the API's callers know them."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from services.runtime.errors import InvalidRequest

__all__ = ["fields_named"]


@contextlib.contextmanager
def fields_named(**names: str) -> Iterator[None]:
    """Has a refusal of a service name fields by these names in place of the service's."""
    try:
        yield
    except InvalidRequest as error:
        renamed = InvalidRequest(
            [replace(one, field=names.get(one.field, one.field)) for one in error.violations]
        )
        # The reason may be of all fields together, which one violation alone does not know.
        renamed.reason, renamed.metadata = error.reason, error.metadata
        raise renamed from error

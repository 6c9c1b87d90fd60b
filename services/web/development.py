"""Vouches for anybody by name, on a machine of one's own: there is nobody else to ask."""

import contextlib
import os
import re
import time
from pathlib import Path

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from services.web.sessions import Person
from services.web.tokens import AUDIENCE

__all__ = ["ISSUER", "NAME_RULE", "development_key", "development_token", "person_named"]

ISSUER = "reelworks-development"
ALGORITHM = "ES256"
TOKEN_S = 12 * 3600
NAME_RULE = "must be 1 to 64 characters of a-z 0-9 _ -"

_NAME = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)


def development_key(path: Path) -> ECKey:
    """Returns the private key in `path`; makes it first if there is none, for this user's eyes.

    Raises ValueError or OSError that says what is wrong with the file.
    """
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = ECKey.generate_key("P-256").as_pem(private=True)
        # Beside it first: nobody ever reads half a key.
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(fresh)
            os.link(draft, path)
        finally:
            draft.unlink()
    try:
        key = ECKey.import_key(path.read_bytes())
    except (JoseError, ValueError, TypeError):
        raise ValueError("is no private key in PEM") from None
    if not key.is_private or key.curve_name != "P-256":
        raise ValueError("must be a private key of P-256")
    return key


def person_named(name: str) -> Person | None:
    """Returns who goes by a name, in upper or lower case; None if it can be no account's id."""
    user_id = name.strip().lower()
    if not _NAME.fullmatch(user_id):
        return None
    return Person(user_id=user_id, name=name.strip(), email="", is_admin=False)


def development_token(key: ECKey, person: Person, now: float | None = None) -> str:
    """Returns an access token for somebody, as programs send it."""
    issued = int(time.time() if now is None else now)
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": person.user_id,
        "iat": issued,
        "exp": issued + TOKEN_S,
        "user_metadata": {"name": person.name},
    }
    return jwt.encode({"alg": ALGORITHM}, claims, key, algorithms=[ALGORITHM])

"""A token is believed if the configured issuer signed it for us, and for no other reason."""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from services.web.identity import Identity, SignInAway
from services.web.keys import FETCH_PAUSE_S, FRESH_S, KeysAway, PublishedKeys
from services.web.tokens import BadToken, TokenVerifier, one_key, published_key
from tests.integration.web.issuer import KEYS_PATH, Issuer, running_issuer
from tests.integration.web.studio import until

SECRET = b"a secret that Supabase and we share, of 32 bytes or more"


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def keys(issuer: Issuer, clock: Clock) -> AsyncIterator[PublishedKeys]:
    async with httpx.AsyncClient() as http:
        published = PublishedKeys(issuer.url + KEYS_PATH, http, clock)
        yield published
        await published.close()


@pytest.fixture
def identity(issuer: Issuer, keys: PublishedKeys) -> Identity:
    return Identity(TokenVerifier(published_key(keys), issuer.name))


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


async def refused(identity: Identity, token: str) -> str:
    with pytest.raises(BadToken) as raised:
        await identity.verify(token)
    return str(raised.value)


async def test_a_good_token_says_who_it_is_about(identity: Identity, issuer: Issuer) -> None:
    proven = await identity.verify(issuer.token())

    assert proven.person.user_id == issuer.user_id
    assert proven.person.name == "Ada Lovelace"
    assert proven.person.email == "ada@example.com"
    assert not proven.person.is_admin
    assert abs(proven.expires_at.timestamp() - time.time() - 600) < 5


async def test_keys_of_both_kinds_verify(identity: Identity, issuer: Issuer) -> None:
    rsa = RSAKey.generate_key(2048, {"kid": "second"})
    issuer.keys.append(rsa)

    for key in issuer.keys:
        assert (await identity.verify(issuer.token(key))).person.user_id == issuer.user_id


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example/auth/v1"},
        {"iss": None},
        {"aud": "anon"},
        {"aud": ["anon", "service_role"]},
        {"aud": None},
        {"exp": None},
        {"exp": 1},
        {"exp": "never"},
        {"exp": True},
        {"sub": None},
        {"sub": ""},
        {"sub": "../../ada"},
        {"sub": "a" * 65},
        {"sub": ["ada"]},
        {"sub": 7},
        {"nbf": 99999999999},
        {"iat": 99999999999},
    ],
    ids=str,
)
async def test_every_required_claim_counts(
    identity: Identity, issuer: Issuer, changes: dict[str, Any]
) -> None:
    assert await refused(identity, issuer.token(**changes))


async def test_clocks_may_differ_by_ten_seconds(identity: Identity, issuer: Issuer) -> None:
    now = int(time.time())

    assert await identity.verify(issuer.token(exp=now - 5, iat=now + 5))
    assert await refused(identity, issuer.token(exp=now - 15))


async def test_nobody_signs_for_the_issuer(identity: Identity, issuer: Issuer) -> None:
    await identity.verify(issuer.token())
    impostor = ECKey.generate_key("P-256", {"kid": "first"})

    assert await refused(identity, issuer.token(impostor))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
async def test_no_signature_is_no_proof(identity: Identity, issuer: Issuer, algorithm: str) -> None:
    header = {"alg": algorithm, "kid": "first"}

    assert await refused(identity, forged(header, issuer.claims()))


async def test_a_public_key_is_no_shared_secret(identity: Identity, issuer: Issuer) -> None:
    rsa = RSAKey.generate_key(2048, {"kid": "rsa"})
    issuer.keys.append(rsa)
    for key in issuer.keys:
        for secret in (key.as_pem(private=False), json.dumps(key.as_dict(private=False)).encode()):
            shared = OctKey.import_key(base64.urlsafe_b64encode(secret).decode())
            raw = jws.serialize_compact(
                {"alg": "HS256", "kid": key.kid},
                json.dumps(issuer.claims()).encode(),
                shared,
                algorithms=["HS256"],
            )
            assert await refused(identity, raw)


async def test_a_token_does_not_choose_its_algorithm_nor_bring_its_key(
    identity: Identity, issuer: Issuer
) -> None:
    own = ECKey.generate_key("P-256")
    brought = own.as_dict(private=False)
    header: dict[str, Any]
    for header in (
        {"alg": "ES256", "kid": "first", "jwk": brought},
        {"alg": "ES256", "jwk": brought},
        {"alg": "ES256", "kid": "first", "jku": "http://127.0.0.1:1/keys"},
    ):
        token = jws.serialize_compact(
            header, json.dumps(issuer.claims()).encode(), own, algorithms=["ES256"]
        )
        assert await refused(identity, token)
    for header in (
        {"alg": "RS256", "kid": "first"},
        {"alg": "ES256", "kid": "first", "crit": ["x"]},
    ):
        assert await refused(identity, forged(header, issuer.claims(), b"s" * 64))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "a" * 9000,
        "é.é.é",
        "eyJhbGciOiJFUzI1NiJ9.e30.",
        forged({"alg": "ES256", "kid": ["first"]}, {}),
        forged({"kid": "first"}, {}),
        forged({"alg": "ES256"}, {}),
        forged({"alg": 7, "kid": "first"}, {}),
        base64.urlsafe_b64encode(b"[" * 400).decode() + ".e30.c2ln",
        base64.urlsafe_b64encode(b"[]").decode() + ".e30.c2ln",
    ],
)
async def test_what_is_no_token_is_refused(identity: Identity, token: str) -> None:
    assert await refused(identity, token)


async def test_only_app_metadata_makes_operators(identity: Identity, issuer: Issuer) -> None:
    own = issuer.token(user_metadata={"role": "admin", "is_admin": True}, role="admin")
    granted = issuer.token(app_metadata={"role": "admin"})

    assert not (await identity.verify(own)).person.is_admin
    assert (await identity.verify(granted)).person.is_admin


@pytest.mark.parametrize("name", [7, None, ["x"], {"a": 1}, "", "\x00\x1b[31m", "n" * 10_000])
async def test_a_name_may_be_anything_and_shows_little(
    identity: Identity, issuer: Issuer, name: object
) -> None:
    token = issuer.token(user_metadata={"full_name": name if name != "n" * 10_000 else "n" * 4000})

    shown = (await identity.verify(token)).person.name

    assert 1 <= len(shown) <= 64
    assert shown.isprintable()


async def test_made_up_key_ids_cause_one_fetch(
    identity: Identity, issuer: Issuer, clock: Clock
) -> None:
    await identity.verify(issuer.token())
    assert issuer.key_fetches == 1
    clock.now += FETCH_PAUSE_S

    tokens = [
        issuer.token(ECKey.generate_key("P-256", {"kid": f"made-up-{number}"}))
        for number in range(50)
    ]
    answers = await asyncio.gather(
        *(identity.verify(token) for token in tokens), return_exceptions=True
    )

    assert all(isinstance(answer, BadToken) for answer in answers)
    assert issuer.key_fetches == 2
    clock.now += FETCH_PAUSE_S - 1
    await refused(identity, tokens[0])
    assert issuer.key_fetches == 2
    clock.now += 1
    await refused(identity, tokens[0])
    assert issuer.key_fetches == 3


async def test_a_new_key_is_found_when_it_is_first_used(
    identity: Identity, issuer: Issuer, clock: Clock
) -> None:
    await identity.verify(issuer.token())
    issuer.keys.append(ECKey.generate_key("P-256", {"kid": "next"}))
    clock.now += FETCH_PAUSE_S

    assert await identity.verify(issuer.token(issuer.keys[1]))


async def test_a_failed_fetch_keeps_the_last_good_keys(
    identity: Identity, issuer: Issuer, clock: Clock
) -> None:
    await identity.verify(issuer.token())
    issuer.is_broken = True
    clock.now += FETCH_PAUSE_S

    # Its key may be a new one, so nobody can say that it is bad.
    with pytest.raises(SignInAway):
        await identity.verify(issuer.token(ECKey.generate_key("P-256", {"kid": "next"})))

    assert issuer.key_fetches == 2
    assert await identity.verify(issuer.token())


async def test_a_withdrawn_key_is_believed_for_minutes_only(
    keys: PublishedKeys, identity: Identity, issuer: Issuer, clock: Clock
) -> None:
    old = issuer.keys[0]
    await identity.verify(issuer.token(old))
    issuer.keys = [ECKey.generate_key("P-256", {"kid": "next"})]
    clock.now += FRESH_S + 1

    await identity.verify(issuer.token(old))  # It asks for the keys in the background.
    assert await keys.get("next")

    assert await refused(identity, issuer.token(old))


async def test_without_any_key_nobody_is_refused_for_good(
    identity: Identity, issuer: Issuer, clock: Clock
) -> None:
    issuer.is_broken = True
    with pytest.raises(SignInAway):
        await identity.verify(issuer.token())
    issuer.is_broken = False
    with pytest.raises(SignInAway):  # A moment later it is not asked again.
        await identity.verify(issuer.token())
    assert issuer.key_fetches == 1
    clock.now += 3

    assert await identity.verify(issuer.token())


async def test_all_wait_for_one_fetch_and_it_goes_on_for_the_others(
    keys: PublishedKeys, issuer: Issuer
) -> None:
    issuer.let_answer.clear()
    first, second = asyncio.create_task(keys.get("first")), asyncio.create_task(keys.get("first"))
    await until(lambda: issuer.key_fetches > 0)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first

    issuer.let_answer.set()

    assert (await second).kid == "first"
    assert issuer.key_fetches == 1


async def test_an_issuer_that_does_not_answer_holds_nobody_up_for_long(
    keys: PublishedKeys, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.web.keys.FETCH_S_MAX", 0.1)
    issuer.let_answer.clear()

    with pytest.raises(KeysAway):
        await keys.get("first")


async def test_a_shared_secret_verifies_its_own_algorithm_only(issuer: Issuer) -> None:
    key = OctKey.import_key(SECRET)
    identity = Identity(TokenVerifier(one_key(key, "HS256"), issuer.name))

    good = jwt.encode({"alg": "HS256"}, issuer.claims(), key, algorithms=["HS256"])
    assert (await identity.verify(good)).person.user_id == issuer.user_id

    other = jwt.encode({"alg": "HS512"}, issuer.claims(), key, algorithms=["HS512"])
    assert await refused(identity, other)
    assert await refused(identity, issuer.token())
    assert await refused(identity, forged({"alg": "none"}, issuer.claims()))
    assert issuer.key_fetches == 0

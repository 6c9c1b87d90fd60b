"""Of what an issuer publishes only keys are taken that tokens can be verified with."""

import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from services.web.keys import KEYS_MAX, read_keys

EC = ECKey.generate_key("P-256", {"kid": "ec"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})


def published(*entries: Any) -> bytes:
    return json.dumps({"keys": entries}).encode()


def entry(key: ECKey | RSAKey | OctKey | OKPKey, **changes: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), **changes}


def test_keys_of_both_kinds_are_read() -> None:
    keys = read_keys(published(entry(EC, alg="ES256", use="sig"), entry(RSA)))

    assert {name: key.key_type for name, key in keys.items()} == {"ec": "EC", "rsa": "RSA"}


@pytest.mark.parametrize(
    "other",
    [
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"},
        entry(ECKey.generate_key("P-384", {"kid": "large"})),
        entry(OKPKey.generate_key("Ed25519", {"kid": "other"})),
        entry(EC, kid="encryption", use="enc"),
        entry(EC, kid="other", alg="HS256"),
        entry(RSA, kid="other", alg="PS256"),
        entry(EC, kid="k" * 300),
        {**entry(EC), "kid": 7},
        {"kty": "EC", "kid": "broken", "crv": "P-256", "x": "!", "y": "!"},
        {"kty": "EC", "kid": "off", "crv": "P-256", "x": "AA", "y": "AA"},
        "a text",
        None,
    ],
)
def test_every_other_key_is_left_out(other: Any) -> None:
    assert list(read_keys(published(other, entry(EC)))) == ["ec"]


def test_short_rsa_keys_are_left_out() -> None:
    with pytest.warns(UserWarning, match="2048"):
        weak = RSAKey.generate_key(1024, {"kid": "weak"})

    assert list(read_keys(published(entry(weak), entry(EC)))) == ["ec"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": []}', b"[" * 100_000, b"\xff"]
)
def test_what_is_no_set_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"is no set of keys|has no key"):
        read_keys(content)


def test_no_more_keys_than_anybody_needs_are_read() -> None:
    many = [entry(EC, kid=str(number)) for number in range(KEYS_MAX + 10)]

    assert len(read_keys(published(*many))) == KEYS_MAX

import base64
import time

import pytest
import standardwebhooks
import svix

from services.simulator.signature import make_secret, signature_headers

BODY = '{"id":"a","status":"succeeded","input":{"prompt":"ein Fuchs im Schnee, 狐"}}'.encode()


def test_the_vector_of_the_specification_holds() -> None:
    headers = signature_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_secrets_are_reproducible_and_differ_by_seed_and_token() -> None:
    secret = make_secret(1, "r8_one")

    assert secret == make_secret(1, "r8_one")
    assert len({secret, make_secret(2, "r8_one"), make_secret(1, "r8_two")}) == 3
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 24


@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.Webhook])
def test_independent_libraries_accept_each_active_secret(library: type) -> None:
    secrets = [make_secret(1, "r8_one"), make_secret(2, "r8_one")]
    headers = signature_headers("msg_1", int(time.time()), BODY, secrets)

    for secret in secrets:
        library(secret).verify(BODY, headers)
    with pytest.raises(Exception, match="signature"):
        library(make_secret(3, "r8_one")).verify(BODY, headers)
    with pytest.raises(Exception, match="signature"):
        library(secrets[0]).verify(BODY + b" ", headers)

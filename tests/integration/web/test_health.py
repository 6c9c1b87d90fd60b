"""A replica lives while its process works, and is ready until it leaves, whoever else is away."""

from tests.integration.web.studio import Studio


async def test_with_all_services_it_is_ready(studio: Studio) -> None:
    client = await studio.client()

    for name in ("startup", "live", "ready"):
        answer = await client.get(f"/healthz/{name}")
        assert answer.status_code == 200, name


async def test_a_service_that_is_away_makes_no_replica_unready(lobby: Studio) -> None:
    client = await lobby.client()
    token = {"Authorization": f"Bearer {lobby.token('ada')}"}

    away = await client.get("/api/models", headers=token)

    assert away.status_code == 503
    for name in ("startup", "live", "ready"):
        answer = await client.get(f"/healthz/{name}")
        assert answer.status_code == 200, name


async def test_one_that_leaves_says_so_and_answers_still(studio: Studio) -> None:
    client = await studio.client()
    studio.parts.leaving.set()

    assert (await client.get("/healthz/ready")).text == "leaving\n"
    assert (await client.get("/api/sign-in")).status_code == 200

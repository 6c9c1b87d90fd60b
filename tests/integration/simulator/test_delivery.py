from tests.integration.simulator.harness import Start


async def test_a_video_is_delivered_whole_and_in_parts(start: Start) -> None:
    running = await start()
    created = await running.create()
    output = (await running.reaches(created["id"], "succeeded"))["output"]
    assert output == f"{running.addresses.delivery}/xezq/{created['id']}/output.mp4"

    async with running.session.get(output) as response:
        whole = await response.read()
        assert response.status == 200
        assert response.content_type == "video/mp4"
        assert response.content_length == len(whole)
        etag = response.headers["ETag"]
    async with running.session.get(output, headers={"Range": "bytes=100-199"}) as response:
        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes 100-199/{len(whole)}"
        assert await response.read() == whole[100:200]
    async with running.session.get(output, headers={"If-None-Match": etag}) as response:
        assert response.status == 304


async def test_an_uploaded_file_is_delivered(start: Start) -> None:
    running = await start()
    _, file = await running.upload(b"a picture")

    async with running.session.get(f"{running.addresses.delivery}/files/{file['id']}") as response:
        assert await response.read() == b"a picture"


async def test_what_does_not_exist_is_not_delivered(start: Start) -> None:
    running = await start()
    failed = await running.create("a lake [fail]")
    await running.reaches(failed["id"], "failed")

    for path in (f"/xezq/{failed['id']}/output.mp4", "/xezq/none/output.mp4", "/files/none", "/"):
        async with running.session.get(f"{running.addresses.delivery}{path}") as response:
            assert response.status == 404


async def test_each_listener_carries_its_own_paths_only(start: Start) -> None:
    running = await start()
    addresses = running.addresses

    for address in (
        f"{addresses.api}/control/state",
        f"{addresses.delivery}/control/state",
        f"{addresses.delivery}/v1/predictions",
        f"{addresses.control}/v1/predictions",
    ):
        status, _ = await running.call("GET", address)
        assert status == 404

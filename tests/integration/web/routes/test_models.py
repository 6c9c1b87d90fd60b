"""The catalog, and what a video would cost."""

from tests.integration.web.routes.api import OTHER, Api, pointers, refused, wish


async def test_the_catalog_is_told_with_prices_and_limits(api: Api) -> None:
    answer = await api.get("/api/models")

    told = answer.json()
    by_name = {model["model"]: model for model in told["models"]}
    assert by_name["t2v-14B"]["kind"] == "TEXT_TO_VIDEO"
    assert by_name["i2v-14B"]["kind"] == "IMAGE_TO_VIDEO"
    prices = {one["resolution"]: one["price_credits"] for one in by_name["t2v-14B"]["resolutions"]}
    assert prices == {"480p": 10, "720p": 20}
    assert by_name["t2v-14B"]["prompt_characters_min"] == 10
    assert told["image"] == {
        "size_bytes_max": 10 * 1024 * 1024,
        "content_types": ["image/jpeg", "image/png", "image/webp"],
    }
    described = api.app.openapi()["components"]["schemas"]
    assert set(by_name["t2v-14B"]) == set(described["Model"]["properties"])


async def test_a_catalog_that_is_known_is_not_sent_again(api: Api) -> None:
    first = await api.get("/api/models")
    tag = first.headers["ETag"]

    same = await api.get("/api/models", headers={"If-None-Match": f'"old", {tag}'})
    weak = await api.get("/api/models", headers={"If-None-Match": f"W/{tag}"})
    other = await api.get("/api/models", headers={"If-None-Match": '"old"'})
    theirs = await api.get("/api/models", user=OTHER)

    assert first.headers["Cache-Control"] == "private, no-cache"
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
    assert weak.status_code == 304
    assert (other.status_code, other.json()) == (200, first.json())
    assert theirs.headers["ETag"] == tag


async def test_a_quote_tells_what_is_missing_and_makes_nothing(api: Api) -> None:
    await api.created(model="t2v-14B", resolution="720p")
    await api.created(model="t2v-14B", resolution="720p")
    before = await api.balance()

    answer = await api.post(
        "/api/quotes", json=wish(model="t2v-14B", resolution="720p") | {"kind": "TEXT_TO_VIDEO"}
    )

    quote = answer.json()
    assert answer.status_code == 200
    assert quote["cost_credits"] == 20
    assert quote["available_after_credits"] == quote["available_credits"] - 20
    assert quote["queue_ahead"] >= 0
    assert set(quote) == set(api.app.openapi()["components"]["schemas"]["Quote"]["properties"])
    assert sum(await api.balance()) <= sum(before)
    assert len((await api.get("/api/generations")).json()["generations"]) == 2


async def test_a_quote_is_refused_in_the_words_of_a_create(api: Api) -> None:
    for changes in ({"prompt": "short"}, {"model": "t2v-9000"}, {"resolution": "8k"}):
        quoted = await api.post("/api/quotes", json=wish(**changes) | {"kind": "TEXT_TO_VIDEO"})
        created = await api.create(**changes)

        assert quoted.status_code == created.status_code == 422
        assert quoted.json()["errors"] == created.json()["errors"]
        assert quoted.json()["code"] == created.json()["code"]


async def test_a_quote_needs_a_kind(api: Api) -> None:
    none = await api.post("/api/quotes", json=wish())
    wrong = await api.post("/api/quotes", json=wish() | {"kind": "UNKNOWN"})

    for answer in (none, wrong):
        refused(answer, 422, "INVALID_FIELD")
        assert pointers(answer) == ["/kind"]

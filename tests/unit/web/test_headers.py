from services.web.headers import content_policy


def test_the_page_loads_from_nowhere_but_its_own_host() -> None:
    policy = content_policy(())

    assert policy == (
        "default-src 'self'; img-src 'self' blob:; media-src 'self'; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    assert "unsafe" not in policy


def test_media_may_come_from_buckets_that_are_named() -> None:
    policy = content_policy(("https://bucket.example", "https://other.example:9000"))

    assert "media-src 'self' https://bucket.example https://other.example:9000;" in policy
    assert "img-src 'self' blob: https://bucket.example https://other.example:9000;" in policy
    assert "default-src 'self';" in policy

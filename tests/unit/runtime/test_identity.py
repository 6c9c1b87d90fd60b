"""A role is named by one URI, exactly."""

import pytest

from services.runtime.identity import named_role


@pytest.mark.parametrize("role", ["web", "operator", "a", "billing-2"])
def test_one_uri_names_a_role(role: str) -> None:
    assert named_role([f"spiffe://reelworks/{role}"]) == role


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["spiffe://reelworks/web", "spiffe://reelworks/operator"],
        ["spiffe://reelworks/web", "https://example.com"],
        ["spiffe://reelworks/web", "spiffe://reelworks/web"],
        ["spiffe://reelworks/web/"],
        ["spiffe://reelworks/web/evil"],
        ["spiffe://reelworks/"],
        ["spiffe://reelworks"],
        ["spiffe://reelworks//web"],
        ["spiffe://reelworks/WEB"],
        ["SPIFFE://reelworks/web"],
        ["spiffe://REELWORKS/web"],
        ["spiffe://reelworks.evil/web"],
        ["spiffe://evil/web"],
        ["spiffe://evil/spiffe://reelworks/web"],
        ["spiffe://user@reelworks/web"],
        ["spiffe://reelworks:443/web"],
        ["spiffe://reelworks/web?operator"],
        ["spiffe://reelworks/web#operator"],
        ["spiffe://reelworks/we%62"],
        ["spiffe://reelworks/web\n"],
        [" spiffe://reelworks/web"],
        ["spiffe://reelworks/wéb"],
        ["https://reelworks/web"],
        ["web"],
        [f"spiffe://reelworks/{'w' * 33}"],
    ],
)
def test_anything_else_names_none(uris: list[str]) -> None:
    assert named_role(uris) is None

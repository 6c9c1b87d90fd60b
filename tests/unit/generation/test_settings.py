"""Settings that would ruin every generation are refused at start."""

import pytest

from services.generation.settings import GenerationSettings
from services.runtime.settings import load_settings

GOOD = {
    "REELWORKS_ADDRESS": "127.0.0.1:0",
    "REELWORKS_DATABASE_URL": "sqlite:////nowhere/generation.sqlite3",
    "REELWORKS_CREDITS_ADDRESS": "127.0.0.1:1",
    "REELWORKS_STORAGE_URL": "file:///nowhere",
    "REELWORKS_CALLBACK_KEYS_FILE": "/nowhere/keys",
    "REPLICATE_API_TOKEN": "r8_secret",
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def test_good_settings_are_read_and_keep_the_token_to_themselves() -> None:
    settings = load_settings(GenerationSettings)

    assert settings.timing.deadline_s == 2700
    assert settings.replicate_api_token.get_secret_value() == "r8_secret"
    assert "r8_secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("REELWORKS_DEADLINE_S", "45", "greater than or equal to 120"),
        ("REELWORKS_CREATES_PER_S", "11", "less than or equal to 10"),
        ("REELWORKS_LOG_LEVEL", "LOUD", "'DEBUG'"),
        ("REELWORKS_ENVIRONMENT", "Prod!", "pattern"),
        ("REPLICATE_API_TOKEN", "", "must be set"),
        ("REPLICATE_BASE_URL", "https://api.replicate.com/v1", "/v1"),
        ("REELWORKS_WEBHOOK_PUBLIC_URL", "https://example.com", "path"),
        ("REELWORKS_WEBHOOK_PUBLIC_URL", "http://example.com/hooks", "https"),
        ("REELWORKS_WEBHOOK_PUBLIC_URL", "https://example.com/hooks?x=1", "query"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    name: str,
    value: str,
    rule: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit) as raised:
        load_settings(GenerationSettings)

    lines = capsys.readouterr().err.splitlines()
    assert raised.value.code == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {name}: ")
    assert rule in lines[0]

"""Settings that would ruin every generation are refused at start."""

import subprocess
import sys

import pytest

from services.credits.settings import CreditsSettings
from services.generation.settings import GenerationSettings
from services.runtime.settings import Settings, load_settings
from services.webhook.settings import WebhookSettings

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


def test_origins_and_durations_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELWORKS_DELIVERY_ORIGINS", "https://a.example, http://127.0.0.1:8091/,")
    monkeypatch.setenv("REELWORKS_DURATIONS", '{"probe_s": 7}')

    settings = load_settings(GenerationSettings)

    assert settings.origins == ("https://a.example", "http://127.0.0.1:8091")
    assert settings.timing.probe_s == 7


@pytest.mark.parametrize("settings", [CreditsSettings, GenerationSettings, WebhookSettings])
def test_every_number_has_a_least_and_a_most(settings: type[Settings]) -> None:
    unbounded = [
        name
        for name, field in settings.model_json_schema()["properties"].items()
        for kind in field.get("anyOf", [field])
        if kind.get("type") in ("integer", "number")
        and not (kind.keys() & {"minimum", "exclusiveMinimum"} and "maximum" in kind)
    ]

    assert unbounded == []


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
        ("REELWORKS_RETENTION_DAYS", "1e308", "less than or equal to 36500"),
        ("REELWORKS_RETENTION_DAYS", "nan", "finite"),
        ("REELWORKS_DEADLINE_S", "inf", "finite"),
        ("REELWORKS_DEADLINE_S", "2592001", "less than or equal to 2592000"),
        ("REELWORKS_STORAGE_ACCESS_KEY", "only-a-secret", "id:secret"),
        ("REELWORKS_DURATIONS", "abc", "JSON"),
        ("REELWORKS_DURATIONS", "[]", "dictionary"),
        ("REELWORKS_DURATIONS", '{"poll_s": NaN}', "finite"),
        ("REELWORKS_DURATIONS", '{"poll_s": 0}', "above 0"),
        ("REELWORKS_DURATIONS", '{"poll": 1}', "must be one of"),
        ("REELWORKS_MEDIA_URL", "https://app/media?x=1", "query"),
        ("REELWORKS_MEDIA_URL", "https://app:port/media", "address"),
        ("REELWORKS_MEDIA_URL", "https://app:70000/media", "address"),
        ("REELWORKS_MEDIA_URL", "https://[app/media", "address"),
        ("REPLICATE_BASE_URL", "http://127.0.0.1:x", "address"),
        ("REELWORKS_DELIVERY_ORIGINS", "nonsense", "address"),
        ("REELWORKS_DELIVERY_ORIGINS", "https://a.example, https://b.example/path", "origins"),
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


@pytest.mark.parametrize(
    "url",
    ["https://example.com/hooks", "http://localhost:8081/hooks", "http://webhook:8080/hooks"],
)
def test_webhooks_are_taken_by_https_or_in_this_network(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REELWORKS_WEBHOOK_PUBLIC_URL", url)

    assert load_settings(GenerationSettings).webhook_public_url == url


@pytest.mark.parametrize("points", ["submit.sent=x", "submit.sent=1:NONE"])
def test_a_wrong_failpoint_is_named_in_one_line(points: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "services.generation"],
        env={"REELWORKS_FAILPOINTS": points, "REELWORKS_ENVIRONMENT": "test"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert run.returncode == 2
    assert run.stderr.startswith("error: REELWORKS_FAILPOINTS: ")
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("service", ["credits", "generation", "webhook"])
@pytest.mark.parametrize("environment", [{}, {"REELWORKS_ENVIRONMENT": "production"}])
def test_failpoints_are_refused_where_they_are_no_test(
    service: str, environment: dict[str, str]
) -> None:
    run = subprocess.run(
        [sys.executable, "-m", f"services.{service}"],
        env={"REELWORKS_FAILPOINTS": "submit.sent"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert run.returncode == 2
    assert run.stderr == (
        "error: REELWORKS_FAILPOINTS: must be unset unless REELWORKS_ENVIRONMENT is test\n"
    )

"""A secret may lie in a file that a variable names; what is wrong with it is said by name."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, SecretStr

from services.credits.settings import CreditsSettings
from services.generation.settings import GenerationSettings
from services.runtime.settings import OR_FILE, OrFile, Settings, load_settings
from services.web.settings import WebSettings
from services.webhook.settings import WebhookSettings


class Secrets(Settings):
    database_url: Annotated[str, OR_FILE]
    token: Annotated[SecretStr | None, OR_FILE] = Field(
        default=None, validation_alias="REPLICATE_API_TOKEN", min_length=3
    )
    folder: str = "plain"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "url"
    file.write_text("postgresql://credits:pa55@host/credits\n")
    return file


def complaint(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.delenv("REELWORKS_FOLDER", raising=False)
    with pytest.raises(SystemExit) as exit_info:
        load_settings(Secrets)
    assert exit_info.value.code == 2
    return capsys.readouterr().err


def test_a_marked_setting_is_read_from_the_file(
    monkeypatch: pytest.MonkeyPatch, secret: Path
) -> None:
    monkeypatch.setenv("REELWORKS_DATABASE_URL_FILE", str(secret))
    monkeypatch.setenv("REPLICATE_API_TOKEN_FILE", str(secret))

    settings = load_settings(Secrets)

    assert settings.database_url == "postgresql://credits:pa55@host/credits"
    assert settings.token is not None
    assert settings.token.get_secret_value() == settings.database_url


def test_a_setting_without_the_mark_is_not(monkeypatch: pytest.MonkeyPatch, secret: Path) -> None:
    monkeypatch.setenv("REELWORKS_DATABASE_URL", "sqlite:////data")
    monkeypatch.setenv("REELWORKS_FOLDER_FILE", str(secret))

    assert load_settings(Secrets).folder == "plain"


def test_an_empty_name_of_a_file_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELWORKS_DATABASE_URL", "sqlite:////data")
    monkeypatch.setenv("REELWORKS_DATABASE_URL_FILE", "")

    assert load_settings(Secrets).database_url == "sqlite:////data"


def test_both_at_once_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], secret: Path
) -> None:
    monkeypatch.setenv("REELWORKS_DATABASE_URL", "sqlite:////data")
    monkeypatch.setenv("REELWORKS_DATABASE_URL_FILE", str(secret))

    text = complaint(monkeypatch, capsys)

    assert text == "error: REELWORKS_DATABASE_URL_FILE: REELWORKS_DATABASE_URL is set too\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "is no text"),
        (b"x" * (64 * 1024 + 1), "has more than 65536 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_without_its_content(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    content: bytes | None,
    words: str,
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("REELWORKS_DATABASE_URL_FILE", str(file))

    text = complaint(monkeypatch, capsys)

    assert text == f"error: REELWORKS_DATABASE_URL_FILE: {file}: {words}\n"


def test_a_wrong_secret_in_a_file_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("pq")
    monkeypatch.setenv("REELWORKS_DATABASE_URL", "sqlite:////data")
    monkeypatch.setenv("REPLICATE_API_TOKEN_FILE", str(file))

    text = complaint(monkeypatch, capsys)

    assert text.startswith("error: REPLICATE_API_TOKEN: ")
    assert "pq" not in text


@pytest.mark.parametrize(
    ("settings", "secrets"),
    [
        (CreditsSettings, {"database_url"}),
        (GenerationSettings, {"database_url", "replicate_api_token", "storage_access_key"}),
        (WebhookSettings, {"database_url", "replicate_api_token"}),
        (WebSettings, {"supabase_jwt_secret", "supabase_anon_key", "rate_limit_url"}),
    ],
)
def test_every_secret_of_a_service_may_lie_in_a_file(
    settings: type[Settings], secrets: set[str]
) -> None:
    marked = {
        name
        for name, field in settings.model_fields.items()
        if any(isinstance(mark, OrFile) for mark in field.metadata)
    }
    # Its counterpart in a file is a setting of its own, which is read again when it changes.
    elsewhere = {"replicate_webhook_secret"}
    fields = settings.model_fields.items()
    kept = {name for name, field in fields if "SecretStr" in str(field.annotation)}

    assert marked == secrets
    assert kept - elsewhere <= marked

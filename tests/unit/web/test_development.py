"""In development everybody is who they say, if that can be the id of an account."""

import stat
from pathlib import Path

import pytest

from services.web.development import development_key, person_named


@pytest.mark.parametrize("name", ["ada", "Ada", " ADA "])
def test_a_name_is_the_id_in_lower_case(name: str) -> None:
    person = person_named(name)

    assert person is not None
    assert (person.user_id, person.name) == ("ada", name.strip())
    assert not person.is_admin


@pytest.mark.parametrize("name", ["", " ", "a b", "a.b", "ä", "a" * 65, "../x", "İ", "\x00"])
def test_a_name_that_can_be_no_id_is_nobody(name: str) -> None:
    assert person_named(name) is None


def test_the_key_is_made_once_for_this_user_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "development_key"

    first, second = development_key(path), development_key(path)

    assert first.as_dict(private=True) == second.as_dict(private=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", ["", "no key", "-----BEGIN PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_named_as_such(tmp_path: Path, content: str) -> None:
    path = tmp_path / "development_key"
    path.write_text(content)

    with pytest.raises(ValueError, match="private key"):
        development_key(path)

    assert path.read_text() == content

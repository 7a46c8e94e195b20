from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oddlog import settings as module
from oddlog.errors import UsageError
from oddlog.settings import load, without_credentials
from oddlog.settings_in_force import describe


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_chosen_file", None)


def test_defaults_are_the_embedded_column() -> None:
    settings = load()
    assert settings.store.url == "sqlite:///mlruns/oddlog.sqlite"
    assert settings.registry.url == "sqlite:///mlruns/mlflow.db"


def test_file_environment_and_flags_grow_in_strength(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("oddlog.toml").write_text('[source]\ngroup = "file"\nepoch = "e7"\nurl = "file:///f"\n')
    monkeypatch.setenv("ODDLOG_SOURCE__GROUP", "environment")
    monkeypatch.setenv("ODDLOG_SOURCE__URL", "file:///e")
    flags = {"source": {"url": "file:///flag"}}
    settings = load(flags)
    assert (settings.source.url, settings.source.group, settings.source.epoch) == (
        "file:///flag",
        "environment",
        "e7",
    )
    origin = {line.name: line.origin for line in describe(settings, flags)}
    assert origin["source.url"] == "flag"
    assert origin["source.group"] == "environment"
    assert origin["source.epoch"] == "oddlog.toml"
    assert origin["store.url"] == "default"


def test_a_file_named_by_the_environment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text('[train]\nbudget = "5/day"\n')
    monkeypatch.setenv("ODDLOG_CONFIG", "mine.toml")
    assert load().train.budget == "5/day"


def test_every_setting_has_a_meaning() -> None:
    assert all(line.meaning for line in describe(load()))


def test_secrets_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODDLOG_STORE__PASSWORD", "hunter2")
    settings = load()
    assert settings.store.password is not None
    assert settings.store.password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings)
    assert not any("hunter2" in line.value for line in describe(settings))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('[source]\nurll = "x"\n', "source.urll"),
        ("[train]\nfit_share = 2.0\n", "train.fit_share"),
        ('[train]\nbudget = "many"\n', "train.budget"),
        ("[source\n", "settings"),
        ("[nothing]\nx = 1\n", "nothing"),
        ('[store]\nurl = "http://es:92OO"\n', "store.url"),
        ('[registry]\nurl = "http://[mlflow:5000"\n', "registry.url"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(content: str, named: str) -> None:
    Path("oddlog.toml").write_text(content)
    with pytest.raises(UsageError) as caught:
        load()
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "found", "expected"),
    [
        ({"train": {"budget": "5"}}, "setting train.budget is '5'", "as in 20/day"),
        ({"store": {"prefix": "Mine"}}, "setting store.prefix is 'Mine'", "as in oddlog"),
        ({"source": {"epoch": "e-2"}}, "setting source.epoch is 'e-2'", "as in e2"),
    ],
)
def test_what_a_text_should_look_like_is_said_in_words(flags: dict[str, Any], found: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(flags)
    assert caught.value.found == found
    assert expected in str(caught.value.expected)
    assert "pattern" not in str(caught.value)


def test_a_misspelt_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODDLOG_STORE_URL", "sqlite:///x")
    with pytest.raises(UsageError, match="ODDLOG_STORE_URL"):
        load()


def test_a_missing_named_file_is_refused() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml"):
        load(file=Path("nowhere.toml"))


def test_a_wrong_password_type_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("oddlog.toml").write_text("[store]\npassword = 12345\n")
    with pytest.raises(UsageError) as caught:
        load()
    assert "12345" not in str(caught.value)


def test_a_misspelt_secret_is_not_printed() -> None:
    Path("oddlog.toml").write_text('[store]\npasword = "hunter2"\n')
    with pytest.raises(UsageError) as caught:
        load()
    assert "store.pasword" in str(caught.value)
    assert "password" in str(caught.value), "the error lists what there is"
    assert "hunter2" not in str(caught.value)


def test_a_url_is_described_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODDLOG_SCORER__URL", "http://me:hunter2@scorer:3000")
    shown = {line.name: line.value for line in describe(load())}
    assert shown["scorer.url"] == "http://scorer:3000"


def test_a_group_given_whole_in_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODDLOG_STORE", '{"prefix": "mine"}')
    settings = load()
    assert settings.store.prefix == "mine"
    origin = {line.name: line.origin for line in describe(settings)}
    assert (origin["store.prefix"], origin["store.url"]) == ("environment", "default")


def test_a_file_that_is_no_text_is_refused() -> None:
    Path("oddlog.toml").write_bytes(b"\xff\xfe\x00[store]")
    with pytest.raises(UsageError, match=r"cannot be read from oddlog\.toml"):
        load()


def test_only_urls_lose_what_stands_before_an_at_sign() -> None:
    assert without_credentials("https://user:secret@es:9200/path") == "https://es:9200/path"
    for whole in ("http://es:9200", "file:///srv/me@home/access.log", "write to me@host"):
        assert without_credentials(whole) == whole

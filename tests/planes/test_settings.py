"""A secret is named in the configuration, found at the moment of use, and said nowhere."""

from __future__ import annotations

import pytest

from planes.errors import Refused
from planes.settings import Secret


def test_a_secret_is_taken_from_the_environment(monkeypatch):
    secret = Secret(env="PLANE_SECRET")
    monkeypatch.setenv("PLANE_SECRET", "s3cr3t")
    assert secret.resolve() == "s3cr3t"
    monkeypatch.setenv("PLANE_SECRET", "rotated")
    assert secret.resolve() == "rotated"


def test_a_secret_is_taken_from_a_file_without_its_last_newline(tmp_path):
    (tmp_path / "key").write_text("s3cr3t\n")
    assert Secret(file=tmp_path / "key").resolve() == "s3cr3t"


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_variable_that_is_not_set_is_named(monkeypatch, value):
    monkeypatch.delenv("PLANE_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("PLANE_SECRET", value)
    with pytest.raises(Refused, match="PLANE_SECRET"):
        Secret(env="PLANE_SECRET").resolve()


@pytest.mark.parametrize("content", [None, b"", b"\n", b"s3cr3t\xff"])
def test_a_file_without_a_usable_secret_is_named_and_not_quoted(tmp_path, content):
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(Refused) as caught:
        Secret(file=tmp_path / "key").resolve()
    assert str(tmp_path / "key") in caught.value.message
    assert "s3cr3t" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.facts}"


def test_neither_text_nor_copies_of_a_reference_hold_the_secret(monkeypatch):
    monkeypatch.setenv("PLANE_SECRET", "s3cr3t")
    secret = Secret(env="PLANE_SECRET")
    secret.resolve()
    assert "s3cr3t" not in f"{secret!r} {secret} {secret.model_dump()} {secret.model_dump_json()}"
    assert Secret.model_validate(secret.model_dump(mode="json")) == secret

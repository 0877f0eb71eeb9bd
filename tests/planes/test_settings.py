"""A secret is named in the configuration, found at the moment of use, and said nowhere."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from planes.errors import Refused, Unavailable
from planes.settings import Secret
from tests.doubles import kubernetes_api


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


def test_a_secret_of_kubernetes_is_read_where_it_is_and_anew_each_time(tmp_path, monkeypatch):
    with kubernetes_api.running() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
        secret = Secret(kubernetes="keys/access")
        assert Secret.model_validate(secret.model_dump(mode="json")) == secret
        for value in ("first", "second"):
            api.secret("keys", access=f"{value}\n", empty="")
            assert secret.resolve() == value
        trouble = (("keys/other", "has no key other"), ("none/access", "not there"), ("keys/empty", "empty"))
        for reference, way_out in trouble:
            with pytest.raises(Refused, match=way_out):
                Secret(kubernetes=reference).resolve()
        assert {verb for verb, _ in api.asked} == {"get"}
        api.refused.add(("get", "secrets"))
        with pytest.raises(Refused, match="Role"):
            secret.resolve()
    with pytest.raises(Unavailable, match="does not answer"):
        secret.resolve()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(Refused, match="runs in no Kubernetes"):
        secret.resolve()
    with pytest.raises(ValidationError, match="NAME/KEY"):
        Secret(kubernetes="no slash")

import base64
import json
from dataclasses import replace

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from fileserver.errors import CallerDenied
from fileserver.grants import LIFE, ROTATION, Grant, Keys, fingerprint

SECRET = "a secret that all file servers share"
NOON = 20000.5 * ROTATION
GRANT = Grant("write", "f00d", 3, fingerprint("token"), 0, 100, 200, NOON + LIFE)

names = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=20)
sizes = st.integers(0, 2**50)
grants = st.builds(
    Grant,
    st.sampled_from(["read", "write"]),
    names,
    st.integers(1, 100_000),
    names.map(fingerprint),
    sizes,
    sizes,
    sizes,
    st.integers(int(NOON) + 1, int(NOON) + 10_000).map(float),
)


def keys(at: float = NOON, *secrets: str) -> Keys:
    return Keys(secrets or (SECRET,), lambda: at)


def parts(token: str) -> list[dict]:
    return [json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]


def joined(*values: dict, signature: str) -> str:
    coded = [base64.urlsafe_b64encode(json.dumps(v).encode()).rstrip(b"=").decode() for v in values]
    return ".".join([*coded, signature])


@given(grants)
def test_what_is_minted_is_read_again(grant):
    assert keys().check(keys().mint(grant), grant.direction) == grant


@given(grants, st.sampled_from(["sub", "part", "upload", "start", "end", "size", "exp", "dir", "aud", "iss"]))
def test_a_changed_word_is_noticed(grant, word):
    token = keys().mint(grant)
    head, claims = parts(token)
    claims[word] = claims[word] + 1 if isinstance(claims[word], int) else claims[word] + "x"
    changed = joined(head, claims, signature=token.rpartition(".")[2])
    with pytest.raises(CallerDenied):
        keys().check(changed, grant.direction)


@given(st.data())
def test_a_changed_letter_is_noticed(data):
    token = keys().mint(GRANT)
    at = data.draw(st.integers(0, len(token) - 2))  # the last letter of base64 has bits that say nothing
    letter = data.draw(st.characters(codec="ascii").filter(lambda c: c != token[at]))
    if "." in {letter, token[at]} or token[at + 1] != ".":
        with pytest.raises(CallerDenied):
            keys().check(token[:at] + letter + token[at + 1 :], "write")


@given(st.one_of(st.text(max_size=300), st.binary(max_size=50).map(repr)))
def test_any_other_text_is_refused_cleanly(text):
    with pytest.raises(CallerDenied, match="does not count"):
        keys().check(text, "write")


def test_it_ends_with_its_hour():
    token = keys().mint(GRANT)
    assert keys(NOON + LIFE - 1).check(token, "write") == GRANT
    with pytest.raises(CallerDenied, match="expired") as refused:
        keys(NOON + LIFE).check(token, "write")
    assert refused.value.facts["why"] == "expired"


def test_a_right_to_write_is_none_to_read():
    with pytest.raises(CallerDenied) as refused:
        keys().check(keys().mint(GRANT), "read")
    assert refused.value.facts["why"] == "direction"


def test_the_key_of_yesterday_counts_and_that_of_the_day_before_does_not():
    token = keys().mint(replace(GRANT, expires=NOON + 10 * ROTATION))
    assert keys(NOON + ROTATION).check(token, "write").part == 3
    with pytest.raises(CallerDenied):
        keys(NOON + 2 * ROTATION).check(token, "write")
    with pytest.raises(CallerDenied):
        keys(NOON - ROTATION).check(token, "write")  # nor one that nobody signs with yet


def test_another_secret_signs_nothing_here_until_it_is_named_too():
    token = keys(NOON, "the old secret").mint(GRANT)
    with pytest.raises(CallerDenied):
        keys().check(token, "write")
    assert keys(NOON, SECRET, "the old secret").check(token, "write") == GRANT


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_the_token_does_not_choose_the_algorithm(algorithm):
    mine = keys()
    token = mine.mint(GRANT)
    head, claims = parts(token)
    (public,) = [key.public_key() for name, key in mine._valid() if name == head["kid"]]
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    key = None if algorithm == "none" else raw
    forged = jwt.encode(claims, key, algorithm=algorithm, headers={"kid": head["kid"]})
    with pytest.raises(CallerDenied):
        mine.check(forged, "write")


@pytest.mark.parametrize("head", [{}, {"kid": None}, {"kid": 5}, {"kid": "20000.0"}, {"kid": ["x"]}])
def test_a_key_that_nobody_has_is_refused(head):
    token = keys().mint(GRANT)
    old, claims = parts(token)
    forged = joined({"alg": "EdDSA", "typ": "JWT"} | head, claims, signature=token.rpartition(".")[2])
    assert old["kid"]
    with pytest.raises(CallerDenied):
        keys().check(forged, "write")


def test_no_grant_tells_the_token_of_the_upload():
    assert "token" not in json.dumps(parts(keys().mint(GRANT)))

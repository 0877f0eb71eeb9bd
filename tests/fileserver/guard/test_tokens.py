"""Tokens: which count, and the ways in which one may not."""

import base64
import hashlib
import hmac
import json
import re
import sys
import time
from datetime import timedelta

import hypothesis.strategies as st
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from structlog.testing import capture_logs

from client.errors import Exit, ServerError
from client.tokens import make_key, make_token
from fileserver.callers import Issuer, Tokens
from fileserver.errors import CallerUnknown, InvalidSpec, ServerUnavailable
from fileserver.guard import jwks
from fileserver.guard.jwks import IssuerKeys
from fileserver.guard.tokens import Verifier
from tests.doubles import issuer as double
from tests.doubles.authority import Authority


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return make_key(tmp_path_factory.mktemp("keys") / "key")


@pytest.fixture
def issuer():
    with double.running() as made:
        yield made


def verifier(issuer=None, own=None, **more):
    issuers = [Issuer(issuer=issuer.url, **more)] if issuer else []
    return Verifier(Tokens(keys={own.id: own.public} if own else {}, issuers=issuers, leeway=timedelta(0)))


async def refused(checking, token):
    with pytest.raises(CallerUnknown) as caught:
        await checking.identity(token)
    assert len(token) < 8 or token not in str(caught.value)
    return caught.value.message


# --- keys of the configuration ----------------------------------------------------------------------------------


async def test_a_token_of_a_configured_key_names_its_holder(own):
    before = time.time()
    found = await verifier(own=own).identity(make_token(own.private, "alice", ["a", "b"], 600))
    assert (found.name, found.groups) == ("alice", {"a", "b"})
    assert 599 <= found.ends - before <= 602


async def test_a_token_counts_until_it_has_expired_and_for_the_leeway(own):
    token = make_token(own.private, "alice", [], 1)
    ended = jwt.decode(token, options={"verify_signature": False})
    key = serialization.load_pem_private_key(own.private.read_bytes(), None)
    old = jwt.encode({**ended, "exp": int(time.time()) - 20, "nbf": 0, "iat": 0}, key, "EdDSA", {"kid": own.id})
    assert "has expired" in await refused(verifier(own=own), old)
    patient = Verifier(Tokens(keys={own.id: own.public}, leeway=timedelta(seconds=60)))
    assert (await patient.identity(old)).name == "alice"


async def test_tokens_of_another_key_of_that_id_do_not_count(own, tmp_path):
    other = make_key(tmp_path / "key")
    forged = Tokens(keys={other.id: own.public})
    assert "signature is wrong" in await refused(Verifier(forged), make_token(other.private, "alice", [], 60))
    assert "kid" in await refused(verifier(own=own), make_token(other.private, "alice", [], 60))


async def test_another_audience_is_another_server(own):
    token = make_token(own.private, "alice", [], 60, audience="another")
    assert "not made for this server" in await refused(verifier(own=own), token)


def test_a_key_file_is_its_owners_alone_and_never_replaced(tmp_path):
    made = make_key(tmp_path / "key")
    assert made.private.stat().st_mode & 0o777 == 0o600
    before = made.private.read_bytes()
    with pytest.raises(ServerError) as caught:
        make_key(tmp_path / "key")
    assert caught.value.exit is Exit.EXISTS
    assert made.private.read_bytes() == before
    made.private.chmod(0o640)
    with pytest.raises(ServerError, match="chmod 600"):
        make_token(made.private, "alice", [], 60)
    (tmp_path / "x").touch(0o600)
    with pytest.raises(ServerError, match="no private Ed25519 key"):
        make_token(tmp_path / "x", "alice", [], 60)
    (tmp_path / "half.pub").touch()
    with pytest.raises(ServerError):
        make_key(tmp_path / "half")
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_who_has_the_client_alone_is_told_what_tokens_need(tmp_path, own, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    for ask in (lambda: make_key(tmp_path / "key"), lambda: make_token(own.private, "alice", [], 60)):
        with pytest.raises(ServerError, match=f"{missing}: pip install") as caught:
            ask()
        assert caught.value.exit is Exit.REFUSED


@pytest.mark.parametrize("fault", ["missing", "private", "of another kind", "nothing"])
def test_a_key_that_cannot_be_used_is_refused_with_its_file(tmp_path, own, fault):
    path = tmp_path / "k.pub"
    if fault == "private":
        path.write_bytes(own.private.read_bytes())
    elif fault == "of another kind":
        key = serialization.load_pem_private_key(Authority(tmp_path).issue("x").key.read_bytes(), None).public_key()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        path.write_bytes(key.public_bytes(serialization.Encoding.PEM, form))
    elif fault == "nothing":
        path.touch()
    with pytest.raises(InvalidSpec) as caught:
        Verifier(Tokens(keys={"k": path}))
    assert str(path) in caught.value.violations["tokens.keys.k"]


# --- providers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
async def test_a_token_of_a_provider_names_its_holder(issuer, algorithm):
    issuer.rotate("k", algorithm)
    found = await verifier(issuer, prefix="idp:").identity(issuer.token(groups=["ops", 7]))
    assert (found.name, found.groups) == ("idp:alice", {"idp:ops"})
    assert issuer.asked == [double.DISCOVERY, "/keys"]


async def test_keys_are_fetched_once_and_other_claims_can_name_callers(issuer):
    checking = verifier(issuer, subject="email", groups="roles", jwks=f"{issuer.url}/keys")
    for _ in range(3):
        assert (await checking.identity(issuer.token(email="a@b", roles="ops"))).name == "a@b"
    assert issuer.asked == ["/keys"]


CLAIMS = {
    "expired": ({"exp": 1}, "has expired"),
    "not yet": ({"nbf": 2**40}, "does not count yet"),
    "no end": ({"exp": None}, "does not say exp"),
    "wrong audience": ({"aud": "another"}, "not made for this server"),
    "no audience": ({"aud": None}, "not made for this server|does not say aud"),
    "no name": ({"sub": None}, "no name of a caller"),
    "a name that acts": ({"sub": "a\x1b[2J"}, "no name of a caller"),
    "a name without end": ({"sub": "a" * 500}, "no name of a caller"),
    "a name that is none": ({"sub": ""}, "no name of a caller"),
    "another issuer": ({"iss": "https://evil.example"}, "none of those whose tokens"),
    "no issuer": ({"iss": None}, "none of those whose tokens"),
    "an end beyond all numbers": ({"exp": float("inf")}, "malformed"),
}


@pytest.mark.parametrize(("claims", "said"), CLAIMS.values(), ids=CLAIMS)
async def test_what_a_token_says_has_to_be_right(issuer, claims, said):
    assert re.search(said, await refused(verifier(issuer), issuer.token(**claims)))


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def assembled(head, claims, sign):
    text = f"{encoded(json.dumps(head).encode())}.{encoded(json.dumps(claims).encode())}"
    return f"{text}.{encoded(sign(text.encode()))}"


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "HS256", "HS512", "RS256", "ES256", "EdDSA", "", None, 7, ["ES256"]]
)
async def test_the_token_does_not_choose_how_it_is_checked(issuer, algorithm):
    """RFC 8725 section 2.1: `none`, and a public key that is taken for a shared secret."""
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    public = next(iter(issuer.keys.values()))[1].public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    for secret in (public.public_bytes(serialization.Encoding.PEM, form), json.dumps(issuer.published()[0]).encode()):
        forged = assembled(
            {"alg": algorithm, "kid": "first", "typ": "JWT"},
            claims,
            lambda text, secret=secret: hmac.digest(secret, text, hashlib.sha256),
        )
        await refused(verifier(issuer), forged)
    await refused(verifier(issuer), assembled({"alg": algorithm, "kid": "first"}, claims, lambda _: b""))


async def test_a_secret_among_the_published_keys_is_none_of_them(issuer):
    secret = {"kty": "oct", "k": encoded(b"s" * 32), "kid": "shared", "alg": "HS256"}
    issuer.answers["/keys"] = {"keys": [secret, *issuer.published(), {"kty": "RSA"}, "odd", {**secret, "kid": 7}]}
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    checking = verifier(issuer)
    for algorithm in ("HS256", "ES256", "EdDSA"):
        forged = assembled({"alg": algorithm, "kid": "shared"}, claims, lambda t: hmac.digest(b"s" * 32, t, "sha256"))
        await refused(checking, forged)
    assert (await checking.identity(issuer.token())).name == "alice"


async def test_an_algorithm_that_is_not_allowed_does_not_count_although_the_key_is_right(issuer):
    assert "alg" in await refused(verifier(issuer, algorithms=["RS256"]), issuer.token())


async def test_a_key_in_the_head_of_a_token_is_not_looked_at(issuer):
    other = double.Issuer()
    other.url = issuer.url
    (public,) = other.published()
    head = {"kid": "first", "jwk": public, "jku": f"{issuer.url}/theirs", "x5u": f"{issuer.url}/theirs"}
    assert "signature" in await refused(verifier(issuer), other.token(head))
    assert issuer.asked == [double.DISCOVERY, "/keys"]


async def test_a_provider_that_rotates_is_followed_and_its_old_key_counts_no_more(issuer):
    clock = [0.0]
    checking = IssuerKeys(Issuer(issuer=issuer.url), clock=lambda: clock[0])
    assert await checking.key("first")
    issuer.rotate("second")
    assert await checking.key("second") is None  # looked up a moment ago
    clock[0] += jwks.BETWEEN
    assert await checking.key("second")
    assert await checking.key("first") is None


async def test_strangers_cannot_make_us_ask_the_provider_again_and_again(issuer):
    clock = [0.0]
    checking = IssuerKeys(Issuer(issuer=issuer.url, jwks=f"{issuer.url}/keys"), clock=lambda: clock[0])
    for number in range(50):
        assert await checking.key(f"guess{number}") is None
        clock[0] += jwks.BETWEEN / 10
    assert len(issuer.asked) == 5


async def test_keys_stay_in_force_while_the_provider_is_away_but_not_for_ever(issuer):
    clock = [0.0]
    checking = IssuerKeys(Issuer(issuer=issuer.url, jwks=f"{issuer.url}/keys"), clock=lambda: clock[0])
    assert await checking.key("first")
    issuer.answers["/keys"] = 503
    clock[0] = jwks.STALE - 1
    with capture_logs() as lines:
        assert await checking.key("first")
    assert lines[0]["log_level"] == "warning"
    clock[0] = jwks.STALE + 1
    with pytest.raises(ServerUnavailable) as caught:
        await checking.key("first")
    assert caught.value.retry_after == jwks.BETWEEN
    issuer.answers.clear()
    clock[0] += jwks.BETWEEN
    assert await checking.key("first")


async def test_keys_are_had_from_whom_the_configured_authority_vouches_for_alone(tmp_path):
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    with double.running(ours.issue("idp", addresses=["127.0.0.1"])) as issuer:
        assert (await verifier(issuer, ca=ours.ca).identity(issuer.token())).name == "alice"
        with pytest.raises(ServerUnavailable):
            await verifier(issuer, ca=theirs.ca).identity(issuer.token())


ODD = {
    "down": {double.DISCOVERY: 500},
    "another's discovery": {double.DISCOVERY: {"issuer": "https://evil.example", "jwks_uri": "https://evil.example/"}},
    "keys in the clear elsewhere": None,
    "no address of keys": None,
    "leads elsewhere": {"/keys": 302},
    "no keys": {"/keys": {"keys": 7}},
    "no object": {"/keys": [1]},
    "far too much": {"/keys": {"keys": [], "x": "x" * 2_000_000}},
    "breaks off": {"/keys": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"},
    "is none of the web": {"/keys": b"220 ready\r\n"},
    "goes too deep": {"/keys": b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 500_000},
}


@pytest.mark.parametrize("odd", ODD)
async def test_a_provider_that_answers_oddly_is_one_that_does_not_answer(issuer, odd):
    made = {"issuer": issuer.url, "jwks_uri": "http://192.0.2.1/keys"}
    issuer.answers |= ODD[odd] or {double.DISCOVERY: made if "clear" in odd else {"issuer": issuer.url}}
    with pytest.raises(ServerUnavailable, match=issuer.url):
        await verifier(issuer).identity(issuer.token())


@given(token=st.text(max_size=60) | st.lists(st.binary(max_size=30).map(encoded), max_size=4).map(".".join))
async def test_whatever_is_no_token_is_refused_as_such(own, token):
    await refused(verifier(own=own), token)


@pytest.mark.parametrize("claims", ["[" * 100_000, '{"iss":' * 5000, "[]", '"x"', "\ud800"])
async def test_claims_that_are_none_are_refused(own, claims):
    head = encoded(b'{"alg":"EdDSA"}')
    await refused(verifier(own=own), f"{head}.{encoded(claims.encode('utf-8', 'surrogatepass'))}.{encoded(b'x')}")


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuers": []},
        {"issuers": [{"issuer": "http://idp.example"}]},
        {"issuers": [{"issuer": "https://a@idp.example"}]},
        {"issuers": [{"issuer": "https://a.example"}, {"issuer": "https://b.example"}]},
        {"issuers": [{"issuer": "https://a.example", "prefix": "x"}, {"issuer": "https://b.example", "prefix": "xy"}]},
        {"issuers": [{"issuer": "https://a.example", "prefix": "x"}, {"issuer": "https://a.example", "prefix": "y"}]},
        {"keys": {"k": "/k"}, "issuers": [{"issuer": "https://a.example"}]},
        {"issuers": [{"issuer": "https://a.example", "algorithms": ["HS256"]}]},
        {"issuers": [{"issuer": "https://a.example", "algorithms": ["none"]}]},
        {"keys": {"k": "relative"}},
    ],
)
def test_settings_by_which_one_could_pass_for_another_are_refused(wrong):
    with pytest.raises(ValueError, match=r"\w"):
        Tokens.model_validate(wrong)

"""What a store that does not answer is called: by its address, and by nothing that could be a secret."""

from __future__ import annotations

import ssl

import pytest
from botocore import exceptions as sdk

from planes.errors import Refused, Unavailable
from planes.s3_errors import Asked, Place, translate

AMAZON = "https://b.s3.us-east-1.amazonaws.com/key?X-Amz-Signature=abc"


def place(endpoint: str) -> Place:
    return Place("cloud", "b", "access_key (AK)", "secret_key (SK)", "session_token (none)", endpoint)


@pytest.mark.parametrize(
    ("endpoint", "named"),
    [
        ("http://127.0.0.1:9", " at http://127.0.0.1:9 "),
        ("https://me:hidden@store.example:9000/deep?hidden", " at https://store.example:9000 "),
        ("", " at https://b.s3.us-east-1.amazonaws.com "),
    ],
)
@pytest.mark.parametrize(
    "failure",
    [
        sdk.EndpointConnectionError(endpoint_url=AMAZON),
        sdk.ReadTimeoutError(endpoint_url=AMAZON),
        sdk.HTTPClientError(error=sdk.ConnectTimeoutError(endpoint_url=AMAZON)),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_store_that_does_not_answer_is_named(failure, endpoint, named):
    error = translate(failure, Asked("read", "key"), place(endpoint))
    assert isinstance(error, Unavailable)
    assert named in error.message
    for secret in ("hidden", "abc"):
        assert secret not in error.message


def test_a_bare_connection_names_the_configured_address():
    error = translate(ConnectionRefusedError(), Asked("read", "key"), place("http://127.0.0.1:9"))
    assert "http://127.0.0.1:9" in error.message
    assert " at " not in translate(ConnectionRefusedError(), Asked("read", "key"), place("")).message


def test_a_certificate_that_is_not_trusted_says_whose():
    error = translate(ssl.SSLCertVerificationError(), Asked("read", "key"), place("https://store.example"))
    assert isinstance(error, Refused)
    assert "https://store.example" in error.message
    assert "`ca`" in error.message

"""Specs as plain data: the store gives back what it was given, so a repeated request is known by its spec."""

import json

import pytest

from fileserver.formats.csv import Csv
from fileserver.transfer.spec import (
    Copy,
    Despray,
    Ingest,
    Location,
    Spec,
    Spray,
    Sync,
    spec_from_json,
    spec_to_json,
)

HERE = Location("data", "a")
VERBS = (
    Spray((HERE, HERE), "a::b", "", 3, 0, Csv((b",", b"\xff"), (b"\n",), (b'"',), ())),
    Despray("a::b", HERE),
    Despray("", HERE, (HERE, HERE)),
    Copy("a::b", "a::c", "data"),
    Sync(HERE, HERE, ("*.csv",), (), HERE),
    Ingest((HERE,), "/home/x/"),
)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: type(verb).__name__)
def test_a_spec_is_the_same_after_it_was_stored(verb):
    spec = Spec(verb, overwrite=True)
    data = spec_to_json(spec)
    assert json.loads(json.dumps(data)) == data
    assert spec_from_json(data) == spec

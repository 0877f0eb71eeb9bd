import pytest

from fileserver.errors import InvalidSpec
from fileserver.services.shapes import spec_message, spec_of
from fileserver.transfer.spec import Ingest, Location, Spec, spec_from_json, spec_to_json
from fileserver.v1 import transfer_pb2 as pb

WHOLE = Ingest(
    (Location("data", "in/"), Location("cloud", "")),
    "/home/alice/in",
    "main",
    "rest",
    "full",
    no_folders=True,
    public_read=True,
    aggregate="time",
    skip_bad=True,
)


@pytest.mark.parametrize("verb", [WHOLE, Ingest((Location("data", "a.h5"),), "/home/alice/a.h5")])
def test_an_ingest_goes_over_the_wire_and_into_the_store_unchanged(verb):
    spec = Spec(verb, overwrite=True)
    assert spec_of(spec_message(spec)) == spec
    assert spec_from_json(spec_to_json(spec)) == spec


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (pb.Ingest(domain="hdf5://home/a/"), "sources"),
        (pb.Ingest(domain="/home/a/"), "domain"),
        (pb.Ingest(domain="hdf5://home"), "domain"),
        (pb.Ingest(domain="hdf5://"), "domain"),
        (pb.Ingest(domain="hdf5://home/a/../b"), "domain"),
        (pb.Ingest(domain="hdf5://home/a/", sources=[pb.Location(key="x")]), "sources[0]"),
        (pb.Ingest(domain="hdf5://home/a/", aggregate=pb.Aggregate()), "aggregate"),
        (pb.Ingest(domain="hdf5://home/a/", aggregate=pb.Aggregate(dimension="time")), "domain"),
    ],
)
def test_what_is_wrong_with_an_ingest_is_told_by_field(asked, field):
    with pytest.raises(InvalidSpec) as caught:
        spec_of(pb.TransferSpec(ingest=asked))
    assert f"spec.ingest.{field}" in caught.value.violations

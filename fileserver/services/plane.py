"""PlaneService: the configured planes as seen by callers. Never shows a secret or where one is found."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import ValidationError

from fileserver.auth import allow, caller
from fileserver.calls import Context
from fileserver.configured import Configured
from fileserver.errors import InvalidSpec
from fileserver.hosts import not_here
from fileserver.log import strike
from fileserver.transfer.sweep import Sweep
from fileserver.v1 import plane_pb2, plane_pb2_grpc
from planes.azure_settings import AzureSettings
from planes.errors import Refused
from planes.left_out import LeftOut
from planes.limited import LimitedPlane
from planes.opening import open_plane
from planes.plane import Info
from planes.posix import PosixSettings
from planes.retrying import Patience
from planes.s3_settings import S3Settings
from planes.settings import PlaneLimits, PlaneSettings
from planes.wrapped import find

PAGE = 100
LARGEST_PAGE = 1000

_PATIENCE: Final = Patience(attempts=2, seconds=2.0, throttled=10.0)


class PlaneServicer(plane_pb2_grpc.PlaneServiceServicer):
    """Planes on the wire.

    Args:
        planes: the configured planes.
        sweep: what ends open uploads of ours.
    """

    def __init__(self, planes: Configured, sweep: Sweep) -> None:
        self._planes = planes
        self._sweep = sweep

    async def ListPlanes(self, request: plane_pb2.ListPlanesRequest, context: Context) -> plane_pb2.ListPlanesResponse:
        """All planes in order of the configuration."""
        return plane_pb2.ListPlanesResponse(
            planes=[self._describe(name) for name in self._planes.names if caller().sees_plane(name)],
            default_plane=self._planes.default if caller().sees_plane(self._planes.default) else "",
        )

    async def GetPlane(self, request: plane_pb2.GetPlaneRequest, context: Context) -> plane_pb2.GetPlaneResponse:
        """One plane; raises PlaneNotFound."""
        return plane_pb2.GetPlaneResponse(plane=self._describe(request.name))

    async def CheckPlane(self, request: plane_pb2.CheckPlaneRequest, context: Context) -> plane_pb2.CheckPlaneResponse:
        """Try the contract on a plane; raises PlaneNotFound, and nothing of what the plane raises.

        The plane is opened anew for it, with little patience: who asks whether it works does not want to wait until
        it does.
        """
        from planes.check import Checked, CheckResult, check  # noqa: PLC0415 - asked for by hand, now and then

        settings = self._planes.settings(request.name)
        if hosts := self._planes.hosts(request.name):
            absent = await self._planes.absent(request.name)
            agents = [_agent_of(host, request.name, absent) for host in hosts]
            return plane_pb2.CheckPlaneResponse(results=agents, ok=not absent)
        try:
            # As a plane that no outsider looks into: empty folders of the check go with it.
            plane = open_plane(request.name, settings.model_copy(update={"category": "data"}), _PATIENCE)
        except Refused as error:
            found = Checked((CheckResult("open", ok=False, detail=error.message, reason=error.reason),))
        else:
            try:
                found = await check(plane)
            finally:
                await plane.aclose()
        return plane_pb2.CheckPlaneResponse(
            results=[
                plane_pb2.CheckResult(check=r.check, ok=r.ok, detail=r.detail, reason=r.reason) for r in found.results
            ],
            ok=all(r.ok for r in found.results),
            facts=[plane_pb2.PlaneFact(fact=f.fact, found=f.found, costs=f.costs) for f in found.facts],
        )

    async def UpdateLimits(
        self, request: plane_pb2.UpdateLimitsRequest, context: Context
    ) -> plane_pb2.UpdateLimitsResponse:
        """Other limits until this server ends; those that are not set stay.

        Raises:
            InvalidSpec: a limit out of its range.
            PlaneNotFound: no such plane is configured.
            Refused: its configuration cannot work.
        """
        self._planes.settings(request.name)
        self._planes.refuse_hosts((request.name,), "its limits are those of their agents")
        limited = find(self._planes.plane(request.name), LimitedPlane)
        assert limited is not None, "every configured plane is decorated"
        given = {field.name: value for field, value in request.ListFields() if field.name != "name"}
        try:
            limits = PlaneLimits.model_validate(limited.pace.limits.model_dump() | given)
        except ValidationError as error:
            wrong = {str(each["loc"][0]): each["msg"] for each in error.errors(include_url=False)}
            msg = f"the limits of plane {request.name} can't be changed like this"
            raise InvalidSpec(msg, wrong) from None
        limited.change(limits)
        return plane_pb2.UpdateLimitsResponse(plane=self._describe(request.name))

    async def SweepPlane(self, request: plane_pb2.SweepPlaneRequest, context: Context) -> plane_pb2.SweepPlaneResponse:
        """End open uploads of transfers that have ended; raises PlaneNotFound, and what the plane raises."""
        self._planes.settings(request.name)
        swept = await self._sweep.plane(request.name, validate_only=request.validate_only)
        uploads = (plane_pb2.SweptUpload(key=s.key, transfer=f"transfers/{s.transfer}", left=s.left) for s in swept)
        return plane_pb2.SweepPlaneResponse(uploads=uploads)

    async def ListObjects(
        self, request: plane_pb2.ListObjectsRequest, context: Context
    ) -> plane_pb2.ListObjectsResponse:
        """One page of objects; the token of the next page is the last key of this one.

        Raises:
            InvalidSpec, PlaneNotFound, CallerDenied
        """
        if not 0 <= request.page_size <= LARGEST_PAGE:
            what = f"is 0 (which means {PAGE}) to {LARGEST_PAGE}"
            msg = f"page_size {what}"
            raise InvalidSpec(msg, {"page_size": what})
        allow(request.plane)
        size = request.page_size or PAGE
        plane = self._planes.plane(request.plane)
        found, left = list[Info](), list[LeftOut]()
        token = ""
        async for info in plane.list(request.prefix, request.page_token, left.append):
            if len(found) == size:
                token = found[-1].key
                break
            found.append(info)
        odd = (plane_pb2.LeftOut(name=o.name, why=o.why, has_data=o.has_data) for o in left[:LARGEST_PAGE])
        return plane_pb2.ListObjectsResponse(objects=map(_object, found), next_page_token=token, left_out=odd)

    def _describe(self, name: str) -> plane_pb2.Plane:
        settings = self._planes.settings(name)
        checksums: list[str] = []
        limits, now, wait = settings.limits, settings.limits.requests, Duration()
        with suppress(Refused):  # its secret is missing, say: the plane is listed all the same, CheckPlane tells why
            plane = self._planes.plane(name)
            checksums = sorted(plane.capabilities.checksums)
            if limited := find(plane, LimitedPlane):
                limits, now = limited.pace.limits, limited.pace.requests
                wait.FromMilliseconds(round(1000 * limited.pace.waits))
        return plane_pb2.Plane(
            name=name,
            type=settings.type,
            category=settings.category,
            location=_location(settings) if caller().owner_of is None else "",
            default_parts=settings.default_parts,
            requests=limits.requests,
            bytes_per_second=limits.bytes_per_second,
            requests_now=now,
            wait=wait,
            checksums=checksums,
            native_copy=True,  # every provider that we have
        )


def _agent_of(host: str, plane: str, absent: Sequence[str]) -> plane_pb2.CheckResult:
    """Whether a host of a plane can be asked."""
    is_here = host not in absent
    detail = "connected" if is_here else not_here(host, plane)
    return plane_pb2.CheckResult(check=f"agent of {host}", ok=is_here, detail=detail, reason="")


def _location(settings: PlaneSettings) -> str:
    """Where a plane is, for people: without keys, and without what an address might hold of them."""
    if isinstance(settings, PosixSettings):
        return settings.location
    if isinstance(settings, S3Settings):
        at = f" at {strike(settings.endpoint)}" if settings.endpoint else ""
        return f"s3://{settings.bucket}/{settings.prefix}{at}"
    if isinstance(settings, AzureSettings):
        at = f" at {strike(settings.account_url)}" if settings.account_url else ""
        return f"az://{settings.container}/{settings.prefix}{at}"
    return "memory of this process"


def _object(info: Info) -> plane_pb2.Object:
    written = Timestamp()
    written.FromDatetime(info.modified)
    return plane_pb2.Object(key=info.key, size=info.size, modify_time=written, version=info.version)

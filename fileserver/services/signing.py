"""Requests to stores that are signed for the holders of grants; see `granted`, which says what a grant is good for."""

from __future__ import annotations

from fileserver.transfer.described import described
from fileserver.transfer.execute import upload_id
from fileserver.transfer.record import PartRow, Plan
from fileserver.transfer.survey import Planes
from fileserver.v1 import data_pb2
from planes.direct import Address, Signing, Whole, signing
from planes.errors import Unsupported
from planes.plane import Extent


async def signed_write(
    planes: Planes, plan: Plan, transfer: str, row: PartRow, number: int, size: int, crc64nvme: int
) -> Address:
    """A request that stores step `number` of a part, or (0) the part whole.

    Raises:
        Unsupported: nodes do not reach the plane, or its provider cannot sign for that alone.
    """
    signs, plane = _signs(planes, plan.plane), planes.plane(plan.plane)
    if number:
        assert row.token
        return await signs.step(row.token, number, size, crc64nvme)
    said = await described(planes.plane, plane, row.part)
    name = upload_id(transfer, row.part.number)
    whole = Whole(row.part.key, name, plan.overwrite, said.content_type, said.metadata)
    return await signs.put(whole, size, crc64nvme)


async def signed_read(planes: Planes, request: data_pb2.ReadRequest) -> Address:
    """A request that reads bytes of an object.

    Raises:
        Unsupported: as `signed_write`.
    """
    end = request.offset + request.length
    return await _signs(planes, request.plane).read(Extent(request.key, request.version, request.offset, end))


def _signs(planes: Planes, name: str) -> Signing:
    found = signing(planes.plane(name))
    if found is None:
        msg = f"{name} is not reached by other machines: its configuration does not say `direct: true`"
        raise Unsupported(msg, plane=name)
    return found

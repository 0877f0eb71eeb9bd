"""Files that can be joined along a dimension, before a real HSDS: NREL's model in small."""

import h5py
import numpy as np

from fileserver.transfer import ingest_rows
from tests.fileserver.transfer.ingest_world import World


class Months(World):
    """NREL's model in small: files of a few rows, in chunks that do not fit into them."""

    def month(self, number, rows=5, change=None, *, few=False):
        """One file; `change` does something to it, and `few` leaves most datasets away."""
        noise = np.random.default_rng(number)
        with h5py.File(self.data / f"m{number}.h5", "w") as file:
            time = file.create_dataset("time", data=np.arange(rows) + 100 * number)
            time.make_scale("time")
            wind = file.create_dataset(
                "wind", (rows, 8, 6), "<f4", chunks=(2, 8, 6), maxshape=(None, 8, 6), shuffle=True, compression=1
            )
            wind[...] = noise.random(wind.shape)
            wind.dims[0].attach_scale(time)
            file["height"] = np.arange(3.0)
            file.attrs["title"] = "model"
            if few:
                return
            names = file.create_dataset("names", data=[f"{number}/{i}" * i for i in range(rows)])
            names.dims[0].label = "time"
            side = file.create_dataset("side", data=noise.integers(0, 99, (3, rows)), chunks=(2, 2), fletcher32=True)
            side.dims[1].attach_scale(time)
            file.create_dataset("late", (rows, 4), "<i4", chunks=(2, 4), fillvalue=7).dims[0].attach_scale(time)
            to = file.create_dataset("to", data=[file["height"].ref] * rows, dtype=h5py.ref_dtype, chunks=(2,))
            to.dims[0].attach_scale(time)
            if change:
                change(file)

    async def join(self, transfer, *sources, overwrite=False, **more):
        """Begin to join files."""
        asked = {"aggregate": "time", "verify": "full", "target": "main"} | more
        await self.begin(transfer, *(sources or ("m*.h5",)), overwrite=overwrite, **asked)

    def whole(self, *numbers):
        """What the domain holds against the files; the lengths of both along the dimension."""
        files = [h5py.File(self.data / f"m{n}.h5", "r") for n in numbers]
        with self.open() as domain:
            for name in {"time", "wind", "names", "side", "late"} & set(files[0]):
                joined = np.concatenate([file[name][()] for file in files], axis=int(name == "side"))
                assert np.array_equal(domain[name][()], joined), name
            if "to" in files[0]:
                assert {domain[each].id.id for each in domain["to"][()]} == {domain["height"].id.id}
                assert domain["to"].shape == domain["time"].shape
            assert domain["wind"].maxshape == (None, 8, 6)
            assert domain["wind"].dims[0].keys() == ["time"]
            assert domain["height"][()].tolist() == [0.0, 1.0, 2.0]
            assert domain.attrs["title"] == "model"
            return domain["time"].shape[0]

    def extent(self):
        """Elements along the dimension that readers see."""
        with self.open() as domain:
            return domain["time"].shape[0]

    async def told(self, transfer, number):
        found = await self.store.read(lambda c: ingest_rows.told(c, transfer, number, 0))
        return {each.path: (each.result, each.route, each.reason) for each in found}


def of_another_type(file):
    file["wind"].dims[0].detach_scale(file["time"])
    del file["wind"]
    file.create_dataset("wind", data=np.zeros((5, 8, 6))).dims[0].attach_scale(file["time"])


def without_wind(file):
    del file["wind"]


def damage(path):
    """Make a chunk of a file unreadable."""
    with h5py.File(path) as file:
        info = file["wind"].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(info.byte_offset)
        raw.write(b"\xff" * info.size)

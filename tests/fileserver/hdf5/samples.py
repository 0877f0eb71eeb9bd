"""One small HDF5 file for everything that a load must get right: what objects, types and values there are.

The table is `SAMPLES`; how data can lie in a file is in `samples_storage`.
"""

from typing import Any

import h5py
import numpy as np
from h5py import h5r, h5s, h5t

from tests.fileserver.hdf5.sampling import chunked_plist, low, sample

NESTED = np.dtype([("a", "i4"), ("in", [("x", "f8"), ("y", ">u2"), ("deep", [("k", "i1", (2, 3))])]), ("s", "S5")])


@sample()
def numbers(file: h5py.File) -> None:
    noise = np.random.default_rng(4711)  # its own: the same file whichever tests ran before
    for order in "<>":
        for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"):
            name = f"{'le' if order == '<' else 'be'}_{kind}"
            values = (noise.random((7, 5)) * 100).astype(order + kind)
            file.create_dataset(name, data=values)
            file.create_dataset(f"{name}_c", data=values, chunks=(3, 2), compression="gzip", shuffle=True)
    file["u64_max"] = np.array([2**64 - 1, 0, 2**63], "u8")
    file["special"] = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324])
    file["complex"] = np.array([1 + 2j, 3 - 4j], "c16")


@sample()
def compounds(file: h5py.File) -> None:
    rows = np.zeros(9, NESTED)
    rows["a"] = np.arange(9)
    rows["in"]["x"] = np.arange(9) / 7
    rows["in"]["y"] = 1000 + np.arange(9)
    rows["in"]["deep"]["k"] = np.arange(54).reshape(9, 2, 3)
    rows["s"] = b"abc"
    file["contiguous"] = rows
    file.create_dataset("chunked", data=rows, chunks=(4,), compression="gzip", maxshape=(None,))
    padded = np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [0, 8], "itemsize": 24})
    values = np.zeros(6, padded)
    values["a"], values["b"] = np.arange(6), np.arange(6) / 3
    file.create_dataset("padded", data=values, chunks=(4,), compression="gzip")
    file.create_dataset("padded_contiguous", data=values)
    file["single"] = np.array([(1,), (2,)], [("only", "i4")])


@sample()
def arrays(file: h5py.File) -> None:
    file.create_dataset("plain", data=np.arange(24, dtype="i4").reshape(4, 2, 3), dtype="i4")
    for name, options in (("contiguous", {}), ("chunked", {"chunks": (2,), "compression": "gzip"})):
        made = file.create_dataset(name, (4,), np.dtype("(2,3)i4"), **options)
        made[...] = np.arange(24).reshape(4, 2, 3)
    made = file.create_dataset("strings", (2,), np.dtype("(2,)S3"))
    made[...] = [[b"a", b"bcd"], [b"", b"xy"]]


@sample(mapped=("/bits", "/bits_contiguous"))
def enums_bools_opaque_bits(file: h5py.File) -> None:
    colour = h5py.enum_dtype({"RED": 0, "GREEN": 1, "BLUE": 42}, basetype="i2")
    file.create_dataset("enum", data=np.array([0, 1, 42], "i2"), dtype=colour)
    file.create_dataset("enum_c", data=np.array([0, 1, 42], "i2"), dtype=colour, chunks=(2,), compression="gzip")
    file["bool"] = np.array([[True, False], [False, True]])
    file["opaque"] = np.array([b"\x00\xff\x01\x00", b"abcd"], "V4")
    kind = h5t.create(h5t.OPAQUE, 6)
    kind.set_tag(b"a tag")
    made = low(file, "tagged", kind, (2,))
    made.write(h5s.ALL, h5s.ALL, np.array([b"123456", b"\x00\x00\x00\x00\x00\x00"], "V6"), kind)
    for name, plist in (("bits", chunked_plist((2,), level=3)), ("bits_contiguous", None)):
        made = low(file, name, h5t.STD_B16LE, (3,), plist)
        made.write(h5s.ALL, h5s.ALL, np.array([1, 2, 0xFFFF], "u2"), h5t.STD_B16LE)


@sample()
def vlens(file: h5py.File) -> None:
    ints = file.create_dataset("ints", (4,), h5py.vlen_dtype("i4"))
    ints[0], ints[2], ints[3] = [1, 2, 3], [], [9]
    big = file.create_dataset("big_endian", (2,), h5py.vlen_dtype(">f8"), chunks=(1,), compression="gzip")
    big[0], big[1] = [0.5, 1.5], [2.5]
    enum = h5py.enum_dtype({"NO": 0, "YES": 1}, basetype="i1")
    made = file.create_dataset("enums", (2,), h5py.vlen_dtype(enum))
    made[0], made[1] = [0, 1], [1]
    pair = np.dtype([("a", "i4"), ("b", "f4")])
    made = file.create_dataset("compounds", (2,), h5py.vlen_dtype(pair))
    made[0] = np.array([(1, 2.0), (3, 4.0)], pair)
    made[1] = np.array([], pair)
    mixed = np.dtype([("n", "i4"), ("text", h5py.string_dtype()), ("data", h5py.vlen_dtype("i2"))])
    made = file.create_dataset("in_compound", (2,), mixed)
    made[0] = (1, "one", np.array([1, 2], "i2"))
    made[1] = (2, "zwei", np.array([], "i2"))
    fixed = file.create_dataset("fixed_strings", (1,), h5py.vlen_dtype("S3"))
    fixed[0] = np.array([b"a", b"bcd"], "S3")
    grid = file.create_dataset("grid", (5, 3), h5py.vlen_dtype("u1"), chunks=(2, 2))
    for i in range(5):
        for j in range(3):
            grid[i, j] = np.arange(i * j, dtype="u1")


@sample(refused=("/nested", "/of_strings"))
def nested_vlens(file: h5py.File) -> None:
    inner = h5t.vlen_create(h5t.STD_I32LE)
    low(file, "nested", h5t.vlen_create(inner), (2,))
    text = h5t.C_S1.copy()
    text.set_size(h5t.VARIABLE)
    low(file, "of_strings", h5t.vlen_create(text), (2,))
    file["beside"] = np.arange(3)


@sample()
def strings(file: h5py.File) -> None:
    words = ["plain", "", "ümläut", "日本語"]
    file.create_dataset("var_utf8", data=words, dtype=h5py.string_dtype())
    file.create_dataset("var_ascii", data=[b"a", b"bc", b""], dtype=h5py.string_dtype("ascii"))
    utf8 = h5py.string_dtype("utf-8", 9)
    file.create_dataset("fixed_utf8", data=np.array([w.encode() for w in words], utf8))
    file.create_dataset("fixed_ascii", data=np.array([b"abc", b"de"], "S3"))
    file.create_dataset("chunked", data=words, dtype=h5py.string_dtype(), chunks=(3,), compression="gzip")
    file.create_dataset("scalar", data="one")
    for pad, name in ((h5t.STR_NULLTERM, "nullterm"), (h5t.STR_SPACEPAD, "spacepad")):
        kind = h5t.C_S1.copy()
        kind.set_size(6)
        kind.set_strpad(pad)
        made = low(file, name, kind, (2,))
        made.write(h5s.ALL, h5s.ALL, np.array([b"abc", b"defg "], "S6"), kind)


@sample()
def references(file: h5py.File) -> None:
    group, target = file.create_group("group"), file.create_dataset("target", data=np.arange(60).reshape(6, 10))
    file["type"] = np.dtype("i4")
    refs = file.create_dataset("objects", (4,), h5py.ref_dtype)
    refs[0], refs[1], refs[2] = group.ref, target.ref, file["type"].ref
    made = file.create_dataset("in_compound", (1,), np.dtype([("to", h5py.ref_dtype), ("n", "i4")]))
    made[0] = (target.ref, 7)
    regions = file.create_dataset("regions", (4,), h5py.regionref_dtype)
    regions[0] = target.regionref[1:3, 2:5]
    regions[1] = target.regionref[...]
    regions[3] = target.regionref[::2, 1:9:3]
    target.attrs["to"] = group.ref
    target.attrs["many"] = np.array([group.ref, file.ref], h5py.ref_dtype)
    target.attrs["region"] = target.regionref[0:2, 0:3]


@sample()
def spaces(file: h5py.File) -> None:
    file["null"] = h5py.Empty("f4")
    file["scalar"] = np.float64(2.5)
    file["scalar_text"] = "skalar"
    file.create_dataset("zero", (0, 3), "i2")
    file.create_dataset("zero_chunked", (0, 3), "i2", maxshape=(None, 3), chunks=(4, 3))
    file.create_dataset("unlimited", data=np.arange(10).reshape(5, 2), maxshape=(None, None), chunks=(2, 2))
    file.create_dataset("limited", data=np.arange(10), maxshape=(50,), chunks=(4,))
    file.create_dataset("rank32", (1,) * 31 + (2,), "i4", data=np.array([1, 2]).reshape((1,) * 31 + (2,)))


@sample(mapped=("/compound",))
def fills(file: h5py.File) -> None:
    def part(name: str, kind: Any, value: Any, write: Any = None, **options: Any) -> None:
        made = file.create_dataset(name, (10,), kind, chunks=(4,), fillvalue=value, **options)
        if write is not None:
            made[4:8] = write

    part("int", "i4", 7, [1, 2, 3, 4])
    part("nan", "f8", np.nan, [1, 2, 3, 4], compression="gzip")
    part("inf", "f4", -np.inf)
    part("big", ">u2", 513)
    part("text", "S3", b"xyz", [b"a", b"b", b"c", b"d"])
    pair = np.dtype([("a", "i4"), ("b", "f8")])
    part("compound", pair, np.array((5, 0.5), pair), np.zeros(4, pair))
    part("none", "f4", None, [1, 2, 3, 4])
    part("bool", "?", True)
    file.create_dataset("contiguous", (6,), "i4", fillvalue=9)


@sample()
def scales(file: h5py.File) -> None:
    file["x"], file["y"] = np.arange(3.0), np.arange(4.0)
    file["x"].make_scale("the x")
    file["y"].make_scale()
    data = file.create_dataset("data", data=np.arange(12).reshape(3, 4))
    data.dims[0].attach_scale(file["x"])
    data.dims[1].attach_scale(file["y"])
    data.dims[0].label = "x"


@sample()
def committed(file: h5py.File) -> None:
    file["type"] = np.dtype([("x", "i4"), ("y", "f4")])
    file["type"].attrs["about"] = "a type with an attribute"
    file.create_dataset("uses", data=np.zeros(3, file["type"].dtype), dtype=file["type"])
    file.attrs.create("uses", np.zeros(2, file["type"].dtype), dtype=file["type"])
    file["inner"] = np.dtype("f8")
    made = h5t.create(h5t.COMPOUND, 12)
    made.insert(b"f", 0, file["inner"].id)
    made.insert(b"i", 8, h5t.STD_I32LE)
    low(file, "member", made, (2,))


@sample()
def links(file: h5py.File) -> None:
    a = file.create_group("a")
    a["data"] = np.arange(4)
    file["hard"] = a["data"]
    a["self"], a["root"] = a, file["/"]
    a.create_group("b")["up"] = a
    file["soft"], file["dangling"] = h5py.SoftLink("/a/data"), h5py.SoftLink("not/there")
    file["external"] = h5py.ExternalLink("elsewhere.h5", "/some/thing")


@sample(libver="latest")
def order(file: h5py.File) -> None:
    group = file.create_group("tracked", track_order=True)
    for name in ("zebra", "apple", "mango"):
        group.create_group(name)
        group.attrs[name] = len(name)
    made = group.create_dataset("data", data=np.arange(3), track_order=True)
    for name in ("z", "a", "m"):
        made.attrs[name] = name


@sample(mapped=("/@bits",))
def attributes(file: h5py.File) -> None:
    at = file.attrs
    at["int"], at["float"], at["text"], at["bytes"] = np.int16(-3), np.float32(0.1), "ümläut", np.bytes_(b"abc")
    at["list"], at["grid"] = np.arange(5), np.arange(6.0).reshape(2, 3)
    at["words"] = np.array(["a", "bé", ""], object)
    at["fixed"] = np.array([b"x", b"yy"], "S2")
    at["null"], at["nan"], at["bool"] = h5py.Empty("f4"), np.nan, np.bool_(True)
    at["opaque"] = np.void(b"\x00\x01\xff")
    at["compound"] = np.array((1, 2.5), [("a", "i4"), ("b", ">f8")])
    at["compounds"] = np.array([(1, b"a"), (2, b"b")], [("a", "u8"), ("s", "S2")])
    at.create("array", np.arange(12).reshape(2, 2, 3), dtype=np.dtype("(2,3)i4"))
    at.create("vlen", np.array([np.arange(3), np.arange(0)], object), dtype=h5py.vlen_dtype("i4"))
    at["huge"] = np.arange(7000, dtype="f8")
    at["empty_list"], at["zero"] = np.zeros((0,), "i4"), np.zeros((0, 3), "f4")
    at["enum"] = np.array([1, 0], h5py.enum_dtype({"A": 0, "B": 1}, basetype="u1"))
    at["f2"], at["complex"] = np.float16(1.5), np.complex128(1 + 2j)
    made = h5py.h5a.create(file.id, b"bits", h5t.STD_B8LE, h5s.create_simple((2,)))
    made.write(np.array([1, 255], "u1"), h5t.STD_B8LE)


@sample(libver="latest")
def dense(file: h5py.File) -> None:
    file["data"] = np.arange(3)
    for i in range(60):
        file["data"].attrs[f"attribute {i}"] = i
    file["data"].attrs["large"] = np.arange(20000, dtype="i4")


@sample(mapped=("/@fixed", "/@variable"))
def not_utf8(file: h5py.File) -> None:
    file.attrs.create("fixed", np.array([b"\xff\xfe", b"ok"], "S2"))
    file.attrs.create("variable", b"gr\xfc\xdfe", dtype=h5py.string_dtype("ascii"))
    file["fixed"] = np.array([b"\xff\xfe", b"ok"], "S2")
    file.create_dataset("variable", data=[b"gr\xfc\xdfe", b"ok"], dtype=h5py.string_dtype("ascii"))


@sample()
def odd_names(file: h5py.File) -> None:
    for name in ("with space", "ümläut", "日本", "per%cent", "plus+&?#=", 'quo"te\\back', "..x", ".hidden", "a" * 300):
        file.create_group(name)[name] = np.arange(2)
        file.attrs[name] = name
    file["g2"] = np.dtype("i4")
    file["new\nline"] = 1
    file.attrs["sla/sh"] = 1


@sample(mapped=("/contiguous", "/chunked", "/data/@complex"))
def native_complex(file: h5py.File) -> None:
    """The type that HDF5 2.0 brought."""
    values = np.array([1 + 2j, 3, -4j])
    for name, kind, plist in (
        ("contiguous", h5t.COMPLEX_IEEE_F64LE, None),
        ("chunked", h5t.COMPLEX_IEEE_F32BE, chunked_plist((2,), level=3)),
    ):
        low(file, name, kind, (3,), plist).write(h5s.ALL, h5s.ALL, values, h5t.NATIVE_DOUBLE_COMPLEX)
    file["data"] = np.arange(3)
    made = h5py.h5a.create(file["data"].id, b"complex", h5t.COMPLEX_IEEE_F64LE, h5s.create_simple((3,)))
    made.write(values, h5t.NATIVE_DOUBLE_COMPLEX)


@sample(mapped=("/long_double", "/twelve_bits"))
def odd_numbers(file: h5py.File) -> None:
    file["long_double"] = np.array([1.5, -2.25], np.longdouble)
    kind = h5t.STD_U16LE.copy()
    kind.set_precision(12)
    low(file, "twelve_bits", kind, (3,)).write(h5s.ALL, h5s.ALL, np.array([1, 2, 4095], "u2"))


@sample()
def null_reference_type(file: h5py.File) -> None:
    """References that were never set, of both kinds."""
    file.create_dataset("objects", (2,), h5py.ref_dtype)
    file.create_dataset("regions", (2,), h5py.regionref_dtype)
    assert not h5r.Reference()

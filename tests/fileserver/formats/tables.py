"""Files whose quotes stand only around fields, and doubled inside them: what `deduce` promises to be exact for."""

import csv
import io

from hypothesis import strategies as st

from fileserver.formats.csv import BOM

contents = st.one_of(
    st.text(alphabet='a,"\n\r \tß', max_size=8),
    st.sampled_from(["", '","', '""', '"', "\r\n", ",", "\n", "  ", ',"', '",', '\n"', '"\r\n"', "x" * 30, " " * 12]),
)


@st.composite
def by_module(draw):
    made = io.StringIO()
    quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]))
    writer = csv.writer(made, quoting=quoting, lineterminator=draw(st.sampled_from(["\n", "\r\n"])))
    writer.writerows(draw(st.lists(st.lists(contents, min_size=1, max_size=4), max_size=8)))
    return made.getvalue().encode()


@st.composite
def by_hand(draw):
    blanks = st.sampled_from([b""] * 6 + [b" ", b"\t", b"  \t" * 5])
    records = []
    for _ in range(draw(st.integers(0, 8))):
        fields = []
        for _ in range(draw(st.integers(1, 4))):
            if draw(st.booleans()):
                inside = draw(contents).encode().replace(b'"', b'""')
                fields.append(draw(blanks) + b'"' + inside + b'"' + draw(blanks))
            else:
                fields.append(draw(blanks) + draw(st.sampled_from([b"", b"a", b"a b", b"1.5", b"x" * 30])))
        records.append(b",".join(fields))
    data = b"".join(record + draw(st.sampled_from([b"\n", b"\r\n"])) for record in records)
    return data if draw(st.booleans()) else data.rstrip(b"\r\n")


puzzles = st.sampled_from(
    [
        b'""\n' * 40,
        b'","' * 40 + b"\n",
        b'"\n"' * 41 + b"\n",
        b'"",""\n' * 20,
        b'","\n' * 31,
        b'"' * 100 + b"\n" + b'"' * 60,
        b'"' + b"a" * 90 + b'"\n' + b"b\n" * 30,
        b'"' + b"a\n" * 60 + b'"\n' + b"b\n" * 30,
        b'"",\n' * 30 + b'"a\n"\n' + b'"",\n' * 30,
        b'a\n"\r"\n' * 20,
        BOM + b'"a\n",b\n' * 20,
        b"a,b\n" * 20 + BOM + b'"a\n",b\n' * 20,
        b"\n" * 50,
        b"\r\n" * 50,
        b"a" * 50,
    ]
)


@st.composite
def tables(draw):
    """One such file."""
    data = draw(st.one_of(by_module(), by_hand(), puzzles))
    if draw(st.integers(0, 4)) == 0:
        data = BOM + data
    return data

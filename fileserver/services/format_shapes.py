"""How records are told apart, as the wire says it and as we do; for agents, too, which have no database."""

from __future__ import annotations

from typing import Final

from fileserver.formats import csv, fixed
from fileserver.formats.csv import Csv
from fileserver.formats.fixed import Fixed
from fileserver.transfer.spec import Format
from fileserver.v1 import transfer_pb2

_SPLITS: Final = {"deduce": 1, "exact": 2, "terminator": 3}


def format_of(message: transfer_pb2.Format, where: str, wrong: dict[str, str]) -> Format | None:
    """A format, or None where none is given; what is wrong with it is added to `wrong`."""
    kind = message.WhichOneof("kind")
    if kind is None:
        return None
    form: Format
    if kind == "fixed":
        form = Fixed(message.fixed.record_size)
        problems = fixed.problems(form)
    else:
        m, usual = message.csv, Csv()
        form = Csv(
            tuple(m.separators) or usual.separators,
            tuple(m.terminators) or usual.terminators,
            () if m.no_quote else tuple(m.quotes) or usual.quotes,
            tuple(m.escapes),
            m.max_record or usual.max_record,
            {number: name for name, number in _SPLITS.items()}.get(m.split, usual.split),
        )
        problems = csv.problems(form)
    wrong |= {f"{where}.{kind}.{field}": what for field, what in problems.items()}
    return form


def format_message(form: Format | None) -> transfer_pb2.Format | None:
    """A format for the wire."""
    if form is None:
        return None
    if isinstance(form, Fixed):
        return transfer_pb2.Format(fixed=transfer_pb2.Fixed(record_size=form.record_size))
    return transfer_pb2.Format(
        csv=transfer_pb2.Csv(
            separators=form.separators,
            terminators=form.terminators,
            quotes=form.quotes,
            escapes=form.escapes,
            no_quote=not form.quotes,
            max_record=form.max_record,
            split=transfer_pb2.Csv.Split.ValueType(_SPLITS[form.split]),
        )
    )

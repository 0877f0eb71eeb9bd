"""The meaning of csv tokens, byte by byte: slow and obviously right. Every fast way is compared with it."""

from fileserver.formats.csv import BOM, Csv, escapes


def record_starts(form: Csv, data: bytes) -> list[int]:  # noqa: C901 - one loop is what makes it obviously right
    """Where records start, the end of the data included if its last record is terminated."""
    kinds = {
        token: kind
        for kind, some in (
            ("separator", form.separators),
            ("terminator", form.terminators),
            ("quote", form.quotes),
            ("escape", escapes(form)),
        )
        for token in some
    }
    longest_first = sorted(kinds, key=len, reverse=True)

    def token_at(place):
        return next((token for token in longest_first if data.startswith(token, place)), b"")

    starts = [0]
    place, field_begins, inside = 0, True, b""
    while place < len(data):
        token = token_at(place)
        kind = kinds.get(token, "")
        place += max(1, len(token))
        if kind == "escape":
            place += max(1, len(token_at(place)))
            field_begins = False
        elif inside:
            if token == inside:
                if token_at(place) == inside:
                    place += len(inside)
                else:
                    inside = b""
        elif kind == "terminator":
            starts.append(place)
            field_begins = True
        elif kind == "separator":
            field_begins = True
        elif kind == "quote" and field_begins:
            inside, field_begins = token, False
        elif not kind and data.startswith(BOM, place - 1):
            place += len(BOM) - 1
        elif kind or data[place - 1] not in b" \t":
            field_begins = False
    return [start for start in starts if start <= len(data)]


def first_starts(form: Csv, data: bytes, targets) -> list[int]:
    """For each target the first record start at or after it, the end of the data if there is none."""
    starts = record_starts(form, data)
    return [next((start for start in starts if start >= target), len(data)) for target in targets]

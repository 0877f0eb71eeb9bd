"""The options that several commands share, each said once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, TypeAlias

import typer

from client.words import FORMATS

Plane: TypeAlias = Annotated[
    str | None, typer.Option(metavar="PLANE", help="Write the parts to this plane instead of the default one.")
]
Parts: TypeAlias = Annotated[str | None, typer.Option(metavar="N", help="Make exactly N parts.")]
PartSize: TypeAlias = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Make parts of about this size, like 256MiB, instead of a number.")
]
Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Replace the target; the old one stays readable until the new one is whole.")
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done, with every part and route, and write nothing.")
]
NoWait: TypeAlias = Annotated[
    bool, typer.Option("--no-wait", help="Return as soon as the transfer is accepted; it goes on without you.")
]
Verify: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="read", help="Read source and target again until the evidence is 'compared'."),
]
Priority: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="1-9", help="Go before others (1) or after them (9) that wait for the same plane; 5 as usual."
    ),
]
Format: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help=f"Tell records apart as {FORMATS}; names that end in .csv or .tsv need not say so.",
    ),
]
Separator: TypeAlias = Annotated[
    str | None, typer.Option(metavar="TOKENS", help="Separate fields by this instead of a comma.")
]
Quote: TypeAlias = Annotated[
    str | None, typer.Option(metavar="TOKENS", help="""Quote fields by this instead of '"'; '' if nothing quotes.""")
]
Terminator: TypeAlias = Annotated[
    str | None, typer.Option(metavar="TOKENS", help=r"End records by this instead of '\n,\r\n'.")
]
Escape: TypeAlias = Annotated[
    str | None, typer.Option(metavar="TOKENS", help="Take the token after this as data; without it nothing escapes.")
]
MaxRecord: TypeAlias = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Refuse records longer than this instead of 128KiB.")
]
Split: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="deduce|exact|terminator",
        help=(
            "Find record starts from the quotes around each split point (deduce), by a scan from the start (exact), "
            "or at any terminator, because none is inside quotes (terminator)."
        ),
    ),
]
Order: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="bytes|natural",
        help="Take what a wildcard finds in byte order of names, or with numbers as numbers (part2 before part10).",
    ),
]
Exclude: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="GLOB", help="Nothing that matches this; can be given again.")
]
Hsds: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="The HSDS server of the configuration; the first if not given.", show_default=False
    ),
]

Ended: TypeAlias = Callable[[str], None]
"""What a command does once its transfer, named to it, has ended."""

TOKENS: Final = (
    "TOKENS: one character is itself; in longer values commas separate alternatives, \\, is a comma, and "
    "\\n \\r \\t \\\\ \\xHH are understood."
)

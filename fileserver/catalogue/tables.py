"""The tables: what the file server knows for good. Columns and keys only; no statement is made here.

Times are seconds since 1970 (UTC). JSON columns hold values that are read and written whole. `transfer` is the id of
a transfer, and of the generation of files that it wrote.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

Ordered = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that sorts by its bytes in either database."""

files = Table(
    "files",
    metadata,
    Column("name", String(512).with_variant(String(512, collation="C"), "postgresql"), primary_key=True),
    Column("generation", String(64), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("format", JSON, quote=True),
    Column("evidence", String(16), nullable=False),
    Column("crc64nvme", String(16)),
    Column("part_count", Integer, nullable=False),
    Column("transfer", String(64), nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float),
)
"""Logical files; `generation` names what they hold and their sources, so that a rename moves one row."""

copies = Table(
    "copies",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("generation", String(64), nullable=False),
    Column("evidence", String(16), nullable=False),
    Column("created", Float, nullable=False),
    Index("copies_by_generation", "generation", "created"),
)
"""Every copy of a generation: the same parts once more, which `file_parts` has under the copy's id.

The one that a generation began with has its id; others that of the transfer that made them.
"""

file_parts = Table(
    "file_parts",
    metadata,
    Column("generation", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("plane", String(64), nullable=False),
    Column("key", Ordered, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("checksums", JSON, nullable=False),
    Column("owned", Boolean, nullable=False),
    Index("file_parts_by_object", "plane", "key"),
)
"""The objects of copies; `generation` is the id of a copy."""

sources = Table(
    "sources",
    metadata,
    Column("transfer", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("plane", String(64), nullable=False),
    Column("key", Ordered, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("checksums", JSON, nullable=False),
    Index("sources_by_object", "plane", "key"),
)
"""Pinned source objects of a transfer, kept as long as the transfer or a file that it made."""

transfers = Table(
    "transfers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("request_id", String(128), nullable=False, unique=True),
    Column("spec", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("wish", String(8), nullable=False, server_default=""),
    Column("run", Integer, nullable=False, server_default="1"),
    Column("plan", JSON),
    Column("progress", JSON, nullable=False),
    Column("error", JSON),
    Column("outcome", JSON),
    Column("warnings", JSON, nullable=False),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("ended", Float),
    Column("owner", String(64), nullable=False, server_default=""),
    Column("caller", String(512), nullable=False, server_default=""),
    Column("waits_for", String(96), nullable=False, server_default=""),
    Index("transfers_by_age", "created", "id"),
)
"""One row a transfer; `wish` is what was asked of it while it runs: "", "cancel" or "pause".

`owner` is the process that works on it, or did last; `caller` is who asked for it, "" for the server's own kind;
`waits_for` is the agent that was away for so long that it was paused, "" if it stands still for another reason.
"""

reservations = Table(
    "reservations",
    metadata,
    Column("target", Ordered, primary_key=True),
    Column("transfer", String(64), nullable=False),
)
"""Names and objects that a running transfer will write."""

parts = Table(
    "parts",
    metadata,
    Column("transfer", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("key", Ordered, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("pieces", JSON, nullable=False),
    Column("token", Text),
    Column("crc64nvme", String(16)),
    Column("other", String(8)),
    Column("compared", Boolean, nullable=False, server_default="0"),
    Column("version", Text, nullable=False, server_default=""),
    Column("done", Boolean, nullable=False, server_default="0"),
    Index("parts_by_state", "transfer", "done"),
)
"""The manifest of a transfer and the receipts of its parts; `done` is committed.

`token` is the upload of the part: null is not begun, "" needs none (one request writes the part). `other` is the
checksum of the plan's kind, where that is not CRC64NVME.
"""

steps = Table(
    "steps",
    metadata,
    Column("transfer", String(64), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("crc64nvme", String(16)),
    Column("etag", Text, nullable=False),
    Column("compared", Boolean, nullable=False),
    Column("other", String(8)),
    Column("quotes", BigInteger),
)
"""Receipts of stored steps: what is here is not sent again."""

segments = Table(
    "segments",
    metadata,
    Column("transfer", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("first_part", Integer, nullable=False),
    Column("last_part", Integer, nullable=False),
    Column("first_step", Integer, nullable=False),
    Column("last_step", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("done", Boolean, nullable=False),
    Column("server", String(64), nullable=False, server_default=""),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("begun", Float),
    Column("ended", Float),
)
"""Runs of whole small parts, or (one part, first_step … last_step) of a large one.

`server` is the process that took it up last, for the `tries`-th time, at `begun`; `ended` is when it was done.
"""

timelines = Table(
    "timelines",
    metadata,
    Column("transfer", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("first_part", Integer, nullable=False),
    Column("last_part", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("server", String(64), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("begun", Float, nullable=False),
    Column("ended", Float),
)
"""What became of the segments of transfers that have ended; as in `segments`, without those that nobody took up."""

garbage = Table(
    "garbage",
    metadata,
    Column("plane", String(64), primary_key=True),
    Column("key", Ordered, primary_key=True),
    Column("not_before", Float, nullable=False),
    Column("version", Text, nullable=False, server_default=""),
)
"""Objects that nobody needs any more.

Where `version` is "" they are ours. Else they are a stranger's, whom the user asked to destroy: that version alone.
"""

stale_manifests = Table(
    "stale_manifests",
    metadata,
    Column("generation", String(64), primary_key=True),
    Column("name", String(512), nullable=False),
    Column("not_before", Float, nullable=False),
)
"""Generations whose file was renamed, and whose manifest is still to be written with the new name.

Until `not_before` whoever renamed it is at it.
"""

sync_objects = Table(
    "sync_objects",
    metadata,
    Column("transfer", String(64), primary_key=True),
    Column("side", String(8), primary_key=True),
    Column("key", Ordered, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("modified", Float, nullable=False),
)
"""What a sync has listed, until it is compared; keys are relative.

`side` is "source", "target", "name" (of a list of names) or "unnamed" (in the source, with a name that is not UTF-8).
"""

sync_items = Table(
    "sync_items",
    metadata,
    Column("transfer", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("action", String(8), nullable=False),
    Column("why", String(8), nullable=False),
    Column("key", Ordered, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("token", Text),
    Column("result", String(8), nullable=False, server_default=""),
    Column("compared", Boolean, nullable=False, server_default="0"),
    Column("error", JSON(none_as_null=True)),
    Column("route", String(24), nullable=False, server_default=""),
    Column("because", Text, nullable=False, server_default=""),
    Index("sync_items_by_result", "transfer", "action", "result"),
)
"""What a sync has to do, an object a row; an empty `result` is not done yet.

`token` is an open upload, whose stored steps are in `steps`; `route` and `because` are of what was copied.
"""


ingest_files = Table(
    "ingest_files",
    metadata,
    Column("transfer", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("plane", String(64), nullable=False),
    Column("key", Ordered, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("domain", Ordered, nullable=False),
    Column("state", String(16), nullable=False, server_default="waiting"),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("begun", Float),
    Column("ended", Float),
    Column("publication", JSON(none_as_null=True)),
    Column("owed", Boolean, nullable=False, server_default="0"),
    Column("root", String(64), nullable=False, server_default=""),
    Column("objects", Integer, nullable=False, server_default="0"),
    Column("through_us", BigInteger, nullable=False, server_default="0"),
    Column("native", BigInteger, nullable=False, server_default="0"),
    Column("verified", String(16), nullable=False, server_default=""),
    Column("error", JSON(none_as_null=True)),
    Column("resumed", Integer, nullable=False, server_default="0"),
    Index("ingest_files_by_state", "transfer", "state"),
    Index("ingest_files_by_debt", "owed"),
)
"""The files of an ingest, one domain each. `state` is waiting, loading, publishing, loaded, partly or failed.

`version` is what was listed, and from the first byte on what is read. `publication` is the walk over names by which
the domain takes its place. While `owed`, something of a load that is not published may be in the server. `resumed` is
how often it was taken up again after an end of its process; one less while a run has stopped in good order.
"""

ingest_reports = Table(
    "ingest_reports",
    metadata,
    Column("transfer", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("page", Integer, primary_key=True),
    Column("objects", JSON, nullable=False),
)
"""What became of the objects of each file of an ingest, in pages."""

joined_files = Table(
    "joined_files",
    metadata,
    Column("root", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("plane", String(64), nullable=False),
    Column("key", Text, nullable=False),
    Column("version", Text, nullable=False),
)
"""The files that a domain was joined of, in their order, by the id of its root group."""

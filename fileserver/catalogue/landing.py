"""The tables of landing zones: what is watched, and what has arrived there. Columns and keys only.

Times are seconds since 1970 by the database's clock (`clock`), but `modified`, which is the plane's.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, Index, Integer, String, Table, Text

from fileserver.catalogue.tables import Ordered, metadata

watches = Table(
    "watches",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("plane", String(64), nullable=False),
    Column("prefix", Text, nullable=False),
    Column("options", JSON, nullable=False),
    Column("action", JSON, nullable=False),
    Column("state", String(8), nullable=False),
    Column("created", Float, nullable=False),
    Column("next_look", Float, nullable=False),
    Column("looker", String(64), nullable=False, server_default=""),
    Column("look_until", Float, nullable=False, server_default="0"),
    Column("looking", Float),
    Column("looked", Float),
    Column("error", JSON(none_as_null=True)),
)
"""One row a watch: "active", "stopped" by request, or "ended" by itself.

`looker` is the process that lists the prefix, until `look_until` unless it says otherwise; `looking` is when it began,
`looked` when the last look began that saw everything; `error` is why the last one did not.
"""

arrivals = Table(
    "arrivals",
    metadata,
    Column("watch", String(64), primary_key=True),
    Column("key", Ordered, primary_key=True),
    Column("version", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("modified", Float, nullable=False),
    Column("state", String(8), nullable=False),
    Column("first_seen", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("changed", Float, nullable=False),
    Column("settled", Float),
    Column("not_before", Float, nullable=False, server_default="0"),
    Column("started", Float),
    Column("ended", Float),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("batch", String(64), nullable=False, server_default=""),
    Column("taken", Text),
    Column("loaded", Text),
    Column("transfer", String(64)),
    Column("owner", String(64), nullable=False, server_default=""),
    Column("owned_until", Float, nullable=False, server_default="0"),
    Column("error", JSON(none_as_null=True)),
    Index("arrivals_by_state", "watch", "state"),
    Index("arrivals_by_batch", "batch"),
    Index("arrivals_by_transfer", "transfer"),
)
"""One row an object below a watched prefix, by its key relative to that; what states there are says `landing.states`.

`last_seen` is when the last look began that saw it, `changed` when its `version` was first seen. `taken` is the version
for which `transfer` was made, together with those of the same `batch`, which no later try has; it is the `tries`-th of
that version. `loaded` is the version that was loaded last. Until `owned_until` the process `owner` makes the transfer.
"""

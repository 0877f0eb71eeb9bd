"""Who may do what with a domain or a folder.

The server knows six permissions, of users, of groups (`g:name`) and of `default`, which is everybody who has no entry.
An entry that allows nothing forbids, whatever `default` says. The server cannot remove an entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final
from urllib.parse import quote

from fileserver.errors import InvalidSpec
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.reading import Reader

DEFAULT: Final = "default"
_LETTERS: Final = {
    "c": "create",
    "r": "read",
    "u": "update",
    "d": "delete",
    "e": "read_acl",
    "p": "update_acl",
}
"""As hsacl and hsls have them."""
_ON_THE_WIRE: Final = {"read_acl": "readACL", "update_acl": "updateACL"}


@dataclass(frozen=True, slots=True)
class Permissions:
    """What somebody may do."""

    create: bool = False
    read: bool = False
    update: bool = False
    delete: bool = False
    read_acl: bool = False
    update_acl: bool = False

    @property
    def letters(self) -> str:
        """As `crudep`, a dash for what is not allowed."""
        return "".join(letter if getattr(self, name) else "-" for letter, name in _LETTERS.items())

    @classmethod
    def of(cls, letters: str) -> Permissions:
        """The permissions of letters in any order; `-` and nothing are none. Raises InvalidSpec for other letters."""
        wrong = sorted(set(letters) - {*_LETTERS, "-"})
        if wrong:
            msg = (
                f"'{letters}' has letters that mean nothing ({', '.join(wrong)}): c create, r read, u update, "
                "d delete, e read ACLs, p update ACLs, - for none"
            )
            raise InvalidSpec(msg, {"permissions": msg})
        return cls(**{name: letter in letters for letter, name in _LETTERS.items()})


async def read(connection: Connection, path: str) -> dict[str, Permissions]:
    """All entries by user, in order of their names; raises what `Connection.call` does."""
    answer = await connection.call("GET", "/acls", domain=path)
    return {each.text("userName"): _permissions(each) for each in Reader(answer.asked, answer.json()).items("acls")}


async def write(connection: Connection, path: str, user: str, permissions: Permissions) -> None:
    """Set one entry; what is read afterwards is what is in force. Raises what `Connection.call` does."""
    if not user or user in {".", ".."} or "/" in user:
        msg = "name a user, a group as g:NAME, or default for everybody else"
        raise InvalidSpec(msg, {"user": msg})
    body = {_ON_THE_WIRE.get(name, name): allowed for name, allowed in asdict(permissions).items()}
    await connection.call("PUT", f"/acls/{quote(user, safe=':')}", domain=path, body=body)
    # The service node keeps the entries as they were before until it is asked for them.
    await connection.call("GET", "/", domain=path)


async def copy(connection: Connection, path: str, wanted: Mapping[str, Permissions]) -> None:
    """Make the entries of a domain what they were elsewhere; done twice is done once.

    Users who have an entry here and had none there get what `default` had there, since no entry can be removed.
    """
    there = await read(connection, path)
    fallback = wanted.get(DEFAULT, Permissions())
    for user in [*wanted, *(user for user in there if user not in wanted)]:
        permissions = wanted.get(user, fallback)
        if there.get(user) != permissions:
            await write(connection, path, user, permissions)


def _permissions(entry: Reader) -> Permissions:
    return Permissions(**{name: entry.flag(_ON_THE_WIRE.get(name, name)) for name in _LETTERS.values()})

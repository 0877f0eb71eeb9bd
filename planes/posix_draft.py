"""An object in the making on a file system: a hidden file beside its final name. Blocking; knows no asyncio.

The file is called `.cropduster-<upload id>`. Where the file system has extended attributes, it carries its upload id
and a random word in one, which stays with the object: an attempt that is repeated after a crash knows by the id what
it made itself, and a token knows by the word and the inode which file is its own. The inode alone would not do: its
number is given to the next file as soon as it is free.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Final

from planes.errors import AlreadyExists, Corrupt, NotFound, Refused
from planes.posix_paths import HIDDEN, TRIES, Tree, closing, opened
from planes.posix_sync import sync_directory

_ATTRIBUTE: Final = "user.cropduster.upload"
_UPLOAD_ID: Final = re.compile(r"[A-Za-z0-9-]{1,200}")


@dataclass(frozen=True, slots=True)
class Draft:
    """What a token says: where the object is to appear, and which file becomes it.

    `word` is the random word in the file's attribute, empty where there are no attributes. `made` is the topmost
    directory that was made for it, empty if all were there.
    """

    key: str
    upload_id: str
    replace: bool
    device: int
    inode: int
    word: str
    made: str

    @property
    def token(self) -> str:
        """The draft as text."""
        return json.dumps({"kind": "posix", **asdict(self)}, separators=(",", ":"))

    def is_file(self, fd: int) -> bool:
        """Whether that is our own file."""
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != (self.device, self.inode):
            return False
        return not self.word or _mark(fd) == (self.upload_id, self.word)


def from_token(token: str) -> Draft:
    """The inverse of `Draft.token`.

    Raises:
        Refused: it is a token of another kind of plane, or none at all.
    """
    try:
        record = json.loads(token)
        if record.pop("kind") == "posix":
            return Draft(**record)
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    msg = "this is not the token of an upload to a posix plane"
    raise Refused(msg)


def hidden_name(upload_id: str) -> str:
    """Name of the temporary file of an upload.

    Raises:
        Refused: the id has other characters than letters, digits and `-`, or more than 200.
    """
    if not _UPLOAD_ID.fullmatch(upload_id):
        msg = f"{upload_id!r} is not an upload id: 1 to 200 letters, digits and '-'"
        raise Refused(msg, upload_id=upload_id)
    return HIDDEN + upload_id


def begin(tree: Tree, key: str, upload_id: str, *, replace: bool) -> Draft:
    """Make the temporary file, and the directories above it; what an earlier attempt of this id left is replaced."""
    folder, _ = tree.target(key)
    name, made = hidden_name(upload_id), ""
    for attempt in range(1, TRIES + 1):
        try:
            with tree.directory(folder) as directory, tree.translating("write", key):
                fd = create(name, directory)
            with closing(fd):
                found, word = os.fstat(fd), set_mark(fd, upload_id)
            return Draft(key, upload_id, replace, found.st_dev, found.st_ino, word, made)
        except NotFound:
            if attempt == TRIES:
                raise
            made = min(filter(None, (made, tree.make_directory(folder))), key=len, default="")
    raise AssertionError


@contextmanager
def open_draft(tree: Tree, draft: Draft) -> Iterator[int]:
    """A descriptor of the temporary file for reading and writing.

    Raises:
        NotFound: it is gone: committed, aborted, or replaced by a newer attempt.
    """
    folder, _ = tree.target(draft.key)
    with tree.directory(folder) as directory:
        fd = _open_own(tree, draft, directory)
    try:
        yield fd
    finally:
        os.close(fd)


def commit(tree: Tree, draft: Draft, size: int, *, durable: bool) -> os.stat_result:
    """Give the file its name, and facts about it; a second call answers like the first.

    Raises:
        AlreadyExists: there is another file of that name, and it was not to be replaced.
        Corrupt: the file has another size.
        NotFound: the upload was aborted.
    """
    folder, name = tree.target(draft.key)
    hidden = hidden_name(draft.upload_id)
    with tree.directory(folder) as directory, tree.translating("commit", draft.key):
        try:
            fd = _open_own(tree, draft, directory)
        except NotFound:
            done = _own(name, directory, draft)
            if done is None:
                raise
        else:
            with closing(fd):
                _must_have(fd, size, tree, draft)
                if durable:
                    os.fsync(fd)
                take_name(tree, draft, directory, hidden, name)
                done = os.fstat(fd)
        if durable:
            sync_directory(directory)
    if durable and draft.made:
        _sync_above(tree, folder, draft.made)
    return done


def made(tree: Tree, draft: Draft) -> os.stat_result | None:
    """Facts about the visible file, if it is that of the draft."""
    folder, name = tree.target(draft.key)
    try:
        with tree.directory(folder) as directory, tree.translating("find", draft.key):
            return _own(name, directory, draft)
    except NotFound:
        return None


def abort(tree: Tree, draft: Draft, *, prune: bool) -> None:
    """Remove the temporary file, and directories that are empty without it; a committed object stays.

    `prune` removes empty directories up to the root, else only those that were made for this upload.
    """
    folder, _ = tree.target(draft.key)
    try:
        with tree.directory(folder) as directory, tree.translating("clean up", draft.key):
            hidden = hidden_name(draft.upload_id)
            if _own(hidden, directory, draft):
                with suppress(FileNotFoundError):
                    os.unlink(hidden, dir_fd=directory)
    except NotFound:
        pass  # the directory is gone too
    if prune or draft.made:
        tree.remove_empty(folder, "" if prune else draft.made)


def discard(tree: Tree, key: str, upload_id: str, *, prune: bool) -> None:
    """The same for an attempt whose token nobody has: by name."""
    folder, _ = tree.target(key)
    try:
        with tree.directory(folder) as directory, tree.translating("clean up", key):
            os.unlink(hidden_name(upload_id), dir_fd=directory)
    except NotFound:
        pass
    if prune:
        tree.remove_empty(folder)


def _must_have(fd: int, size: int, tree: Tree, draft: Draft) -> None:
    found = os.fstat(fd).st_size
    if found != size:
        msg = f"{tree.shown(draft.key)} would have {found} bytes instead of {size}"
        raise Corrupt(msg, key=draft.key, found=str(found), expected=str(size))


def _open_own(tree: Tree, draft: Draft, directory: int) -> int:
    with tree.translating("write", draft.key):
        try:
            fd = os.open(hidden_name(draft.upload_id), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            fd = -1
    if fd >= 0 and draft.is_file(fd):
        return fd
    if fd >= 0:
        os.close(fd)
    msg = f"upload {draft.upload_id} of {tree.shown(draft.key)} is gone: it was aborted, or begun anew"
    raise NotFound(msg, key=draft.key, upload_id=draft.upload_id)


def take_name(tree: Tree, draft: Draft, directory: int, hidden: str, name: str) -> None:
    """Make the hidden file visible, atomically; raises AlreadyExists as `commit`."""
    if draft.replace or _is_of_attempt(name, directory, draft):
        with suppress(FileNotFoundError):  # two names of one file: rename does nothing, so take the hidden one away
            os.rename(hidden, name, src_dir_fd=directory, dst_dir_fd=directory)
            os.unlink(hidden, dir_fd=directory)
        return
    try:
        os.link(hidden, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError as error:
        msg = f"{tree.shown(draft.key)} exists already; remove it, choose another name, or overwrite it on purpose"
        raise AlreadyExists(msg, plane=tree.plane, key=draft.key) from error
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        msg = (
            f"{tree.shown(draft.key)} cannot get its name: this file system has no hard links, which a write that "
            "must not overwrite needs; allow overwriting"
        )
        raise Refused(msg, plane=tree.plane, key=draft.key) from error
    os.unlink(hidden, dir_fd=directory)


def create(name: str, directory: int) -> int:
    """A new file; one that is there is removed, but held open till then, so that the new one gets another inode."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(FileExistsError):
        return os.open(name, flags, 0o666, dir_fd=directory)
    with ExitStack() as held:
        with suppress(FileNotFoundError):
            held.enter_context(opened(name, os.O_PATH | os.O_NOFOLLOW, directory))
            os.unlink(name, dir_fd=directory)
        return os.open(name, flags, 0o666, dir_fd=directory)


def set_mark(fd: int, upload_id: str) -> str:
    """Give a file the attribute of its attempt, with a random word; that, or empty where there are no attributes."""
    word = secrets.token_hex(8)
    try:
        os.setxattr(fd, _ATTRIBUTE, f"{upload_id} {word}".encode("ascii"))
    except OSError:  # no attributes here
        return ""
    return word


def _mark(fd: int) -> tuple[str, str]:
    """Upload id and word of a file, empty if it has none."""
    try:
        upload_id, _, word = os.getxattr(f"/proc/self/fd/{fd}", _ATTRIBUTE).decode("ascii").partition(" ")
    except (OSError, UnicodeDecodeError):
        return "", ""
    return upload_id, word


def _own(name: str, directory: int, draft: Draft) -> os.stat_result | None:
    """Facts about a file if it is that of the draft."""
    try:
        with opened(name, os.O_PATH | os.O_NOFOLLOW, directory) as fd:
            return os.fstat(fd) if draft.is_file(fd) else None
    except FileNotFoundError:
        return None


def _is_of_attempt(name: str, directory: int, draft: Draft) -> bool:
    """Whether a visible file was made by the same attempt, before a crash."""
    try:
        with opened(name, os.O_PATH | os.O_NOFOLLOW, directory) as fd:
            return draft.is_file(fd) or _mark(fd)[0] == draft.upload_id
    except FileNotFoundError:
        return False


def _sync_above(tree: Tree, folder: str, made: str) -> None:
    """Make the names of new directories durable: each is an entry of the one above it."""
    path = folder
    while path:
        above, _, _ = path.rpartition("/")
        with tree.directory(above) as fd, tree.translating("make durable", above):
            sync_directory(fd)
        if path == made:
            return
        path = above

"""The state directory: where it is, whether it may be used, and what lies in it. Opens no database.

`client/embedded.py` finds socket, cookie and lock by the same rules without importing this module; a house test
compares the two. The rules:

- socket: `<runtime directory>/<first 16 hex digits of SHA-256 of the real path of the state directory>.sock`
- runtime directory: `$XDG_RUNTIME_DIR` (an existing directory), else `<temporary folder>/cropduster-<uid>`, mode 0700
- lock: `<state>/lock`, held with flock(2) while the server lives; one JSON line with pid, version and digest
- cookie: `<state>/cookie`, 64 hex digits, mode 0600
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import platformdirs

from fileserver.errors import InvalidSpec, ServerBusy

MOUNTS: Final = Path("/proc/self/mountinfo")
LONGEST_SOCKET: Final = 107
"""Bytes that the kernel keeps for the path of a unix socket."""

# SQLite's write-ahead log needs memory shared between processes, and our lock needs flock: both are promises of a
# file system of this machine. On these they seem to work until two machines meet.
_NETWORK: Final = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "gpfs", "lustre", "nfs", "nfs4", "smb2", "smb3", "smbfs"),
        *("fuse.ceph", "fuse.glusterfs", "fuse.sshfs"),
    }
)

# A CLI looks whether the lock is held by taking it, shared, for a moment: that must not keep a server from starting.
_LOOKS: Final = 10
_LOOK: Final = 0.01  # seconds


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a state directory; the content of its lock file."""

    pid: int
    version: str
    digest: str
    """Of the configuration in force, `fileserver.config.digest`."""


def locate(flag: Path | None, environ: Mapping[str, str], configured: Path | None = None) -> Path:
    """The state directory: the flag, else `CROPDUSTER_STATE`, else the configuration's, else the user's data folder."""
    named = flag or environ.get("CROPDUSTER_STATE") or configured or platformdirs.user_data_dir("cropduster")
    return Path(os.path.realpath(named))


def prepare(directory: Path, mounts: str | None = None) -> None:
    """Create the state directory for its owner alone, or check the one that is there.

    Args:
        directory: a real path.
        mounts: the table of mounts as in `/proc/self/mountinfo`, the machine's own if None.

    Raises:
        InvalidSpec: it lies on a network file system, belongs to somebody else, or can't be made; or its name is no
            UTF-8, in which names travel.
    """
    try:
        str(directory).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(directory).decode("utf-8", "backslashreplace")
        msg = f"the name of the state directory {shown} is not valid UTF-8: name another with --state"
        raise InvalidSpec(msg, {"state.directory": msg}, path=shown) from None
    kind = file_system(directory, _read_mounts() if mounts is None else mounts)
    if kind in _NETWORK:
        msg = (
            f"the state directory {directory} lies on a network file system ({kind}), where a database and its lock "
            "are not safe: name a directory on a local disk with --state or CROPDUSTER_STATE"
        )
        raise InvalidSpec(msg, {"state.directory": msg}, path=str(directory), file_system=kind)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        msg = f"the state directory {directory} can't be made: {error.strerror}; name another with --state"
        raise InvalidSpec(msg, {"state.directory": msg}, path=str(directory)) from error
    if status.st_uid != os.geteuid():
        msg = f"the state directory {directory} belongs to user {status.st_uid}, not to you: name another with --state"
        raise InvalidSpec(msg, {"state.directory": msg}, path=str(directory))
    if stat.S_IMODE(status.st_mode) & 0o077:
        directory.chmod(0o700)


def file_system(path: Path, mounts: str) -> str:
    """The type of the file system that holds a path, by a table of mounts; "" if the table doesn't say."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split()
        if not separator or len(fields) < 5:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        depth = len(point.parts)
        if depth >= best and path.is_relative_to(point):  # of two mounts on one point the later hides the earlier
            best, kind = depth, after.split()[0]
    return kind


def _read_mounts() -> str:
    try:
        return MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # not Linux, or no /proc: nothing to judge by
        return ""


def socket_path(directory: Path, environ: Mapping[str, str]) -> Path:
    """Where the server of a state directory listens; makes the runtime directory if need be.

    Raises:
        InvalidSpec: the runtime directory belongs to somebody else, or the path is longer than a socket's may be.
    """
    name = hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:16] + ".sock"
    path = _runtime_directory(environ) / name
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        msg = f"the socket path {path} has more than {LONGEST_SOCKET} bytes: set XDG_RUNTIME_DIR to a shorter directory"
        raise InvalidSpec(msg, {"XDG_RUNTIME_DIR": msg}, path=str(path))
    return path


def _runtime_directory(environ: Mapping[str, str]) -> Path:
    if named := environ.get("XDG_RUNTIME_DIR"):
        if not Path(named).is_absolute() or not Path(named).is_dir():
            msg = f"XDG_RUNTIME_DIR is {named}, which is no directory: unset it, or name a directory of your own"
            raise InvalidSpec(msg, {"XDG_RUNTIME_DIR": msg}, path=named)
        return Path(named)
    directory = Path(tempfile.gettempdir()) / f"cropduster-{os.getuid()}"
    try:
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        status = directory.lstat()
    except OSError as error:
        msg = f"{directory} cannot be made ({error.strerror}): set XDG_RUNTIME_DIR to a directory of your own"
        raise InvalidSpec(msg, {"XDG_RUNTIME_DIR": msg}, path=str(directory)) from error
    # Anybody can make this name in a shared folder before we do, and would then own our socket.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        msg = (
            f"{directory} is not a directory of yours alone (user {status.st_uid}, mode "
            f"{stat.S_IMODE(status.st_mode):04o}): remove it, or set XDG_RUNTIME_DIR to a directory of your own"
        )
        raise InvalidSpec(msg, {"XDG_RUNTIME_DIR": msg}, path=str(directory))
    return directory


@contextmanager
def hold(directory: Path, version: str, digest: str) -> Iterator[None]:
    """Hold the state directory: one server at a time, until the block is left or the process ends.

    Raises:
        ServerBusy: another server holds it.
        InvalidSpec: something else is where the lock should be.
    """
    with _usable(directory / "lock"):
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _flock(descriptor, directory)
        line = json.dumps(asdict(Holder(os.getpid(), version, digest))).encode() + b"\n"
        os.pwrite(descriptor, line, 0)
        os.ftruncate(descriptor, len(line))
        yield
        os.ftruncate(descriptor, 0)  # nobody shall signal a process that is no server any more
    finally:
        os.close(descriptor)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Around what is done with something in the state directory; raises InvalidSpec where that cannot be done."""
    try:
        yield
    except OSError as error:
        msg = f"{path} cannot be used ({error.strerror}): remove it, or name another state directory with --state"
        raise InvalidSpec(msg, {"state.directory": msg}, path=str(path)) from error


def make_folder(path: Path) -> None:
    """Make a folder in the state directory, if it is not there; raises InvalidSpec where something else is."""
    with _usable(path):
        path.mkdir(exist_ok=True)


def _flock(descriptor: int, directory: Path) -> None:
    for _ in range(_LOOKS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK)
        else:
            return
    other = holder(directory)
    pid = str(other.pid) if other else "unknown"
    msg = f"another file server (process {pid}) holds the state directory {directory}: use it, or stop it first"
    raise ServerBusy(msg, path=str(directory), pid=pid)


def holder(directory: Path) -> Holder | None:
    """Who holds the state directory, or did before it was killed; None if nobody, or if the text is not ours."""
    try:
        first, _, _ = (directory / "lock").read_bytes().partition(b"\n")
        return Holder(**json.loads(first))
    except (OSError, ValueError, TypeError):
        return None


def shared_cookie(secret: str) -> str:
    """The cookie of file servers that share a secret: the same for all of them, and not the secret itself."""
    return hmac.new(secret.encode(), b"cropduster cookie", "sha256").hexdigest()


def cookie(directory: Path, given: str = "") -> str:
    """The text by which callers prove to be the server's own user; made at the first call. Only under `hold`.

    Args:
        directory: of the state.
        given: what it has to be, in 64 hex digits; "" is what is there, or a new one.

    Raises:
        InvalidSpec: something else is where the cookie should be.
    """
    path = directory / "cookie"
    try:
        text = path.read_text(encoding="ascii").strip()
        status = path.stat()
    except (OSError, UnicodeDecodeError):
        text, status = "", None
    right = text == given if given else re.fullmatch("[0-9a-f]{64}", text)
    if status and right and not stat.S_IMODE(status.st_mode) & 0o077:
        return text
    text = given or secrets.token_hex(32)
    fresh = directory / "cookie.new"
    with _usable(path):
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(text + "\n")
        fresh.replace(path)
    return text

"""The entry point: loads the program, which takes some tenths of a second, and hears Ctrl-C also while it does.

Itself it loads only what Python has loaded already.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """The console script: run the words of this process; its exit code."""
    try:
        from client.app import run  # noqa: PLC0415 - see above

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before a command had begun, or behind its end
        code = _interrupted()
    if code == 130:  # as `client.errors` has it, which may not be loaded
        # gRPC waits for ever to close a channel on which Ctrl-C hit a call that was just beginning, also when Python
        # only tidies up; the end of the process closes it.
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, AttributeError):  # one that the caller has closed is None
                continue
        os._exit(code)
    return code


def _interrupted() -> int:
    """Tell it as `client.show` would, of which half may be loaded; the exit code."""
    failure = '{"error": {"reason": "CANCELLED", "message": "interrupted", "metadata": {}}}'
    if sys.stderr is not None:
        print(failure if "--json" in sys.argv else "error: interrupted", file=sys.stderr)  # noqa: T201 - see above
    return 130


if __name__ == "__main__":
    sys.exit(main())

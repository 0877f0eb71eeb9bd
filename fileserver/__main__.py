"""`python -m fileserver serve`, and `migrate`: what `cropduster serve` and the command line's embedded server start."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Serve until asked to end; the exit code, as in the table of DESIGN section 9."""
    options = _parser().parse_args(arguments)
    # After the parser: --help and a mistyped option need none of this.
    from fileserver import config, errors, serve  # noqa: PLC0415
    from planes.errors import Error, Refused  # noqa: PLC0415

    try:
        loaded = config.load(options.config, os.environ, options.state)
        if options.verb == "migrate":
            print(f"cropduster migrate: {serve.migrate(loaded)}")  # noqa: T201  # for people
            return 0
        listen = config.check_address("--listen", options.listen, loaded) if options.listen else None
        serve.run(loaded, embedded=options.embedded, listen=listen, idle_exit=options.idle_exit)
    except Error as error:
        print(f"cropduster {options.verb}: {error.message}", file=sys.stderr)  # noqa: T201  # the log is not up yet
        codes = {errors.InvalidSpec: 2, Refused: 7}
        return next((code for kind, code in codes.items() if isinstance(error, kind)), 8 if error.retriable else 1)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fileserver", description="The Cropduster file server.")
    verbs = parser.add_subparsers(required=True, metavar="VERB", dest="verb")
    migrate = verbs.add_parser("migrate", help="make or upgrade the tables of the configured database")
    migrate.add_argument("--config", type=Path, metavar="FILE", help="YAML file (default: the user's, the system's)")
    migrate.add_argument("--state", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    serve = verbs.add_parser("serve", help="run a file server until SIGTERM or Ctrl-C")
    serve.add_argument("--config", type=Path, metavar="FILE", help="YAML file (default: the user's, the system's)")
    serve.add_argument("--state", type=Path, metavar="DIR", help="state directory, on a local disk")
    serve.add_argument("--listen", metavar="HOST:PORT", help="internal address, loopback only (default 127.0.0.1:7300)")
    serve.add_argument("--embedded", action="store_true", help="answer on the socket of the state directory alone")
    serve.add_argument("--idle-exit", type=float, metavar="SECONDS", help="end after so long without any work")
    return parser


if __name__ == "__main__":
    sys.exit(main())

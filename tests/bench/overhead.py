"""What every call costs: help, a warm and a cold server, one byte, a thousand parts.

    python -m tests.bench.overhead

Wall seconds of whole commands, five each; the goals are those of a user who waits.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.runs import CLI, RUNS, random_file, show


class User:
    """A command line with a state directory of its own and the embedded server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self._environment = {**os.environ, "CROPDUSTER_STATE": str(self.state), "XDG_CONFIG_HOME": str(folder)}

    def __call__(self, *arguments: str) -> float:
        """Seconds that a command takes."""
        start = time.monotonic()
        subprocess.run(
            [CLI, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            cwd=self.folder,
        )
        return time.monotonic() - start

    def stop(self) -> None:
        """End the embedded server."""
        try:
            pid = json.loads((self.state / "lock").read_text())["pid"]
            os.kill(pid, signal.SIGTERM)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            return
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            time.sleep(0.02)


def main() -> None:
    """Measure."""
    with tempfile.TemporaryDirectory(prefix="cropduster-bench-") as name:
        user = User(Path(name))
        random_file(user.folder / "one", 1)
        random_file(user.folder / "ten", 10 * 2**20)

        def measure(
            what: str, goal: str, work: Callable[[], float], before: Callable[[], object] = lambda: None
        ) -> None:
            values = []
            for _ in range(RUNS):
                before()
                values.append(work())
            print(f"{what}{f'   goal: {goal}' if goal else ''}")
            show("seconds", values)

        def fresh() -> None:
            user.stop()
            shutil.rmtree(user.state, ignore_errors=True)

        user("--help")
        measure("--help", "<= 0.3", lambda: user("--help"))
        measure("a call, first start of all (new state directory)", "", lambda: user("files", "list"), fresh)
        measure("a call, cold server", "<= 2.5", lambda: user("files", "list"), user.stop)
        measure("a call, warm server", "<= 0.5", lambda: user("files", "list"))
        measure(
            "spray of one byte, warm server",
            "",
            lambda: user("spray", "one", "b::one", "--format", "fixed:1", "--overwrite"),
        )
        measure(
            "spray of 10 MiB to 1,000 parts, warm server",
            "",
            lambda: user("spray", "ten", "b::ten", "--format", "fixed:1", "--parts", "1000", "--overwrite"),
        )
        user.stop()


if __name__ == "__main__":
    main()

"""What is shipped: three packages and nothing else, and a client that loads no server."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PINNED = ROOT / "tests" / "image" / "requirements.txt"


def test_the_top_level_of_the_wheel_is_exactly_ours(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT]
    subprocess.run(command, check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("cropduster-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.partition("/")[0] for name in names}
    assert {t for t in top if not t.endswith(".dist-info")} == {"client", "fileserver", "planes"}
    assert len(top) == 4
    for needed in ("py.typed", "__init__.py"):
        assert {f"{package}/{needed}" for package in ("client", "fileserver", "planes")} <= set(names)
    assert "fileserver/v1/data_pb2.pyi" in names
    assert any(n.startswith("fileserver/catalogue/migrations/versions/") for n in names)


SERVER = (
    "planes",
    "dbos",
    "sqlalchemy",
    "pydantic",
    "boto3",
    "botocore",
    "numpy",
    "alembic",
    "structlog",
    "awscrt",
    "jwt",
    "cryptography",
)


def test_help_of_the_client_loads_no_server_code():
    code = (
        "import sys; sys.argv = ['cropduster', '--help']\n"
        "from client.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('\\n'.join(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    loaded = set(done.stdout.splitlines())
    assert "client.cli" in loaded
    ours = {m for m in loaded if m.startswith("fileserver") and m != "fileserver" and not m.startswith("fileserver.v1")}
    assert ours == set()
    assert {m for m in loaded if m.partition(".")[0] in SERVER} == set()


def test_an_agent_loads_no_database_and_nothing_that_signs():
    code = "import sys, fileserver.away.program; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()}
    assert (
        loaded & {"sqlalchemy", "alembic", "dbos", "jwt", "cryptography", "boto3", "azure", "obstore", "h5py"} == set()
    )


def test_the_image_installs_what_the_distribution_asks_for():
    """Every requirement of what the image is made of is pinned, in a version that is allowed."""
    pins = dict(re.findall(r"^([a-z0-9.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}$", PINNED.read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.search(r"^EXTRAS := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split(",")
    asked = [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]
    here = {"python_version": "3.11", "platform_machine": "x86_64"}
    for each in map(Requirement, asked):
        if each.marker is None or each.marker.evaluate(here):
            assert each.specifier.contains(pins[canonicalize_name(each.name)]), each

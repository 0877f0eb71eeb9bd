"""The chart as helm renders it, once for each file of values in `render/`."""

from functools import cache
from pathlib import Path

import yaml

from tests.doubles import helm

CHART = Path(__file__).parents[2] / "helm"
HERE = Path(__file__).parent
RENDER = sorted(path.stem for path in (HERE / "render").iterdir())


@cache
def text(name, version="4", release="lake", *more):
    values = HERE / "render" / f"{name}.yaml"
    done = helm.run(version, "template", release, CHART, "--namespace", "lake", "-f", values, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def rendered(name, release="lake"):
    whole = text(name, release=release)
    found = {(each["kind"], each["metadata"]["name"]): each for each in parsed(whole) if each}
    assert len(found) == sum(line.startswith("kind: ") for line in whole.splitlines()), "a name is used twice"
    return found


def parsed(whole):
    return list(yaml.load_all(whole, yaml.CSafeLoader))  # safe, and much faster


def values(name):
    return yaml.safe_load((HERE / "render" / f"{name}.yaml").read_text()) or {}


def pods(name):
    """The templates of all pods, by kind and name of what makes them."""
    found = rendered(name)
    makers = {"DaemonSet", "Deployment", "StatefulSet", "Job"}
    made = {key: each["spec"]["template"] for key, each in found.items() if key[0] in makers}
    return made | {key: each for key, each in found.items() if key[0] == "Pod"}


def containers(spec):
    return [*spec["containers"], *spec.get("initContainers", ())]


def served(name):
    """The template of the file servers' pods."""
    return rendered(name)["Deployment", "lake-cropduster"]["spec"]["template"]


def matches(selector, labels):
    return selector.items() <= labels.items()

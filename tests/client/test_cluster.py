"""A release on Kubernetes, as its API tells at the wire: what is shown, what is scaled, and what is refused."""

from __future__ import annotations

import json

import pytest

from client import app
from tests.doubles import kubernetes_api
from tests.doubles.kubernetes_api import OPERATOR, Api

OF = {
    "app.kubernetes.io/name": "cropduster",
    "app.kubernetes.io/component": "server",
    "app.kubernetes.io/instance": "one",
}


@pytest.fixture
def api(tmp_path, monkeypatch):
    with kubernetes_api.running() as made:
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig(tmp_path)))
        deploy(made)
        made.put("pods", "another", status={"phase": "Running"}, spec={})
        yield made
    assert set(made.asked) <= OPERATOR


def deploy(api: Api, release: str = "one", replicas: int = 1, strategy: str = "RollingUpdate") -> None:
    labels = {**OF, "app.kubernetes.io/instance": release}
    spec = {"replicas": replicas, "strategy": {"type": strategy}, "selector": {}, "template": {}}
    api.put("deployments", f"{release}-cropduster", labels, spec=spec, status={"readyReplicas": replicas})
    for number in range(replicas):
        status = {
            "phase": "Running",
            "podIP": f"10.0.0.{number}",
            "startTime": "2026-01-02T03:04:05Z",
            "containerStatuses": [
                {"name": "c", "image": "i", "imageID": "", "ready": True, "restartCount": number, "started": True}
            ],
        }
        api.put("pods", f"{release}-{number}", labels, status=status, spec={"nodeName": "n1", "containers": []})


@pytest.fixture
def run(capsys):
    def run(*words):
        code = app.run(["cluster", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_status_is_that_of_the_release_and_its_pods(api, run):
    code, out, err = run("status")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "one-cropduster in data: 1 of 1 ready"
    assert out.splitlines()[-1].split() == ["one-0", "Running", "yes", "0", "n1", "10.0.0.0", "2026-01-02T03:04:05Z"]
    shown = json.loads(run("status", "--json")[1])
    assert (shown["wanted"], shown["ready"], shown["autoscaler"]) == (1, 1, None)
    assert [pod["name"] for pod in shown["pods"]] == ["one-0"]


def test_it_is_scaled_and_waited_for(api, run):
    code, _, err = run("scale", "3", "--timeout", "0s")
    assert code == 8
    assert "1 of 3 file servers are ready after 0 s" in err
    assert api.objects["deployments"]["one-cropduster"]["spec"]["replicas"] == 3
    deploy(api, replicas=3)
    code, out, _ = run("scale", "3", "--json")
    assert (code, json.loads(out)["ready"]) == (0, 3)
    assert run("scale", "2", "--no-wait")[0] == 0


def test_what_an_autoscaler_decides_is_left_to_it(api, run):
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "one-cropduster"}
    api.put("horizontalpodautoscalers", "hpa", spec={"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 9})
    assert "hpa scales it from 2 to 9" in run("status")[1]
    code, _, err = run("scale", "3")
    assert (code, "the autoscaler hpa decides how many there are, from 2 to 9" in err) == (2, True)


def test_a_server_with_a_state_of_its_own_stays_one(api, run):
    deploy(api, strategy="Recreate")
    code, _, err = run("scale", "2")
    assert (code, "database.secret" in err) == (2, True)
    assert run("scale", "0", "--no-wait")[0] == 0


def test_one_of_several_releases_must_be_named(api, run):
    deploy(api, "two", 2)
    code, _, err = run("status")
    assert (code, "several releases (one, two): name one with --release" in err) == (2, True)
    assert run("status", "--release", "two")[1].startswith("two-cropduster in data: 2 of 2 ready")
    code, _, err = run("status", "--release", "three")
    assert (code, "namespace data has no release three" in err) == (4, True)


def test_who_may_not_or_finds_no_cluster_is_told_the_way_out(api, run, tmp_path, monkeypatch):
    api.refused.add(("patch", "deployments/scale"))
    code, _, err = run("scale", "2")
    assert (code, "cannot patch" in err, "Role" in err) == (3, True, True)
    assert run("scale", "many")[0] == 2
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path, token="stranger")))
    code, _, err = run("status")
    assert (code, "does not know the caller" in err) == (3, True)
    api.url = "http://127.0.0.1:1"
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
    assert run("status")[0] == 8
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    code, _, err = run("status")
    assert (code, "set KUBECONFIG" in err) == (2, True)

"""The chart, by helm 3 and helm 4: it renders what Kubernetes and the file server take, and refuses what can't work.

`render/` has values that must render, `refuse/` values that must not; the first line of each of these says which words
the refusal must have.
"""

import importlib.util
import json
import sys
from collections import Counter
from functools import cache

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.doubles import helm
from tests.helm import operators
from tests.helm.charted import CHART, HERE, RENDER, containers, matches, parsed, pods, rendered, text, values

REFUSE = sorted(path.stem for path in (HERE / "refuse").iterdir())
KUBERNETES = ("1.30", "1.37")  # the oldest that the chart asks for, and the newest whose schemas there are


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("helm_generate", CHART / "generate.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # its models look for their types there
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(CHART)  # as Python does for a program
        spec.loader.exec_module(module)
    return module


def test_the_schema_of_the_values_is_that_of_the_models(generate):
    assert json.loads((CHART / "values.schema.json").read_text()) == generate.schema()


def test_the_defaults_that_the_models_tell_are_those_of_the_values(generate):
    told = generate.Values().model_dump(by_alias=True, exclude={"global_"})
    assert told == yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.mark.parametrize("version", helm.WHEELS)
@pytest.mark.parametrize("name", ["nothing", "cluster"])
def test_helm_finds_nothing_to_complain_of(version, name):
    done = helm.run(version, "lint", "--strict", CHART, "-f", HERE / "render" / f"{name}.yaml")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", REFUSE)
def test_values_that_cannot_work_are_refused(name):
    path = HERE / "refuse" / f"{name}.yaml"
    words = path.read_text().partition("\n")[0].removeprefix("# ")
    done = helm.run("4", "template", "lake", CHART, "-f", path)
    assert done.returncode != 0
    assert words in done.stderr
    if "specifications of the schema" in done.stderr:
        # Each helm has its own of what checks by a schema. A sentence of ours is the same in both, as templates are.
        assert words in helm.run("3", "template", "lake", CHART, "-f", path).stderr


@pytest.mark.parametrize("name", RENDER)
def test_both_helms_render_the_same(name):
    third, fourth = text(name, "3"), text(name, "4")
    assert third == fourth or parsed(third) == parsed(fourth)


@pytest.fixture(scope="module", autouse=True)
def schemas():
    """Kubernetes' schemas, read once; each is validated by a file of a megabyte."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kubernetes_validate.utils, "schema_contents", cache(kubernetes_validate.utils.schema_contents))
        yield


@pytest.mark.parametrize("name", RENDER)
def test_kubernetes_and_its_operators_know_every_field(name):
    for each in rendered(name).values():
        schema = operators.SCHEMAS.get((each["apiVersion"], each["kind"]))
        if schema:
            jsonschema.validate(each, schema)
        for version in () if schema else KUBERNETES:
            kubernetes_validate.validate(each, version, strict=True)


def test_the_longest_name_of_a_release_leaves_room_for_our_endings():
    for (kind, name), each in rendered("single", release="r" * 53).items():
        assert len(name) <= (253 if kind == "PersistentVolumeClaim" else 63 - len("-abcde"))  # of a Job's pods, say
        assert all(len(value) <= 63 for value in each["metadata"]["labels"].values())


def test_without_values_there_is_all_that_one_server_needs():
    assert Counter(kind for kind, _ in rendered("nothing")) == {
        **dict.fromkeys(("ConfigMap", "Deployment", "NetworkPolicy", "PersistentVolumeClaim"), 1),
        **dict.fromkeys(("PodDisruptionBudget", "ServiceAccount"), 1),
        "Service": 3,
    }
    spec = rendered("nothing")["Deployment", "lake-cropduster"]["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


def test_with_a_database_servers_are_replaced_one_by_one_after_it_was_migrated():
    spec = rendered("cluster")["Deployment", "lake-cropduster"]["spec"]
    assert (spec["replicas"], spec["strategy"]["rollingUpdate"]["maxUnavailable"]) == (3, 0)
    hooks = {
        kind: int(each["metadata"]["annotations"].get("helm.sh/hook-weight", "0"))
        for (kind, _), each in rendered("cluster").items()
        if "pre-install" in each["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    }
    assert hooks["ConfigMap"] < hooks["Job"]
    job = rendered("cluster")["Job", "lake-cropduster-migration"]["spec"]["template"]["spec"]
    assert "serviceAccountName" not in job  # that one is made after it
    assert job["containers"][0]["args"] == ["migrate"]
    secrets = {volume["secret"]["secretName"] for volume in job["volumes"] if "secret" in volume}
    assert secrets == {"public-keys", "company"}  # certificates are perhaps issued only after it
    assert "replicas" not in rendered("scaled")["Deployment", "lake-cropduster"]["spec"]


def test_a_database_of_its_own_is_migrated_beside_its_start_and_before_each_upgrade():
    kinds = [("ConfigMap", "lake-cropduster-migration"), ("Job", "lake-cropduster-migration")]
    for kind in kinds:
        assert "annotations" not in rendered("tried")[kind]["metadata"]  # a hook before all would wait for it in vain
    assert rendered("tried")["Job", "lake-cropduster-migration"]["spec"]["backoffLimit"] == 10
    upgraded = parsed(text("tried", "4", "lake", "--is-upgrade"))
    hooks = [
        each["metadata"]["annotations"]["helm.sh/hook"]
        for each in upgraded
        if (each["kind"], each["metadata"]["name"]) in kinds
    ]
    assert hooks == ["pre-install,pre-upgrade"] * 2


def selected(name, selector):
    """The names of the ports of the one thing that stays and whose pods have these labels; of no other pod."""
    (key,) = (key for key, each in pods(name).items() if matches(selector, each["metadata"]["labels"]))
    assert key[0] in {"DaemonSet", "Deployment", "StatefulSet"}
    return {port["name"] for port in pods(name)[key]["spec"]["containers"][0].get("ports", ())}


@pytest.mark.parametrize("name", RENDER)
def test_selectors_find_the_pods_that_are_meant_and_no_others(name):
    for (kind, _), each in rendered(name).items():
        spec = each.get("spec", {})
        if kind == "Service":
            assert {port["targetPort"] for port in spec["ports"]} <= selected(name, spec["selector"])
        if kind in {"Deployment", "StatefulSet", "PodDisruptionBudget"}:
            assert selected(name, spec["selector"]["matchLabels"])
        if kind == "NetworkPolicy":
            ports = selected(name, spec["podSelector"]["matchLabels"])
            assert {port["port"] for rule in spec.get("ingress", ()) for port in rule["ports"]} <= ports
        if kind == "HorizontalPodAutoscaler":
            assert (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]) in rendered(name)


def test_only_envoy_reaches_the_external_port_behind_it():
    found = rendered("scaled")
    (rule,) = found["NetworkPolicy", "lake-cropduster-envoy"]["spec"]["ingress"]
    agents, *others = rule["from"]
    assert others == values("scaled")["networkPolicy"]["externalFrom"]
    assert selected("scaled", agents["podSelector"]["matchLabels"]) == set()
    rules = found["NetworkPolicy", "lake-cropduster"]["spec"]["ingress"]
    (peer,) = (peer for rule in rules if rule["ports"] == [{"port": "external"}] for peer in rule["from"])
    assert selected("scaled", peer["podSelector"]["matchLabels"]) == {"external"}
    assert selected("scaled", found["Service", "lake-cropduster-external"]["spec"]["selector"]) == {"external"}


@pytest.mark.parametrize("name", RENDER)
def test_what_a_pod_speaks_of_is_there(name):
    found = rendered(name)
    for key, template in pods(name).items():
        spec = template["spec"]
        volumes = {each["name"]: each for each in spec["volumes"]}
        assert len(volumes) == len(spec["volumes"])
        claimed = {each["metadata"]["name"] for each in found[key]["spec"].get("volumeClaimTemplates", ())}
        mounted = [{mount["name"] for mount in each["volumeMounts"]} for each in containers(spec)]
        assert set().union(*mounted) == volumes.keys() | claimed
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in found
            claim = volume.get("persistentVolumeClaim", {}).get("claimName", "")
            assert not claim.startswith("lake-") or ("PersistentVolumeClaim", claim) in found
        account = spec.get("serviceAccountName", "default")
        assert ("ServiceAccount", account) in found or account in {"lake-writer", "default"}
        asks = ("Role", key[1]) in found or "{kubernetes:" in str(values(name)).replace("'", "")
        assert spec["automountServiceAccountToken"] is (key == ("Deployment", "lake-cropduster") and asks)


@pytest.mark.parametrize("name", RENDER)
def test_every_pod_keeps_the_restricted_standard(name):
    """By the published rules of the Pod Security Standards, level restricted; and the root file system is read-only."""
    for (maker, _), template in pods(name).items():
        spec = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        kinds = {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}}
        more = {"hostPath"} if maker == "DaemonSet" else set()  # which is in a namespace of its own for this
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"} | more
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
            }
            assert not any("hostPort" in port for port in container.get("ports", ()))
            assert "memory" in container["resources"]["limits"]

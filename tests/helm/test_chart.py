"""The chart, by helm 3 and helm 4: it renders what Kubernetes and the file server take, and refuses what can't work.

`render/` has values that must render, `refuse/` values that must not; the first line of each of these says which words
the refusal must have.
"""

import importlib.util
import json
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml

from client import api, app
from client.commands import hosting
from fileserver import config, metrics
from fileserver.catalogue.counts import Counts
from fileserver.configured import Configured
from tests.doubles import authority, helm
from tests.doubles.kubernetes_api import OPERATOR
from tests.helm import operators

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm"
HERE = Path(__file__).parent
RENDER = sorted(path.stem for path in (HERE / "render").iterdir())
REFUSE = sorted(path.stem for path in (HERE / "refuse").iterdir())
KUBERNETES = ("1.30", "1.37")  # the oldest that the chart asks for, and the newest whose schemas there are
WRITTEN = {"listen", "state", "database", "replicas", "metrics"}
"""Sections of the config that the chart writes itself."""

ROUTE = {"CROPDUSTER_SERVER", "CROPDUSTER_CA", "CROPDUSTER_CERT", "CROPDUSTER_KEY"}
BENCH = {"DOMAIN", "TARGET", "ROWS", "COLUMNS", "CHUNK", "TASKS", "WRITERS"}
POSTGRES = {"POSTGRES_USER", "POSTGRES_DB", "PGDATA"}
HSDS = {"NODE_TYPE", "TARGET_SN_COUNT", "TARGET_DN_COUNT", "DN_PORT", "BUCKET_NAME", "PASSWORD_FILE", "LOG_LEVEL"}
PLAIN = (
    {"CROPDUSTER_CONFIG", "CROPDUSTER_TOKEN_FILE", "HOME", "XDG_RUNTIME_DIR", "PLANE"} | ROUTE | BENCH | POSTGRES | HSDS
)
"""Variables that hold no secret."""


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


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("helm_generate", CHART / "generate.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # its models look for their types there
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


@pytest.mark.parametrize("name", RENDER)
def test_the_server_takes_the_config_as_it_was_given(name, tmp_path):
    maps = [each["data"] for (kind, _), each in rendered(name).items() if kind == "ConfigMap"]
    maps = [data["config.yaml"] for data in maps if "config.yaml" in data]
    assert len(set(maps)) == 1, "the migration reads another config than the servers"
    path = tmp_path / "config.yaml"
    path.write_text(maps[0])
    loaded = config.load(path, {})
    document = yaml.safe_load(maps[0])
    assert {key: each for key, each in document.items() if key not in WRITTEN} == values(name).get("config", {})
    container = served(name)["spec"]["containers"][0]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert (
        str(loaded.state_directory.parent) in mounts
    )  # a directory of its own below the mount, whose mode is not ours
    port = int(loaded.listen.health.rpartition(":")[2])
    assert {container[probe]["grpc"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == {port}
    assert (loaded.database is not None) == ("database" in values(name))
    variables = {each["name"] for each in container["env"]}
    if loaded.database:
        assert loaded.database.url.env in variables


@pytest.mark.parametrize("name", RENDER)
def test_secrets_are_named_and_never_written(name):
    assert not [key for key in rendered(name) if key[0] == "Secret"]
    sidecar = values(name).get("hsdsSidecar", {})
    plain = PLAIN | set(values(name).get("extraEnv", {})) | set(sidecar.get("env", {}))
    hsds = set(sidecar.get("secrets", {}))
    secret = set(values(name).get("env", {})) | ({"CROPDUSTER_DATABASE"} if "database" in values(name) else set())
    for template in pods(name).values():
        for container in containers(template["spec"]):
            written = {each["name"] for each in container["env"] if "value" in each}
            named = {each["name"] for each in container["env"] if "secretKeyRef" in each.get("valueFrom", {})}
            of_pod = [each for each in container["env"] if "fieldRef" in each.get("valueFrom", {})]
            assert len(written) + len(named) + len(of_pod) == len(container["env"])
            assert written <= plain
            own = {"postgres": {"POSTGRES_PASSWORD"}, "hsds": hsds}.get(container["name"].partition("-")[0], set())
            assert named == (secret if "CROPDUSTER_CONFIG" in written else own)


@pytest.mark.parametrize("name", RENDER)
def test_commands_in_a_pod_find_the_file_servers(name):
    for (kind, _), template in pods(name).items():
        for container in template["spec"]["containers"]:
            told = {each["name"]: each.get("value") for each in container["env"] if each["name"] in ROUTE}
            certified = "tls" in values(name)
            if container["name"] in {"agent", "envoy", "postgres"}:
                continue
            if kind == "Deployment" or "CROPDUSTER_CONFIG" not in {each["name"] for each in container["env"]}:
                assert told.keys() == (ROUTE if certified else {"CROPDUSTER_SERVER"})
                assert told["CROPDUSTER_SERVER"].startswith(
                    "lake-cropduster-internal.lake.svc:" if certified else "127."
                )


def test_an_hsds_beside_a_file_server_is_whole_and_ends_after_it():
    spec = served("tried")["spec"]
    nodes = {each["name"]: {v["name"]: v.get("value") for v in each["env"]} for each in spec["initContainers"]}
    assert {each["restartPolicy"] for each in spec["initContainers"]} == {"Always"}  # a sidecar, in Kubernetes' words
    assert [env["NODE_TYPE"] for env in nodes.values()] == ["head_node", "sn", "dn", "dn"]
    assert {env["TARGET_DN_COUNT"] for env in nodes.values()} == {"2"}
    assert (nodes["hsds-dn1"]["DN_PORT"], nodes["hsds-dn2"]["DN_PORT"]) == ("6101", "6102")
    ports = {port["port"] for rule in policy("tried")["ingress"] for port in rule["ports"]}
    assert ports == {"internal", "external", "metrics"}  # nobody else reaches its nodes


def policy(name):
    return rendered(name)["NetworkPolicy", "lake-cropduster"]["spec"]


def test_agents_are_started_with_words_that_the_command_line_knows(monkeypatch, tmp_path):
    found = rendered("scaled")["DaemonSet", "lake-cropduster-agents"]
    assert found["metadata"]["namespace"] == "lake-agents"
    spec = found["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    authority.make(tmp_path).ca.rename(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("a.b.c")
    for each in container["env"]:
        monkeypatch.setenv(each["name"], each.get("value", "node1").replace("/run/secrets/agent", str(tmp_path)))
    monkeypatch.setattr(api.Client, "list_planes", lambda _: [])  # no server is there
    orders = []
    monkeypatch.setattr(hosting, "_become", lambda _, told: orders.append(json.loads(told)))
    assert app.run([each.replace("$(NODE_NAME)", "node1") for each in container["args"]]) == 0
    (told,) = orders
    assert (told["host"], told["slots"], told["planes"]) == ("node1", 4, {"thor_1": "/planes/thor_1"})
    assert told["rates"]
    assert "lake-cropduster-external.lake.svc:7301" in told.values()
    (volume,) = (each for each in spec["volumes"] if "hostPath" in each)
    at = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert (at[volume["name"]], volume["hostPath"]["path"]) == ("/planes/thor_1", "/var/lib/thor")


def test_rules_and_dashboard_ask_for_what_is_told():
    found = rendered("cluster")
    (group,) = found["PrometheusRule", "lake-cropduster"]["spec"]["groups"]
    asked = [rule["expr"] for rule in group["rules"]]
    board = json.loads(found["ConfigMap", "lake-cropduster-dashboard"]["data"]["lake-cropduster.json"])
    asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    told = {"cropduster_info", "cropduster_database_answers"}
    for family in (*metrics._of_planes(Configured({}, "")), *metrics._of_database(Counts({}, 0.0, {}, 0, 0))):
        told.add(f"{family.name}_total" if family.type == "counter" else family.name)
    for each in asked:
        promql_parser.parse(each)
        assert set(re.findall(r"\bcropduster_\w+", each)) <= told
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


def test_file_servers_are_scaled_by_a_number_that_is_recorded_for_their_release():
    found = rendered("scaled")
    (metric,) = (each["external"]["metric"] for each in scaled_by(found) if each["type"] == "External")
    (group,) = found["PrometheusRule", "lake-cropduster"]["spec"]["groups"]
    (rule,) = (rule for rule in group["rules"] if rule.get("record") == metric["name"])
    assert (
        "sum by (namespace, service)" in rule["expr"]
    )  # so that the selector finds one number, which is no sum of equals
    (service,) = metric["selector"]["matchLabels"].values()
    assert f'service="{service}"' in rule["expr"]
    assert ("Service", service) in found
    assert [each["type"] for each in scaled_by(found)] == ["Resource", "External", "Resource"]


def scaled_by(found):
    return found["HorizontalPodAutoscaler", "lake-cropduster"]["spec"]["metrics"]


def test_each_pod_is_asked_for_its_numbers_once():
    found = rendered("cluster")
    monitor = found["ServiceMonitor", "lake-cropduster"]["spec"]
    (endpoint,) = monitor["endpoints"]
    ports = [
        port["name"]
        for (kind, _), each in found.items()
        if kind == "Service" and matches(monitor["selector"]["matchLabels"], each["metadata"]["labels"])
        for port in each["spec"]["ports"]
    ]
    assert ports.count(endpoint["port"]) == 1


def test_file_servers_know_each_other_by_a_name_that_is_in_their_certificate(tmp_path):
    found = rendered("scaled")
    names = found["Certificate", "lake-cropduster-internal"]["spec"]["dnsNames"]
    path = tmp_path / "config.yaml"
    path.write_text(found["ConfigMap", "lake-cropduster"]["data"]["config.yaml"])
    loaded = config.load(path, {})
    host = loaded.replicas.address.removeprefix("dns:///").partition(":")[0]
    assert host in names
    assert loaded.listen.internal.allow == (host,)
    (server,) = (
        each["value"]
        for each in found["Pod", "lake-cropduster-test"]["spec"]["containers"][0]["env"]
        if each["name"] == "CROPDUSTER_SERVER"
    )
    assert server.partition(":")[0] in names
    services = {f"{name}.lake.svc" for kind, name in found if kind == "Service"}
    external = found["Certificate", "lake-cropduster-external"]["spec"]["dnsNames"]
    assert external == ["lake-cropduster-external.lake.svc", "files.example.org"]
    assert {*names, external[0]} <= services


def test_certificates_are_mounted_where_the_config_looks_for_them(tmp_path):
    for name, secrets in (
        ("cluster", {"internal": "certificates-of-servers", "external": "certificate-for-all"}),
        ("scaled", {"internal": "lake-cropduster-internal-tls", "external": "lake-cropduster-external-tls"}),
    ):
        path = tmp_path / "config.yaml"
        path.write_text(rendered(name)["ConfigMap", "lake-cropduster"]["data"]["config.yaml"])
        listen = config.load(path, {}).listen
        spec = served(name)["spec"]
        (container,) = spec["containers"]
        at = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        of = {volume["name"]: volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume}
        for side, tls in (("internal", listen.internal.tls), ("external", listen.external.tls)):
            for file in (tls.certificate, tls.key, tls.clients or tls.key):
                assert of[at[str(file.parent)]] == secrets[side]
                assert file.name in {"tls.crt", "tls.key", "ca.crt"}


def test_file_servers_may_read_the_secrets_that_their_config_names_and_no_others():
    endpoints = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    named = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["hsds", "lake-keys"], "verbs": ["get"]}
    assert rendered("cluster")["Role", "lake-cropduster"]["rules"] == [endpoints, named]
    assert not [key for key in rendered("single") if key[0] == "Role"]
    # Whoever has the other namespace lets them read there; they need a token for that, too.
    assert not [key for key in rendered("existing") if key[0] == "Role"]


def test_operators_may_do_what_the_command_line_asks_for_and_nothing_else():
    found = rendered("cluster")
    granted = found["Role", "lake-cropduster-operators"]["rules"]
    assert {(verb, what) for each in granted for verb in each["verbs"] for what in each["resources"]} == OPERATOR
    subjects = found["RoleBinding", "lake-cropduster-operators"]["subjects"]
    assert [(each["kind"], each["name"], each.get("namespace")) for each in subjects] == [
        ("Group", "data-operators", None),
        ("ServiceAccount", "ci", "lake"),
    ]

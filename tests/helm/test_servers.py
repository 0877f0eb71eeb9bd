"""What the chart tells file servers, and the commands, agents and operators that go with them."""

import json
import re

import promql_parser
import pytest
import yaml

from client import api, app
from client.commands import hosting
from fileserver import config, metrics
from fileserver.catalogue.counts import Counts
from fileserver.configured import Configured
from tests.doubles import authority
from tests.doubles.kubernetes_api import OPERATOR
from tests.helm.charted import RENDER, containers, matches, pods, rendered, served, values

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
    assert any("cropduster_hosts" in each for each in asked)  # an agent that is lost
    board = json.loads(found["ConfigMap", "lake-cropduster-dashboard"]["data"]["lake-cropduster.json"])
    drawn = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert any("cropduster_hosts" in each for each in drawn)
    asked += drawn
    told = {"cropduster_info", "cropduster_database_answers"}
    for family in (*metrics._of_planes(Configured({}, "")), *metrics._of_database(Counts({}, 0.0, {}, 0, 0, {}))):
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

"""Models of the chart's own values; `helm/generate.py` makes the schema of them that helm checks values by."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME: Final = "^[a-z][a-z0-9_-]*$"
"""Of planes and HSDS servers."""
_SIZE: Final = r"^\d+(\.\d+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"  # as Kubernetes does


class Section(BaseModel):
    """A section of the values."""

    model_config = ConfigDict(extra="forbid")


Words = dict[str, str]
Raw = dict[str, Any]
"""Kubernetes' own words, which it checks itself."""
Variable = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Size = Annotated[str, Field(pattern=_SIZE)]
Planes = dict[Annotated[str, Field(pattern=NAME, max_length=50)], "Volume"]


class Image(Section):
    """Which image runs."""

    repository: str = Field(default="cropduster", min_length=1)
    tag: str = Field(default="", description="The chart's appVersion if empty.")
    digest: str = Field(default="", pattern="^(sha256:[0-9a-f]{64})?$", description="Instead of the tag.")
    pullPolicy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pullSecrets: list[str] = Field(default=[], description="Names of Secrets.")


class Autoscaling(Section):
    """A HorizontalPodAutoscaler; needs `database`."""

    enabled: bool = False
    minReplicas: int = Field(default=2, ge=1)
    maxReplicas: int = Field(default=8, ge=1)
    cpu: int = Field(default=70, ge=1, description="Percent of the CPU that is requested.")
    segments: int = Field(
        default=0, ge=0, description="Unfinished segments of transfers for each file server; 0: not by them."
    )
    metrics: list[Raw] = Field(default=[], description="More metrics of autoscaling/v2.")


class FromSecret(Section):
    """A key of a Secret that is there already."""

    secret: str = Field(min_length=1)
    key: str = Field(min_length=1)


class Mounted(Section):
    """A Secret that is there already, each of its keys a file."""

    secret: str = Field(min_length=1)


class Volume(Section):
    """A PersistentVolumeClaim for a plane of type posix: one that is there (`claim`), or one that is made (`size`)."""

    claim: str = ""
    size: Size | Literal[""] = ""
    storageClass: str = ""
    accessMode: Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"] = "ReadWriteMany"


class StateClaim(Section):
    """The claim of a single file server's catalogue; with `database` an emptyDir of this size."""

    claim: str = Field(default="", description="One that is there already.")
    size: Size = "10Gi"
    storageClass: str = Field(default="", description="Of a disk: a network file system is refused by the server.")


class DatabaseSecret(Section):
    """A PostgreSQL that somebody runs."""

    secret: str = Field(default="", description="Name of a Secret that is there already.")
    urlKey: str = Field(default="url", min_length=1, description="Its key with postgresql://USER:PASSWORD@HOST/NAME.")


class Postgres(Section):
    """A PostgreSQL of the chart's own, to try things with: one pod, one disk, no copy, no backup."""

    enabled: bool = False
    image: str = Field(default="postgres:17.6-bookworm", min_length=1, description="On Debian, where its user is 999.")
    passwordKey: str = Field(default="password", min_length=1, description="Of the Secret that `database` names.")
    size: Size = "10Gi"
    storageClass: str = ""
    resources: Raw = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}


class Migration(Section):
    """The Job that runs `cropduster migrate` before each install and upgrade; only with `database`."""

    enabled: bool = True
    backoffLimit: int = Field(default=3, ge=0)
    activeDeadlineSeconds: int = Field(default=600, ge=1)


class IssuerRef(Section):
    """An issuer of cert-manager."""

    name: str = ""
    kind: str = Field(default="Issuer", min_length=1)
    group: str = Field(default="cert-manager.io", min_length=1)


class InternalTls(Section):
    """The certificate of the file servers, by which they also call each other; `ca.crt` signs those of callers."""

    secret: str = Field(default="", description="One that is there already.")
    issuer: IssuerRef = IssuerRef()
    dnsNames: list[str] = Field(default=[], description="More names in the certificate.")
    allow: list[str] = Field(default=[], description="Names of callers beside the file servers.")


class ExternalTls(Section):
    """The certificate for everybody else; its callers show tokens."""

    secret: str = Field(default="", description="One that is there already.")
    issuer: IssuerRef = IssuerRef()
    dnsNames: list[str] = Field(default=[], description="More names in the certificate.")
    reflection: bool = Field(default=False, description="Whether callers may ask which services there are.")


class Certificates(Section):
    """What opens the addresses to other pods."""

    internal: InternalTls = InternalTls()
    external: ExternalTls = ExternalTls()
    duration: str = Field(default="2160h", pattern="^[0-9]+h$")
    renewBefore: str = Field(default="720h", pattern="^[0-9]+h$")


class Envoy(Section):
    """A proxy before the external address, which deals calls to the replicas."""

    enabled: bool = False
    image: str = Field(default="envoyproxy/envoy:distroless-v1.40.0", min_length=1)
    replicas: int = Field(default=2, ge=1)
    resources: Raw = {"requests": {"cpu": "250m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}


class Agents(Section):
    """A DaemonSet of agents, for planes with hosts."""

    enabled: bool = False
    namespace: str = Field(default="", description="Of their own, which allows hostPath and is there already.")
    folders: dict[Annotated[str, Field(pattern=NAME, max_length=50)], Annotated[str, Field(pattern="^/.+")]] = Field(
        default={}, description="Of their nodes, by plane."
    )
    token: str = Field(default="", description="A Secret there, with token and ca.crt: for the external address.")
    certificate: str = Field(
        default="", description="A Secret there, with tls.crt, tls.key and ca.crt: for the internal address."
    )
    server: str = Field(default="", description="HOST:PORT, where it is not that of the Service.")
    user: int = Field(default=10001, ge=1, description="Whom the folders belong to.")
    group: int = Field(default=10001, ge=1)
    slots: int = Field(default=4, ge=1, le=16, description="Segments at once, on each.")
    rate: str = Field(default="", description="As `cropduster agent --rate` has it.")
    nodeSelector: Words = {}
    tolerations: list[Raw] = []
    terminationGracePeriodSeconds: int = Field(default=300, ge=1, description="For segments that are under way.")
    resources: Raw = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}


class Ingress(Section):
    """To the external address."""

    enabled: bool = False
    className: str = ""
    host: str = ""
    tlsSecret: str = ""
    annotations: Words = {}


class HelmTest(Section):
    """The pod that `helm test` runs."""

    enabled: bool = True
    plane: str = Field(default="", description="The default one if empty.")


class Watch(Section):
    """One watch, as `cropduster inventory watch` takes it."""

    source: str = Field(min_length=1, description="PLANE:PREFIX.")
    target: str = Field(pattern="^hdf5://.+", description="The folder of the domains.")
    options: list[Annotated[str, Field(pattern="^--")]] = Field(
        default=[], description="As --OPTION or --OPTION=VALUE."
    )


class Passwords(Section):
    """A key of a Secret that is there already, with USER:PASSWORD in each line."""

    secret: str = ""
    key: str = Field(default="passwd.txt", pattern="^[A-Za-z0-9._-]+$")


class HsdsSidecar(Section):
    """An HSDS of each file server's own, at http://127.0.0.1:5101, on the bucket of the one that everybody reads."""

    enabled: bool = False
    image: str = Field(default="", description="Of HSDS 1.0, whose entry point goes by NODE_TYPE.")
    dataNodes: int = Field(default=1, ge=1, le=16)
    bucket: str = ""
    passwords: Passwords = Passwords()
    env: dict[Variable, str] = Field(default={}, description="Plain variables, as HSDS reads them.")
    secrets: dict[Variable, FromSecret] = Field(default={}, description="Variables out of Secrets.")
    resources: Raw = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}


class WriteTest(Section):
    """A Job that measures an HSDS server, and checks what it kept."""

    enabled: bool = False
    domain: str = Field(
        default="hdf5://home/admin/write-test", pattern="^hdf5://.+", description="And the revision of the release."
    )
    target: str = Field(default="", description="Of config.hsds; its first if empty.")
    rows: int = Field(default=40000, ge=1)
    columns: int = Field(default=30000, ge=1)
    chunk: str = Field(default="500x1000", pattern="^[0-9]+x[0-9]+$")
    tasks: Literal["block", "row", "column"] = "block"
    pods: int = Field(default=2, ge=1)
    writers: int = Field(default=2, ge=1, le=256, description="Processes in each pod.")
    activeDeadlineSeconds: int = Field(default=3600, ge=1)
    resources: Raw = {"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}


class InternalService(Section):
    """For trusted components."""

    port: Port = 7300
    annotations: Words = {}


class ExternalService(Section):
    """For everybody else."""

    port: Port = 7301
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    annotations: Words = {}
    loadBalancerSourceRanges: list[str] = []


class HeadlessService(Section):
    """The name of all replicas."""

    annotations: Words = {}


class Services(Section):
    """The three Services."""

    internal: InternalService = InternalService()
    external: ExternalService = ExternalService()
    headless: HeadlessService = HeadlessService()


class ServiceMonitor(Section):
    """For the Prometheus operator, which finds it by its labels."""

    enabled: bool = False
    interval: str = Field(default="30s", pattern="^([0-9]+(ms|s|m|h))+$")
    labels: Words = {}


class Rules(Section):
    """Alerts for the Prometheus operator; need the ServiceMonitor."""

    enabled: bool = False
    labels: Words = {}
    oldestTransferSeconds: int = Field(default=86400, ge=1, description="When a transfer is too old.")
    garbageObjects: int = Field(default=100000, ge=1, description="When too many wait for their deletion.")
    planeErrorsPerSecond: float = Field(default=1, ge=0, description="When a plane fails too often.")


class Dashboard(Section):
    """A ConfigMap with a dashboard, which Grafana's sidecar finds by its labels."""

    enabled: bool = False
    labels: Words = {"grafana_dashboard": "1"}


class Metrics(Section):
    """Numbers for a Prometheus, at a port of their own."""

    enabled: bool = True
    serviceMonitor: ServiceMonitor = ServiceMonitor()
    rules: Rules = Rules()
    dashboard: Dashboard = Dashboard()


class NetworkPolicy(Section):
    """Who may reach the pods, and whom they may reach."""

    enabled: bool = True
    internalFrom: list[Raw] = Field(default=[], description="Peers beside the release's own pods.")
    externalFrom: list[Raw] = Field(default=[], description="Peers; none is everybody.")
    metricsFrom: list[Raw] = Field(default=[], description="Peers; none is every pod of the cluster.")
    egress: list[Raw] = Field(default=[], description="Rules; none is everywhere.")


class Disruption(Section):
    """A PodDisruptionBudget."""

    enabled: bool = True
    maxUnavailable: int | Annotated[str, Field(pattern=r"^\d+%$")] = 1


class ServiceAccount(Section):
    """Whom the pods are for Kubernetes, and for the cloud."""

    create: bool = True
    name: str = ""
    annotations: Words = {}
    rules: list[Raw] = Field(default=[], description="Of a Role, with a token in the pods; none: no Role and no token.")


class Kubernetes(Section):
    """What the file servers themselves ask of Kubernetes, beside the Secrets that the config names."""

    discovery: bool = Field(default=False, description="Replicas follow endpoint slices instead of a DNS name.")


class Operator(Section):
    """A subject of a RoleBinding."""

    kind: Literal["User", "Group", "ServiceAccount"]
    name: str = Field(min_length=1)
    namespace: str = Field(default="", description="Of a ServiceAccount; that of the release if empty.")


class Values(Section):
    """Values of the chart."""

    image: Image = Image()
    replicas: int = Field(default=1, ge=1, description="More than one needs `database`.")
    autoscaling: Autoscaling = Autoscaling()
    config: dict[str, Any] = {}
    env: dict[Variable, FromSecret] = Field(default={}, description="Variables that {env: NAME} in config speaks of.")
    files: dict[Annotated[str, Field(pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=50)], Mounted] = Field(
        default={}, description="Secrets mounted at /run/secrets/NAME, for {file: …} and `ca` in config."
    )
    volumes: Planes = Field(default={}, description="Claims for planes of type posix, mounted at /planes/NAME.")
    state: StateClaim = StateClaim()
    database: DatabaseSecret = DatabaseSecret()
    postgres: Postgres = Postgres()
    migration: Migration = Migration()
    tls: Certificates = Certificates()
    envoy: Envoy = Envoy()
    agents: Agents = Agents()
    ingress: Ingress = Ingress()
    test: HelmTest = HelmTest()
    watches: dict[Annotated[str, Field(pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=50)], Watch] = {}
    hsdsSidecar: HsdsSidecar = HsdsSidecar()
    writeTest: WriteTest = WriteTest()
    services: Services = Services()
    metrics: Metrics = Metrics()
    networkPolicy: NetworkPolicy = NetworkPolicy()
    disruption: Disruption = Disruption()
    serviceAccount: ServiceAccount = ServiceAccount()
    kubernetes: Kubernetes = Kubernetes()
    operators: list[Operator] = Field(
        default=[], description="Who may ask for `cropduster cluster status` and `scale`."
    )
    resources: Raw = {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}
    terminationGracePeriodSeconds: int = Field(default=60, ge=30, description="A server takes up to 25 s to drain.")
    extraEnv: dict[str, str] = Field(default={}, description="Plain environment variables.")
    podAnnotations: Words = {}
    podLabels: Words = {}
    nodeSelector: Words = {}
    tolerations: list[Raw] = []
    affinity: Raw = {}
    topologySpreadConstraints: list[Raw] = []
    priorityClassName: str = ""
    # What helm itself adds to the values of a chart that is part of another.
    global_: Raw = Field(default={}, alias="global")

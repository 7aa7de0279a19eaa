"""What we promise of the objects, beyond what the API's schemas can say."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

APP = {"app.kubernetes.io/name": "predictd"}
# Snapshot of the metrics that the server has.
METRICS = "tests/it/ops/snapshots/metrics.snap"
# Routes that stay inside a cluster, and pages that the description of the API does not list.
INSIDE, PAGES = {"/health", "/livez", "/readyz", "/metrics"}, {"/openapi.json", "/docs"}
# Seconds between the end of the grace time and that of the process, and to spare.
REST = 5
# Where clients hold every connection, room is made after a second.
LEAST_TIMEOUT = 2
# https://kubernetes.io/docs/concepts/security/pod-security-standards/, "restricted".
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def read_snapshot(path: Path) -> str:
    """What a snapshot of the Rust tests holds below its head."""
    return path.read_text().split("---\n", 2)[2]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the repository says elsewhere."""

    options: set[str]
    metrics: set[str]
    routes: set[str]
    alerts: dict
    readme: str
    version: str

    @classmethod
    def read(cls, root: Path, help_text: str, alerts: dict, description: dict) -> "Facts":
        listed = read_snapshot(root / METRICS).splitlines()
        return cls(options=set(re.findall(r"\[env: (PREDICTD_\w+)", help_text)),
                   metrics={line.split()[0] for line in listed}, routes=set(description["paths"]), alerts=alerts,
                   readme=(root / "deploy/kubernetes/README.md").read_text(),
                   version=re.search(r'^version = "(.+)"', (root / "Cargo.toml").read_text(), re.M)[1])


class Built:
    """The objects of one build, and what is looked at often."""

    def __init__(self, objects: list[dict]) -> None:
        self.objects = objects
        (self.deployment,) = self.of("Deployment")
        self.service = next(iter(self.of("Service")), {"spec": {"ports": [], "selector": {}}, "metadata": {}})
        self.pod = self.deployment["spec"]["template"]["spec"]
        self.labels = self.deployment["spec"]["template"]["metadata"]["labels"]
        (self.container,) = self.pod["containers"]
        self.env = {entry["name"]: entry for entry in self.container["env"]}

    def of(self, kind: str) -> list[dict]:
        return [thing for thing in self.objects if thing["kind"] == kind]

    def value(self, name: str) -> str:
        return self.env.get(name, {}).get("value", "")

    def port(self) -> int:
        return int(self.value("PREDICTD_LISTEN").rpartition(":")[2] or 0)


def seconds(text: str) -> int:
    return int(re.fullmatch(r"(\d+)s", text)[1]) if text else 0


def drain(built: Built, _: Facts) -> Iterator[str]:
    """Everything that a stop takes fits into the time that Kubernetes gives."""
    pre_stop = built.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    delay, grace = seconds(built.value("PREDICTD_DRAIN_DELAY")), seconds(built.value("PREDICTD_DRAIN_TIMEOUT"))
    given = built.pod.get("terminationGracePeriodSeconds", 30)
    if not (pre_stop and delay and grace):
        yield f"preStop {pre_stop} s, drain delay {delay} s, grace {grace} s: one is missing"
    if pre_stop + delay + grace + REST > given:
        yield f"a stop takes {pre_stop + delay + grace} s and {REST} more, and {given} s are given"
    ready = built.container.get("readinessProbe", {})
    if ready.get("periodSeconds", 10) * ready.get("failureThreshold", 3) > delay:
        yield f"that the server is not ready is not seen within the drain delay of {delay} s"


def probes(built: Built, facts: Facts) -> Iterator[str]:
    """The figures of RELIABILITY.md, at the port that everybody can ask."""
    wanted = {"startupProbe": ("/livez", 2, 60), "livenessProbe": ("/livez", 10, 3),
              "readinessProbe": ("/readyz", 2, 2)}
    for name, (path, period, failures) in wanted.items():
        probe = built.container.get(name, {})
        asked = probe.get("httpGet", {})
        found = (asked.get("path"), probe.get("periodSeconds"), probe.get("failureThreshold"))
        if found != (path, period, failures) or path not in facts.routes:
            yield f"{name} is {found}, not {(path, period, failures)}"
        if asked.get("port") != "http":
            yield f"{name} asks another port than `http`"
        if probe.get("timeoutSeconds", 1) < LEAST_TIMEOUT:
            yield f"{name} waits less than {LEAST_TIMEOUT} s"


def options(built: Built, facts: Facts) -> Iterator[str]:
    """The server knows every variable."""
    for name in sorted(name for name in built.env if name.startswith("PREDICTD_")):
        if name not in facts.options:
            yield f"{name} is no option of `predictd serve`"


def metrics(built: Built, facts: Facts) -> Iterator[str]:
    """Replicas follow the age of the queue, by a metric that the server has. (tests/it looks at the alert rules.)"""
    for thing in built.of("ScaledObject"):
        queries = " ".join(trigger["metadata"].get("query", "") for trigger in thing["spec"]["triggers"])
        asked = set(re.findall(r"\b(?:predictd|process)_\w+", queries))
        yield from (f"{name} is not in {METRICS}" for name in sorted(asked - facts.metrics))
        if "predictd_queue_oldest_item_age_seconds" not in asked:
            yield "the ScaledObject does not look at the age of the queue"


def restricted(built: Built, _: Facts) -> Iterator[str]:
    """Pod Security Standard "restricted", a read-only root, and nothing that the server does not need."""
    pod, own = built.pod.get("securityContext", {}), built.container.get("securityContext", {})
    needs = {
        "runAsNonRoot": pod.get("runAsNonRoot") is True and own.get("runAsNonRoot", True) is True,
        "runAsUser": pod.get("runAsUser", 0) != 0 and own.get("runAsUser", 1) != 0,
        "seccompProfile": pod.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
        "privileged": not own.get("privileged"),
        "capabilities": own.get("capabilities", {}) == {"drop": ["ALL"]},
        "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
        "fsGroup": pod.get("fsGroup", 0) == pod.get("runAsUser"),
        "host": not [name for name in built.pod if name.startswith("host")],
        "hostPort": not any("hostPort" in port for port in built.container["ports"]),
        "volumes": all(set(volume) - {"name"} <= VOLUMES for volume in built.pod["volumes"]),
        "one container": not built.pod.get("initContainers") and not built.pod.get("ephemeralContainers"),
        "no token of the pod": built.pod.get("automountServiceAccountToken") is False,
        "no token of the account": all(account.get("automountServiceAccountToken") is False and
                                       account["metadata"]["name"] == built.pod.get("serviceAccountName")
                                       for account in built.of("ServiceAccount")) and built.of("ServiceAccount"),
        "enableServiceLinks": built.pod.get("enableServiceLinks") is False,
    }
    yield from (f"the pod's security: {name}" for name, holds in needs.items() if not holds)


def selectors(built: Built, _: Facts) -> Iterator[str]:
    """Who looks for the pods finds them, and one autoscaler has them."""
    wanted = [("Deployment", built.deployment["spec"]["selector"]["matchLabels"]),
              ("Service", built.service["spec"]["selector"])]
    wanted += [(thing["kind"], thing["spec"]["selector"]["matchLabels"]) for thing in built.of("PodDisruptionBudget")]
    wanted += [("NetworkPolicy", thing["spec"]["podSelector"].get("matchLabels", {}))
               for thing in built.of("NetworkPolicy")]
    wanted += [("topologySpreadConstraints", spread["labelSelector"]["matchLabels"])
               for spread in built.pod.get("topologySpreadConstraints", [])]
    for what, labels in wanted:
        if labels != APP or not labels.items() <= built.labels.items():
            yield f"{what} looks for {labels}, and the pods have {built.labels}"
    for monitor in built.of("ServiceMonitor"):
        labels = built.service["metadata"].get("labels", {})
        if not monitor["spec"]["selector"]["matchLabels"].items() <= labels.items():
            yield "the ServiceMonitor does not find the Service"
        if labels.get(monitor["spec"].get("jobLabel")) != "predictd":
            yield 'the ServiceMonitor does not make job="predictd", which the alert rules ask for'
    scalers = built.of("HorizontalPodAutoscaler") + built.of("ScaledObject")
    if len(scalers) != 1 or scalers[0]["spec"]["scaleTargetRef"]["name"] != built.deployment["metadata"]["name"]:
        yield f"{len(scalers)} autoscalers, or one of another Deployment"
    if "replicas" in built.deployment["spec"]:
        yield "`replicas` is set: every `kubectl apply` would undo what the autoscaler did"


def ports(built: Built, _: Facts) -> Iterator[str]:
    """One port, called `http` by all."""
    if built.container["ports"] != [{"name": "http", "containerPort": built.port(), "protocol": "TCP"}]:
        yield f"the container's ports are not the one of PREDICTD_LISTEN: {built.container['ports']}"
    if not built.value("PREDICTD_LISTEN").startswith("0.0.0.0:"):
        yield "PREDICTD_LISTEN cannot be reached"
    if not built.value("PREDICTD_ADMIN_LISTEN").startswith("127.0.0.1:"):
        yield "PREDICTD_ADMIN_LISTEN is not on the pod's loopback"
    if [(port["name"], port["targetPort"]) for port in built.service["spec"]["ports"]] != [("http", "http")]:
        yield "the Service has other ports than `http`"
    for policy in built.of("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            if rule.get("ports") != [{"protocol": "TCP", "port": "http"}] or not rule.get("from"):
                yield f"NetworkPolicy {policy['metadata']['name']} opens more than `http`, or to everybody"
    for monitor in built.of("ServiceMonitor"):
        if [(e["port"], e["path"]) for e in monitor["spec"]["endpoints"]] != [("http", "/metrics")]:
            yield "the ServiceMonitor does not ask `http` for /metrics"
    opened = {port["port"] for policy in built.of("NetworkPolicy") for rule in policy["spec"].get("egress", [])
              for port in rule.get("ports", [{"port": "all"}])}
    mlflow = re.search(r":(\d+)", built.value("PREDICTD_MLFLOW").partition("//")[2])
    if opened != {53, 5432} | ({int(mlflow[1])} if mlflow else set()):
        yield f"pods may reach the ports {sorted(map(str, opened))}"


def ingress(built: Built, facts: Facts) -> Iterator[str]:
    """All that clients use, and nothing else, is reachable from outside, over TLS."""
    for thing in built.of("Ingress"):
        paths = [path for rule in thing["spec"]["rules"] for path in rule["http"]["paths"]]
        clients = {route.partition("/{")[0] for route in facts.routes if not route.startswith("/admin")} - INSIDE
        if (found := {path["path"] for path in paths}) != clients | PAGES:
            yield f"the Ingress has {sorted(found)}, and clients use {sorted(clients | PAGES)}"
        wanted = {"name": built.service["metadata"].get("name"), "port": {"name": "http"}}
        if any(path["backend"]["service"] != wanted for path in paths):
            yield "the Ingress leads to another Service"
        hosts = {rule.get("host") for rule in thing["spec"]["rules"]}
        if not hosts <= {host for tls in thing["spec"].get("tls", []) for host in tls["hosts"]}:
            yield "a host of the Ingress has no TLS"


def secrets(built: Built, facts: Facts) -> Iterator[str]:
    """The README tells how every Secret is made, and the server takes the files as they are mounted."""
    used = {(source["name"], source["key"]) for entry in built.container["env"]
            if (source := entry.get("valueFrom", {}).get("secretKeyRef"))}
    used |= {(credentials["name"], credentials["key"]) for thing in built.of("ServiceMonitor")
             for e in thing["spec"]["endpoints"] for credentials in [e["authorization"]["credentials"]]}
    used |= {(tls["secretName"], "") for thing in built.of("Ingress") for tls in thing["spec"]["tls"]}
    files = set()
    for volume in built.pod["volumes"]:
        for source in volume.get("projected", {}).get("sources", []):
            for item in source["secret"]["items"]:
                used.add((source["secret"]["name"], item["key"]))
                files |= {f"{mount['mountPath']}/{item['path']}" for mount in built.container["volumeMounts"]
                          if mount["name"] == volume["name"] and mount.get("readOnly")}
        # As crates/experiments/src/receipts.rs wants it: neither the group may write, nor others anything.
        if "projected" in volume and volume["projected"].get("defaultMode", 0o644) & 0o037:
            yield f"the files of {volume['name']} can be read by others: the server refuses its receipt keys"
    for name, key in sorted(used):
        if not re.search(rf"kubectl create secret (generic|tls) {name} .*{re.escape(key)}", facts.readme):
            yield f"README.md does not make the Secret {name} with {key or 'a certificate'}"
    for option in ("PREDICTD_KEYS", "PREDICTD_RECEIPT_KEYS"):
        if built.value(option) not in files:
            yield f"{option} {built.value(option)} is no file of a Secret that is mounted read-only"
    if "secretKeyRef" not in built.env.get("PREDICTD_DATABASE", {}).get("valueFrom", {}):
        yield "PREDICTD_DATABASE is not from a Secret: replicas need one database"
    if built.of("Secret"):
        yield "a Secret is among the objects"


def volumes(built: Built, _: Facts) -> Iterator[str]:
    """The server can write where it does, and what is claimed can be shared."""
    mounted = {mount["mountPath"]: mount["name"] for mount in built.container["volumeMounts"]
               if not mount.get("readOnly")}
    if set(mounted) != {built.value("PREDICTD_DATA_DIR")}:
        yield f"what can be written is {sorted(mounted)}, not PREDICTD_DATA_DIR"
    claims = {claim["metadata"]["name"]: claim for claim in built.of("PersistentVolumeClaim")}
    named = {volume["persistentVolumeClaim"]["claimName"] for volume in built.pod["volumes"]
             if "persistentVolumeClaim" in volume}
    if named != set(claims):
        yield f"the claims {sorted(claims)} are not the claims used {sorted(named)}"
    if any(claim["spec"]["accessModes"] != ["ReadWriteMany"] for claim in claims.values()):
        yield "a claim cannot be shared by all replicas"


def resources(built: Built, _: Facts) -> Iterator[str]:
    """Whole cores: the server starts a worker for each usable one, and checks the memory that it is allowed."""
    asked, most = (built.container.get("resources", {}).get(part, {}) for part in ("requests", "limits"))
    if not asked or asked != most or not re.fullmatch(r"\d+", asked.get("cpu", "")) or "memory" not in asked:
        yield f"requests {asked} and limits {most} are not the same whole cores and memory"


def rollout(built: Built, _: Facts) -> Iterator[str]:
    """Replicas are replaced one by one, spread out, and evicted one by one."""
    gpu = "nvidia.com/gpu" in built.container.get("resources", {}).get("limits", {})
    found = built.deployment["spec"].get("strategy", {}).get("rollingUpdate")
    if found != ({"maxUnavailable": 1, "maxSurge": 0} if gpu else {"maxUnavailable": 0, "maxSurge": 1}):
        yield f"a rollout replaces by {found}"
    if [budget["spec"].get("maxUnavailable") for budget in built.of("PodDisruptionBudget")] != [1]:
        yield "no PodDisruptionBudget of one pod"
    keys = {spread["topologyKey"] for spread in built.pod.get("topologySpreadConstraints", [])}
    if keys != {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}:
        yield f"the pods are spread over {sorted(keys)}"
    if gpu and not any(t.get("key") == "nvidia.com/gpu" for t in built.pod.get("tolerations", [])):
        yield "the pods are not tolerated on nodes with GPUs"


def image(built: Built, facts: Facts) -> Iterator[str]:
    """The image is this version's."""
    gpu = "nvidia.com/gpu" in built.container.get("resources", {}).get("limits", {})
    wanted = f"predictd:{facts.version}{'-cuda' if gpu else ''}"
    if built.container["image"] != wanted:
        yield f"the image is {built.container['image']}, not {wanted}"
    if set(re.findall(r"predictd:(\d[\w.]*)", facts.readme)) != {facts.version}:
        yield f"README.md names images of another version than {facts.version}"


def names(built: Built, _: Facts) -> Iterator[str]:
    """The namespace is the user's, and everything carries our label."""
    for thing in built.objects:
        if "namespace" in thing["metadata"]:
            yield f"{thing['kind']} has a namespace"
        if not APP.items() <= thing["metadata"].get("labels", {}).items():
            yield f"{thing['kind']} {thing['metadata']['name']} has no label {APP}"


def alerts(built: Built, facts: Facts) -> Iterator[str]:
    """The rules are those of deploy/prometheus."""
    if any(thing["spec"] != facts.alerts for thing in built.of("PrometheusRule")):
        yield "the PrometheusRule is not deploy/prometheus/alerts.yml: run tests/system/kubernetes/check.py --write"


ALL = (drain, probes, options, metrics, restricted, selectors, ports, ingress, secrets, volumes, resources, rollout,
       image, names, alerts)

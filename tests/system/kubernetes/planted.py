"""Faults that are planted in good objects: whoever checks must find each, for the reason that it is one."""

import copy
from collections.abc import Callable

# Which build, which object (kind, and name where there are several), where in it, what stands there then (or GONE),
# and words of the complaint.
GONE = object()
POD = "spec template spec"
BOX = f"{POD} containers 0"
FAULTS = [
    # The schemas: a field that does not exist, a wrong type, a missing field, a kind that nobody knows.
    ("all", "Deployment", f"{POD} terminationGracePeriod", 40, "terminationGracePeriod"),
    ("all", "Deployment", f"{BOX} lifecycle preStop sleep seconds", "5", "is not of type"),
    ("all", "Service", "spec ports 0 port", GONE, "'port' is a required property"),
    ("all", "PodDisruptionBudget", "apiVersion", "policy/v1beta1", "Couldn't find schema"),
    ("all", "NetworkPolicy predictd", "spec ingress 0 form", [], "'form' was unexpected"),
    ("plain", "HorizontalPodAutoscaler", "spec metrics 0 resource target averageUtilisation", 70, "averageUtilisation"),
    # The fields of CRDs.
    ("all", "ScaledObject", "spec triggers 1 metadata threshold", 0.5, "triggers"),
    ("all", "ScaledObject", "spec minReplicas", 3, "'minReplicas' was unexpected"),
    ("all", "ServiceMonitor", "spec endpoints 0 authorization", GONE, "'authorization' is a required property"),
    ("all", "PrometheusRule", "spec groups 0 rules 0 for", "soon", "does not match"),
    # Our promises.
    ("all", "Deployment", f"{POD} terminationGracePeriodSeconds", 30, "are given"),
    ("all", "Deployment", f"{BOX} lifecycle", GONE, "preStop 0 s"),
    ("all", "Deployment", f"{BOX} readinessProbe periodSeconds", 5, "not seen within the drain delay"),
    ("all", "Deployment", f"{BOX} startupProbe httpGet path", "/readyz", "startupProbe"),
    ("all", "Deployment", f"{BOX} livenessProbe httpGet path", "/health", "livenessProbe"),
    ("all", "Deployment", f"{BOX} livenessProbe httpGet port", 8001, "another port"),
    ("all", "Deployment", f"{BOX} readinessProbe timeoutSeconds", GONE, "waits less"),
    ("all", "Deployment", f"{BOX} env 0 name", "PREDICTD_MLFLOW_URL", "PREDICTD_MLFLOW_URL is no option"),
    ("all", "ScaledObject", "spec triggers 1 metadata query", "avg(predictd_queue_age_seconds)", "is not in tests/it"),
    ("all", "ScaledObject", "spec triggers 1", GONE, "age of the queue"),
    ("all", "Deployment", f"{POD} securityContext runAsNonRoot", False, "runAsNonRoot"),
    ("all", "Deployment", f"{POD} securityContext runAsUser", 0, "runAsUser"),
    ("all", "Deployment", f"{POD} securityContext seccompProfile", GONE, "seccompProfile"),
    ("all", "Deployment", f"{POD} hostNetwork", True, "security: host"),
    ("all", "Deployment", f"{POD} volumes 0", {"name": "data", "hostPath": {"path": "/"}}, "security: volumes"),
    ("all", "Deployment", f"{BOX} securityContext capabilities add", ["NET_ADMIN"], "capabilities"),
    ("all", "Deployment", f"{BOX} securityContext allowPrivilegeEscalation", GONE, "allowPrivilegeEscalation"),
    ("all", "Deployment", f"{BOX} securityContext readOnlyRootFilesystem", False, "readOnlyRootFilesystem"),
    ("all", "Deployment", f"{POD} automountServiceAccountToken", GONE, "no token of the pod"),
    ("all", "ServiceAccount", "automountServiceAccountToken", True, "no token of the account"),
    ("all", "Deployment", f"{POD} enableServiceLinks", GONE, "enableServiceLinks"),
    ("all", "Deployment", "spec template metadata labels", {"app": "predictd"}, "looks for"),
    ("all", "Service", "spec selector", {"app": "predictd"}, "Service looks for"),
    ("all", "PodDisruptionBudget", "spec selector matchLabels", {"app": "predictd"}, "PodDisruptionBudget looks for"),
    ("all", "NetworkPolicy predictd", "spec podSelector", {}, "NetworkPolicy looks for"),
    ("all", "ServiceMonitor", "spec selector matchLabels", {"app": "predictd"}, "does not find the Service"),
    ("all", "ServiceMonitor", "spec jobLabel", GONE, 'job="predictd"'),
    ("all", "ScaledObject", "spec scaleTargetRef name", "server", "autoscalers"),
    ("all", "Deployment", "spec replicas", 3, "`replicas` is set"),
    ("all", "Deployment", f"{BOX} ports 0 containerPort", 8080, "the container's ports"),
    ("all", "Service", "spec ports 0 targetPort", 8001, "the Service has other ports"),
    ("all", "NetworkPolicy predictd", "spec ingress 0 ports 0 port", 8001, "opens more"),
    ("all", "NetworkPolicy predictd", "spec ingress 0 from", GONE, "to everybody"),
    ("all", "NetworkPolicy predictd", "spec egress 1", {}, "may reach the ports"),
    ("all", "NetworkPolicy predictd-mlflow", "spec egress 0 ports 0 port", 443, "may reach the ports"),
    ("all", "Ingress", "spec rules 0 http paths 0 path", "/metrics", "the Ingress has"),
    ("all", "Ingress", "spec rules 0 http paths 1 backend service name", "other", "another Service"),
    ("all", "Ingress", "spec tls 0 hosts", ["a.example.com"], "has no TLS"),
    ("all", "Deployment", f"{POD} volumes 1 projected sources 0 secret name", "api-keys", "does not make the Secret"),
    ("all", "Deployment", f"{POD} volumes 1 projected defaultMode", GONE, "refuses its receipt keys"),
    ("all", "Deployment", f"{POD} volumes 1 projected sources 1 secret items 0 path", "keys", "PREDICTD_RECEIPT_KEYS"),
    ("all", "ServiceMonitor", "spec endpoints 0 authorization credentials key", "token", "predictd-metrics-key"),
    ("all", "Ingress", "spec tls 0 secretName", "cert", "the Secret cert"),
    ("all", "Deployment", f"{BOX} volumeMounts 0 mountPath", "/var/lib/predictd", "not PREDICTD_DATA_DIR"),
    ("all", "PersistentVolumeClaim", "spec accessModes", ["ReadWriteOnce"], "cannot be shared"),
    ("all", "PersistentVolumeClaim", "metadata name", "data", "the claims"),
    ("all", "Deployment", f"{BOX} resources requests cpu", "500m", "not the same whole cores"),
    ("all", "Deployment", f"{BOX} resources limits", GONE, "not the same whole cores"),
    ("all", "Deployment", "spec strategy rollingUpdate maxUnavailable", 1, "a rollout replaces by"),
    ("gpu", "Deployment", "spec strategy rollingUpdate maxSurge", 1, "a rollout replaces by"),
    ("gpu", "Deployment", f"{POD} tolerations", GONE, "not tolerated"),
    ("all", "PodDisruptionBudget", "spec maxUnavailable", "50%", "no PodDisruptionBudget"),
    ("all", "Deployment", f"{POD} topologySpreadConstraints 1", GONE, "are spread over"),
    ("all", "Deployment", f"{BOX} image", "predictd:latest", "the image is"),
    ("all", "Service", "metadata namespace", "default", "has a namespace"),
    ("all", "Service", "metadata labels", {"app": "predictd"}, "has no label"),
    ("all", "PrometheusRule", "spec groups 0 rules 0 for", "1h", "is not deploy/prometheus/alerts.yml"),
]


def broken(objects: list[dict], which: str, path: str, value: object) -> list[dict]:
    """A copy with a fault in it."""
    objects = copy.deepcopy(objects)
    kind, _, name = which.partition(" ")
    (place,) = (thing for thing in objects if thing["kind"] == kind and name in ("", thing["metadata"]["name"]))
    *way, last = (int(step) if step.isdigit() else step for step in path.split())
    for step in way:
        place = place[step]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return objects


def missed(everything: list[dict], plain: list[dict], gpu: list[dict],
           problems: Callable[[list[dict]], list[str]]) -> list[str]:
    """The faults that are not found, or for another reason."""
    builds, found = {"all": everything, "plain": plain, "gpu": gpu}, []
    for which, kind, path, value, words in FAULTS:
        try:
            complaints = problems(broken(builds[which], kind, path, value))
        except (KeyError, TypeError, IndexError) as error:
            complaints = [f"{type(error).__name__}: {error}"]
        if not any(words in complaint for complaint in complaints):
            found.append(f"{kind} {path} {'gone' if value is GONE else value}: {complaints}")
    return found

"""What the objects of others' CRDs may hold: the fields that we use, no more.

The API schemas do not know them. These shapes were copied by hand from the CRDs of the Prometheus operator 0.87
(PrometheusRule: 0.76) and of KEDA 2; a field that those CRDs have and we do not use yet has to be added here first.
"""

import jsonschema

TEXT = {"type": "string"}
NUMBER = {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}
DURATION = {"type": "string", "pattern": r"^(\d+h)?(\d+m)?(\d+s)?$"}


def shape(needed: str, also: dict | None = None, **fields: dict) -> dict:
    """An object of these fields and no others."""
    return {"type": "object", "required": needed.split(), "additionalProperties": False,
            "properties": fields | (also or {})}


def items(of: dict) -> dict:
    return {"type": "array", "minItems": 1, "items": of}


POLICY = shape("type value periodSeconds", type={"enum": ["Pods", "Percent"]}, value=NUMBER, periodSeconds=NUMBER)
SCALING = shape("policies", stabilizationWindowSeconds=NUMBER, policies=items(POLICY))
BEHAVIOUR = shape("scaleUp scaleDown", scaleUp=SCALING, scaleDown=SCALING)
CPU = shape("type metricType metadata", type={"const": "cpu"}, metricType={"const": "Utilization"},
            metadata=shape("value", value=TEXT))
# The values of `metadata` are texts, numbers too.
PROMETHEUS = shape("type metricType metadata", type={"const": "prometheus"},
                   metricType={"enum": ["Value", "AverageValue"]},
                   metadata=shape("serverAddress query threshold", serverAddress=TEXT, query=TEXT, threshold=TEXT,
                                  ignoreNullValues=TEXT))
SCALED = shape(
    "scaleTargetRef triggers minReplicaCount maxReplicaCount",
    scaleTargetRef=shape("name", name=TEXT), minReplicaCount=NUMBER, maxReplicaCount=NUMBER, pollingInterval=NUMBER,
    advanced=shape("horizontalPodAutoscalerConfig",
                   horizontalPodAutoscalerConfig=shape("behavior", behavior=BEHAVIOUR)),
    triggers=items({"oneOf": [CPU, PROMETHEUS]}))
ENDPOINT = shape("port authorization", port=TEXT, path=TEXT, interval=DURATION, authorization=shape(
    "credentials", type={"const": "Bearer"}, credentials=shape("name key", name=TEXT, key=TEXT)))
MONITOR = shape("selector endpoints", jobLabel=TEXT, selector=shape("matchLabels", matchLabels=TEXTS),
                endpoints=items(ENDPOINT))
RULE = shape("alert expr", {"for": DURATION}, alert=TEXT, expr=TEXT, labels=TEXTS, annotations=TEXTS)
RULES = shape("groups", groups=items(shape("name rules", name=TEXT, rules=items(RULE))))

SPECS = {
    ("keda.sh/v1alpha1", "ScaledObject"): SCALED,
    ("monitoring.coreos.com/v1", "ServiceMonitor"): MONITOR,
    ("monitoring.coreos.com/v1", "PrometheusRule"): RULES,
}


def is_ours(thing: dict) -> bool:
    """True for an object whose fields are listed here."""
    return (thing.get("apiVersion"), thing.get("kind")) in SPECS


def problems(thing: dict) -> list[str]:
    """What does not fit."""
    spec = SPECS[thing["apiVersion"], thing["kind"]]
    metadata = shape("name", name=TEXT, labels=TEXTS)
    whole = shape("apiVersion kind metadata spec", apiVersion=TEXT, kind=TEXT, metadata=metadata, spec=spec)
    found = jsonschema.Draft202012Validator(whole).iter_errors(thing)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]

"""What lies in deploy/ must agree with the Dockerfile, with the server's figures, and with itself."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenfold import container
from tenfold.container import health

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
UID = 10001
MODEL = "/opt/ml/model"

# The figures of tenfold serve, and of the process that serves; a histogram's series end in _bucket, _sum and _count.
HISTOGRAMS = {"tenfold_request_seconds": {"route"}, "tenfold_stage_seconds": {"stage"}, "tenfold_batch_size": set()}
OTHERS = {
    "tenfold_requests_total": {"route", "status", "model"},
    "tenfold_queue_depth": set(),
    "tenfold_queue_bytes": set(),
    "tenfold_refusals_total": {"reason"},
    "tenfold_pictures_total": {"model", "outcome"},
    "tenfold_workers": set(),
    "tenfold_worker_restarts_total": set(),
    "tenfold_connections": set(),
    "tenfold_reloads_total": {"outcome"},
    "tenfold_model_info": {"model", "version"},
    "process_resident_memory_bytes": set(),
    "process_cpu_seconds_total": set(),
    "up": set(),
}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def stage(name: str) -> dict[str, Any]:
    """The last instruction of each kind in a stage of the Dockerfile, exec forms as lists."""
    text = re.split(rf"^FROM .* AS {name}$", DOCKERFILE, flags=re.M)[1].split("\nFROM ")[0]
    found: dict[str, Any] = {}
    for line in text.splitlines():
        if match := re.match(r"\s*([A-Z]+) (.*)", line):
            keyword, value = match.groups()
            found[keyword] = json.loads(value) if value.startswith("[") else value
    return found


# ---- the image ----------------------------------------------------------------------------------------------------


def test_the_default_image_is_the_one_that_serves() -> None:
    assert re.findall(r"^FROM .* AS (\S+)$", DOCKERFILE, re.M)[-1] == "serve"
    serve = stage("serve")
    assert serve["CMD"] == ["serve"]
    assert serve["USER"] == f"{UID}:{UID}"
    assert int(serve["EXPOSE"]) == container.PORT
    assert serve["STOPSIGNAL"] == "SIGTERM"
    assert stage("train")["CMD"] == ["train"]


@pytest.mark.parametrize("name", ["serve", "train"])
def test_the_entry_point_is_ours_without_a_shell_between(name: str) -> None:
    assert stage(name)["ENTRYPOINT"] == ["/opt/tenfold/bin/python", "-P", "-m", "tenfold.container"]


def test_the_health_check_is_the_entry_points() -> None:
    text = re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", DOCKERFILE, re.M)
    assert text is not None
    assert json.loads(text[1]) == [*stage("serve")["ENTRYPOINT"], "health"]
    assert json.loads(text[1]) == compose()["tenfold"]["healthcheck"]["test"][1:]


def test_its_user_is_the_one_that_is_made() -> None:
    script = (DEPLOY / "install.sh").read_text(encoding="utf-8")
    assert f"tenfold:x:{UID}:{UID}:" in script
    assert f"mkdir -p {MODEL}" in script


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert set(re.findall(r"^ARG VERSION=(.*)$", DOCKERFILE, re.M)) == {version}
    tags = [image for image in images() if image.startswith("tenfold:")]
    assert tags
    assert set(tags) == {f"tenfold:{version}"}


def test_what_is_copied_is_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_through = {line[1:] for line in lines if line.startswith("!")}
    copied = [source for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M) for source in line.split()[:-1]]
    assert lines[1] == "*"
    assert set(copied) == let_through
    for source in copied:
        assert (ROOT / source).exists(), source


def images() -> Iterator[str]:
    yield from re.findall(r"^ARG (?:TRAIN_)?BASE=(.*)$", DOCKERFILE, re.M)
    yield from (service["image"] for service in compose().values())
    for document in [*documents("kubernetes.yaml"), *documents("kserve.yaml")]:
        yield from re.findall(r"'image': '([^']*)'", str(document))


def test_images_are_of_one_version_and_name_no_host() -> None:
    for image in images():
        name, _, tag = image.partition(":")
        assert tag not in ("", "latest"), image
        assert "." not in name.split("/")[0], image


# ---- Compose ------------------------------------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    services: dict[str, Any] = documents("compose.yaml")[0]["services"]
    return services


def test_compose_gives_the_server_no_more_than_it_needs() -> None:
    server = compose()["tenfold"]
    assert server["read_only"] is True
    assert [mount.split(":")[0] for mount in server["tmpfs"]] == ["/tmp"]
    for service in compose().values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
        assert service["cpus"]
    assert server["volumes"] == [
        {**server["volumes"][0], "target": MODEL, "read_only": True},
    ]
    assert server["ports"] == [f"${{TENFOLD_ADDRESS:-127.0.0.1}}:{container.PORT}:{container.PORT}"]
    assert server["command"] == ["serve", "--workers", str(server["cpus"])]


def test_what_compose_mounts_is_there() -> None:
    for service in compose().values():
        for volume in service["volumes"]:
            if isinstance(volume, str) and volume.startswith("."):
                assert (DEPLOY / volume.split(":")[0]).exists(), volume


def test_prometheus_asks_the_server_and_grafana_asks_prometheus() -> None:
    config = documents("prometheus/prometheus.yml")[0]
    assert config["scrape_configs"][0]["static_configs"] == [{"targets": [f"tenfold:{container.PORT}"]}]
    assert [(DEPLOY / "prometheus" / name).is_file() for name in config["rule_files"]] == [True]
    source = documents("grafana/datasources.yaml")[0]["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    shown = documents("grafana/dashboards.yaml")[0]["providers"][0]["options"]["path"]
    assert any(f":{shown}/tenfold.json:" in str(volume) for volume in compose()["grafana"]["volumes"])


# ---- Kubernetes and KServe ----------------------------------------------------------------------------------------


def kind(name: str) -> dict[str, Any]:
    return next(d for d in [*documents("kubernetes.yaml"), *documents("kserve.yaml")] if d["kind"] == name)


def pods() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(the pod's settings, the server's container) of the Deployment and of the ServingRuntime."""
    pod, runtime = kind("Deployment")["spec"]["template"]["spec"], kind("ServingRuntime")["spec"]
    return [(pod, pod["containers"][0]), (runtime, runtime["containers"][0])]


@pytest.mark.parametrize("which", [0, 1])
def test_probes_and_ports_are_the_servers(which: int) -> None:
    _, server = pods()[which]
    assert [port["containerPort"] for port in server["ports"]] == [container.PORT]
    names = {port.get("name"): port["containerPort"] for port in server["ports"]}
    probes = {key: value["httpGet"] for key, value in server.items() if key.endswith("Probe")}
    assert {"readinessProbe", "livenessProbe"} <= set(probes)
    for name, asked in probes.items():
        assert names.get(asked["port"], asked["port"]) == container.PORT
        assert asked["path"] == ("/v2/health/live" if name == "livenessProbe" else health.ROUTE)


@pytest.mark.parametrize("which", [0, 1])
def test_the_pod_is_restricted(which: int) -> None:
    pod, server = pods()[which]
    for one in [server, *pod.get("initContainers", [])]:
        security = {**pod.get("securityContext", {}), **one["securityContext"]}
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == security["runAsGroup"] == UID
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    places = {mount["mountPath"]: mount for mount in server["volumeMounts"]}
    assert "/tmp" in places
    assert {mount["name"] for mount in server["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}
    assert all(mount.get("readOnly") for path, mount in places.items() if path != "/tmp")


@pytest.mark.parametrize("which", [0, 1])
def test_there_is_a_worker_for_each_processor(which: int) -> None:
    _, server = pods()[which]
    args = server["args"]
    assert args[0] == "serve"
    assert args[args.index("--workers") + 1] == server["resources"]["limits"]["cpu"]


def test_the_model_goes_where_the_server_looks() -> None:
    pod, server = pods()[0]
    loader = pod["initContainers"][0]
    assert loader["command"][-1] == MODEL
    assert {mount["mountPath"] for mount in loader["volumeMounts"]} == {MODEL}
    assert MODEL in {mount["mountPath"] for mount in server["volumeMounts"]}
    assert pods()[1][1]["args"][1] == "{{.Name}}=/mnt/models"


def test_all_select_the_same_pods() -> None:
    deployment = kind("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert kind("Service")["spec"]["selector"] == labels
    assert kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert kind("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert kind("HorizontalPodAutoscaler")["spec"]["minReplicas"] >= 2
    assert "replicas" not in deployment["spec"]


def test_kserve_picks_this_runtime() -> None:
    runtime, service = kind("ServingRuntime"), kind("InferenceService")["spec"]["predictor"]["model"]
    assert service["runtime"] == runtime["metadata"]["name"]
    assert service["modelFormat"]["name"] in [f["name"] for f in runtime["spec"]["supportedModelFormats"]]
    assert service["protocolVersion"] in runtime["spec"]["protocolVersions"]


def test_kubernetes_takes_it() -> None:
    check = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate (PyPI) has the schemas; not installed"
    )
    for document in documents("kubernetes.yaml"):
        for version in ("1.27", check.latest_version()):
            check.validate(document, version, strict=True)


# ---- figures ------------------------------------------------------------------------------------------------------


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana/tenfold.json").read_text(encoding="utf-8"))
    return found


def queries() -> list[str]:
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    rules = documents("prometheus/alerts.yml")[0]["groups"][0]["rules"]
    return [*shown, *(rule["expr"] for rule in rules)]


def test_every_query_is_for_a_figure_that_there_is() -> None:
    names = OTHERS | {
        f"{name}{end}": labels for name, labels in HISTOGRAMS.items() for end in ("_bucket", "_sum", "_count")
    }
    for query in queries():
        used = re.findall(r"\b((?:tenfold|process)_\w+|up)\b(?:\{([^}]*)\})?", query)
        assert used, query
        for name, selector in used:
            assert name in names, query
            labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", selector))
            assert labels <= names[name] | {"job", "instance"}, query


def test_every_figure_is_shown() -> None:
    shown = " ".join(queries())
    for name in [*HISTOGRAMS, *OTHERS]:
        assert name in shown, name


def test_the_server_has_these_figures() -> None:
    metrics = pytest.importorskip("tenfold.serving.metrics", reason="tenfold[serve] is not installed").Metrics()
    families = set(re.findall(r"^# TYPE (\S+) ", metrics.text().decode(), re.M))
    assert {name for name in [*HISTOGRAMS, *OTHERS] if name != "up"} <= families
    labels = {one._name: set(one._labelnames) for one in vars(metrics).values() if hasattr(one, "_labelnames")}
    for name, expected in {**HISTOGRAMS, **OTHERS}.items():
        if name.startswith("tenfold_"):
            assert labels[name.removesuffix("_total")] == expected, name


def test_panels_lie_beside_each_other() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({target["refId"] for target in panels[0]["targets"]}) == len(panels[0]["targets"])
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_the_dashboards_variables_are_those_it_uses() -> None:
    text = json.dumps(dashboard()["panels"])
    known = {variable["name"] for variable in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", text)) - {"__rate_interval"}
    assert used == known


# ---- scripts ------------------------------------------------------------------------------------------------------

SCRIPTS = sorted(DEPLOY.glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_scripts(script: Path) -> None:
    shell = script.read_text(encoding="utf-8").splitlines()[0].split("/")[-1].split()[-1]
    subprocess.run([shell, "-n", str(script)], check=True)
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed: syntax alone was looked at")
    subprocess.run(["shellcheck", str(script)], check=True)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool (of Prometheus) is not installed")
def test_prometheus_takes_its_settings() -> None:
    subprocess.run(["promtool", "check", "config", str(DEPLOY / "prometheus/prometheus.yml")], check=True)


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("TENFOLD_TEST_IMAGE"),
    reason="takes minutes and root or Docker: asked for by TENFOLD_TEST_IMAGE=1",
)
@pytest.mark.parametrize("target", ["serve", "train"])
def test_the_image_is_built_and_holds(target: str) -> None:
    subprocess.run([str(DEPLOY / "build.sh"), "--target", target], check=True)

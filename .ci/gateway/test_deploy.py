"""The files in deploy/: that they can be read, that what they say of the server is so, and that they agree."""

import json
import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from test_gateway import SETTINGS

from servers import BITNET, Server, answers

DEPLOY = Path(__file__).parents[2] / "deploy"
K8S = DEPLOY / "k8s"
# What another place decides: here, servers are on this machine, and have a free port.
ELSEWHERE = ["--host", "--port"]


def read(path):
    return yaml.safe_load(path.read_text())


def options(command):
    """Options with their values, from a list of `--name=value`."""
    pairs = [option.partition("=") for option in command if option.startswith("--")]
    return {name: value for name, _, value in pairs}


@pytest.fixture(scope="module")
def compose():
    return read(DEPLOY / "compose.yaml")["services"]


@pytest.fixture(scope="module")
def pod():
    return read(K8S / "deployment.yaml")["spec"]["template"]


@pytest.fixture(scope="module", params=["compose", "kubernetes"])
def started(request, compose, pod):
    """A server with the options of a file."""
    command = compose["bitnet-1"]["command"] if request.param == "compose" else pod["spec"]["containers"][0]["args"]
    assert command[0] == "serve"
    kept = [option for option in command[1:] if option.partition("=")[0] not in ELSEWHERE]
    with Server(*kept) as server:
        yield server


def test_servers_start_with_these_options(started, pod):
    assert started.get("/v1/models")["data"][0]["id"] == "bitnet"
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
        assert answers(started.url + pod["spec"]["containers"][0][probe]["httpGet"]["path"])


def test_figures_that_the_picker_reads_are_there(started):
    values = read(K8S / "epp-values.yaml")["router"]["epp"]
    config = yaml.safe_load(values["pluginsCustomConfig"][values["pluginsConfigFile"]])
    (parameters,) = [plugin["parameters"] for plugin in config["plugins"] if plugin["type"] == "core-metrics-extractor"]
    (engine,) = parameters["engineConfigs"]
    assert engine.pop("name") == parameters["defaultEngine"] == "bitnet"
    families = started.families()
    assert len(engine) == 4
    for name in engine.values():
        assert families[name].type == "gauge" and len(families[name].samples) == 1, name
    info = families[engine["cacheInfoSpec"]].samples[0].labels
    assert {"block_size", "num_gpu_blocks"} <= set(info)
    declared = {plugin["type"] for plugin in config["plugins"]}
    used = {plugin["pluginRef"] for profile in config["schedulingProfiles"] for plugin in profile["plugins"]}
    assert used <= declared


def test_the_gateway_is_the_one_that_is_tested(compose):
    gateway = compose["gateway"]
    help_ = subprocess.run(["smg", "launch", "--help"], capture_output=True, text=True, check=True).stdout
    given = options(gateway["command"])
    assert all(re.search(rf"{name}\b", help_) for name in given), given
    tested = dict(zip(SETTINGS, [*SETTINGS[1:], ""]))
    tested = {name: "" if value.startswith("--") else value for name, value in tested.items() if name.startswith("--")}
    assert tested.items() <= given.items()
    version = subprocess.run(["smg", "--version"], capture_output=True, text=True, check=True).stdout
    (pinned,) = re.findall(r"smg==(\S+)", gateway["build"]["dockerfile_inline"])
    assert pinned in version
    urls = [word for word in gateway["command"] if word.startswith("http://")]
    servers = [name for name in compose if name != "gateway"]
    port = options(compose["bitnet-1"]["command"])["--port"]
    assert urls == [f"http://{name}:{port}" for name in servers] and gateway["depends_on"] == servers


def test_nobody_is_root_and_nothing_is_left_to_shells(compose, pod):
    stages = (DEPLOY / "Dockerfile").read_text().split("\nFROM ")
    last = dict(line.split(" ", 1) for line in stages[-1].splitlines() if re.match("[A-Z]+ ", line))
    assert last["USER"].split(":")[0].isdigit() and last["USER"] != "0"
    assert json.loads(last["ENTRYPOINT"]) == ["/bitnet"] and json.loads(last["CMD"])[0] == "serve"
    assert "--features" not in stages[-2], "the default has no C in it"
    for service in compose.values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
    (container,) = pod["spec"]["containers"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"] and "command" not in container
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["requests"] == container["resources"]["limits"]


def test_answers_have_the_time_to_end(compose, pod):
    (container,) = pod["spec"]["containers"]
    drain = int(options(container["args"])["--shutdown-timeout"])
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["spec"]["terminationGracePeriodSeconds"] > sleep + drain
    server = compose["bitnet-1"]
    assert int(server["stop_grace_period"].rstrip("s")) > int(options(server["command"])["--shutdown-timeout"])
    help_ = subprocess.run([BITNET, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    default = re.search(r"--shutdown-timeout.*?\[default: (\d+)\]", help_, re.DOTALL)[1]
    stop = re.search(r"TimeoutStopSec=(\d+)", (DEPLOY / "bitnet.service").read_text())[1]
    assert int(stop) > int(default)


def test_kubernetes_takes_them():
    kustomization = read(K8S / "kustomization.yaml")
    everything = {"kustomization.yaml", "epp-values.yaml", *kustomization["resources"]}
    assert {path.name for path in K8S.iterdir()} == everything
    for name in ["deployment.yaml", "service.yaml"]:
        kubernetes_validate.validate(read(K8S / name), "1.34", strict=True)


def test_resources_name_each_other(pod):
    deployment, service, pool, route = (
        read(K8S / f"{name}.yaml") for name in ["deployment", "service", "inferencepool", "httproute"]
    )
    values = read(K8S / "epp-values.yaml")["router"]
    labels = pod["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        pool["spec"]["selector"]["matchLabels"],
        values["modelServers"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    (container,) = pod["spec"]["containers"]
    port = int(options(container["args"])["--port"])
    assert container["ports"] == [{"name": "http", "containerPort": port}]
    assert pool["spec"]["targetPorts"] == values["modelServers"]["targetPorts"] == [{"number": port}]
    (backend,) = route["spec"]["rules"][0]["backendRefs"]
    assert pool["apiVersion"].split("/")[0] == backend["group"]
    assert (backend["kind"], backend["name"]) == (pool["kind"], pool["metadata"]["name"])
    (image,) = read(K8S / "kustomization.yaml")["images"]
    assert image["name"] == container["image"]


def test_systemd_takes_the_unit(tmp_path):
    """Where the program is, it is not here."""
    unit = tmp_path / "bitnet.service"
    unit.write_text((DEPLOY / "bitnet.service").read_text().replace("/usr/local/bin/bitnet", BITNET))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    # Of ten, with ten the worst.
    secure = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", unit]
    assert subprocess.run(secure, stdout=subprocess.DEVNULL).returncode == 0

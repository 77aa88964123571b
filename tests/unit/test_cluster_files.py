"""`pipelines/cluster.yaml` and `pipelines/kuberay.yaml`, by what the installed Ray says of them.

Ray ships the launcher's schema and, for Kubernetes, the code with which its autoscaler reads a
RayCluster; the definition of a RayJob is shipped by the operator alone, so the job around the
cluster is looked at by hand.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from jsonschema import ValidationError  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.version import Version
from ray.autoscaler._private.kuberay import autoscaling_config
from ray.autoscaler._private.util import prepare_config, validate_config

from adapterbank.cli.app import app

ROOT = Path(__file__).parents[2]
FILES = {name: ROOT / "pipelines" / f"{name}.yaml" for name in ("cluster", "kuberay")}


def content(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILES[name].read_text(encoding="utf-8"))
    return loaded


def commands(name: str) -> list[str]:
    """Every command line of ours in a file, comments and all, up to a quote or the line's end."""
    text = FILES[name].read_text(encoding="utf-8")
    return re.findall(r"(?<![\w/.:-])adapterbank ([a-z]+ [^'\"\n]+)", text)


def parse(words: list[str]) -> dict[str, Any]:
    """Parse a command line with the real options, and run nothing."""
    command = typer.main.get_command(app)
    context = command.make_context("adapterbank", words[:], resilient_parsing=False)
    name, found, rest = command.resolve_command(context, words)  # type: ignore[attr-defined]
    parsed: dict[str, Any] = found.make_context(name, rest, parent=context).params
    return parsed


@pytest.mark.parametrize("name", FILES)
def test_every_command_in_a_file_is_one_of_the_program(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("RAY_ADDRESS", "ADAPTERBANK_STORAGE", "ADAPTERBANK_BANK"):
        monkeypatch.delenv(variable, raising=False)
    parsed = [parse(shlex.split(command)) for command in commands(name)]

    assert len(parsed) == 2
    for options in parsed:
        assert options["every"]
        assert options["storage"] == "s3://your-bucket/searches"
        assert options["gpus_per_trial"] in {0.25, None}
        assert not (options["resume"] and options["fresh"])
    assert {options["address"] for options in parsed} == (
        {"auto", None} if name == "cluster" else {None}  # a job is told by RAY_ADDRESS
    )


def test_a_command_with_an_option_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(typer.TyperException, match="--gpus"):
        parse(shlex.split("tune --all --gpus 0.25"))


def test_the_cluster_launcher_accepts_its_file() -> None:
    given = content("cluster")
    validate_config(prepare_config(given))

    kinds = given["available_node_types"]
    assert given["head_node_type"] in kinds
    assert sum(kind.get("min_workers", 0) for kind in kinds.values()) <= given["max_workers"]
    assert max(kind.get("max_workers", 0) for kind in kinds.values()) <= given["max_workers"]


def test_the_cluster_launcher_s_schema_refuses_a_key_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="idle_minutes"):
        validate_config(prepare_config(content("cluster") | {"idle_minutes": 3}))


def test_only_those_with_the_token_may_use_either_cluster() -> None:
    launched = content("cluster")
    starts = launched["head_start_ray_commands"] + launched["worker_start_ray_commands"]
    started = [command for command in starts if "ray start" in command]
    assert len(started) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in started)
    assert "/home/ray/.ray/auth_token" in launched["file_mounts"]
    assert content("kuberay")["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_ray_s_autoscaler_reads_the_cluster_of_the_kubernetes_job() -> None:
    job = content("kuberay")
    cluster = {"metadata": job["metadata"], "spec": job["spec"]["rayClusterSpec"]}

    # It also checks what it derives against the launcher's schema.
    derived = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)  # noqa: SLF001  # nothing public does

    assert derived["max_workers"] == 4
    head, worker = (derived["available_node_types"][name] for name in ("headgroup", "gpu"))
    assert head["resources"].get("CPU", 0) == 0
    assert (worker["min_workers"], worker["max_workers"]) == (1, 4)
    assert {kind: worker["resources"][kind] for kind in ("CPU", "GPU")} == {"CPU": 4, "GPU": 1}


def test_the_kubernetes_job_has_what_the_operator_requires() -> None:
    job = content("kuberay")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
    spec = job["spec"]
    assert shlex.split(spec["entrypoint"])[0] == "adapterbank"
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] >= 0
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]  # or it is evicted first
        gpus = resources["limits"].get("nvidia.com/gpu", "0")
        assert group["rayStartParams"].get("num-gpus", "0") == gpus
        if group is not groups[0]:
            assert group["rayStartParams"]["num-cpus"] == resources["limits"]["cpu"]
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_both_files_name_one_version_of_ray_that_the_package_allows() -> None:
    texts = [path.read_text(encoding="utf-8") for path in FILES.values()]
    named = {
        version
        for text in texts
        for pattern in (r"rayproject/ray:([\d.]+)-", r"ray\[[a-z,]+\]==([\d.]+)",
                        r'rayVersion: "([\d.]+)"')
        for version in re.findall(pattern, text)
    }  # fmt: skip
    assert len(named) == 1, named
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = re.findall(r'"(ray\[[a-z,]+\][^"]*)"', project)  # searches', and the tests' of jobs
    assert len(wanted) == 2
    version = Version(named.pop())
    assert [one for one in wanted if version not in Requirement(one).specifier] == []

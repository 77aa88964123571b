"""A version's files: made the same way every time, and the same adapter when read again."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from adapterbank import catalog
from adapterbank.errors import (
    BackboneMismatch,
    CanaryMismatch,
    ConfigError,
    IntegrityError,
    UnknownName,
)
from adapterbank.inference.artifact import (
    build_adapter,
    find_method,
    libraries,
    load_adapter,
    method_config,
)
from adapterbank.methods.base import count_parameters
from adapterbank.model.forward import forward
from adapterbank.registry.adapter_config import parse_adapter_config
from adapterbank.registry.manifest import build_manifest, version_digest
from tests import served, tiny

METHODS = catalog.names("adapterbank.methods")
WHERE = "dtd@3"
Files = dict[str, bytes]


def packed(method: str = "vapt", seed: int = 1) -> Files:
    made = served.adapter(seed, method)
    return served.pack(made, served.describe("dtd", made, method))


@pytest.mark.parametrize("method", METHODS)
def test_a_packed_adapter_answers_to_the_bit_as_it_did_in_memory(method: str) -> None:
    model = served.backbone()
    images = tiny.images(model, 3)
    made = served.adapter(1, method)
    with torch.no_grad():
        expected = forward(model, images, made.fold())
    loaded = load_adapter(packed(method), model, where=WHERE)
    assert torch.equal(forward(model, images, loaded.folded), expected)
    assert loaded.parameters == count_parameters(made)
    assert loaded.config.classes == served.CLASSES


@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_adapter_needs_no_gradient(method: str) -> None:
    loaded = load_adapter(packed(method), served.backbone(), where=WHERE)
    assert [
        tensor.requires_grad for tensor in loaded.folded.tensors() if tensor.requires_grad
    ] == []


@pytest.mark.parametrize("method", METHODS)
def test_packing_twice_gives_the_same_bytes_and_so_the_same_digest(method: str) -> None:
    one, two = packed(method), packed(method)
    assert one == two
    digests = {version_digest(build_manifest(files)) for files in (one, two)}
    assert len(digests) == 1
    assert version_digest(build_manifest(packed(method, seed=2))) not in digests


def test_the_order_of_keys_in_a_description_changes_no_byte() -> None:
    made = served.adapter()
    described = served.describe("dtd", made)
    turned = dict(reversed(described.items()))
    assert served.pack(made, described) == served.pack(made, turned)


def test_a_version_holds_all_its_files_and_its_configuration_comes_back() -> None:
    files = packed()
    assert sorted(files) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "canary.safetensors",
        "metrics.json",
        "routing.safetensors",
    ]
    described = served.describe("dtd", served.adapter())
    parsed = parse_adapter_config(files["adapter_config.json"])
    assert parsed == parse_adapter_config(json.dumps(described).encode())
    assert json.loads(files["metrics.json"]) == served.METRICS


def test_a_stored_adapter_is_float32_whatever_it_was_in_memory() -> None:
    made = served.adapter()
    files = served.pack(made, served.describe("dtd", made))
    stored = load(files["adapter_model.safetensors"])
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    assert stored.keys() == made.state_dict().keys()


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without("alpha"), "alpha"),
        (lambda state: state | {"beta": torch.zeros(1)}, "beta"),
        (lambda state: state | {"first": torch.zeros(1, 32)}, "first"),
    ],
    ids=["missing", "unexpected", "another shape"],
)
def test_tensors_of_something_else_are_refused_by_name(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], named: str
) -> None:
    files = packed()
    model = "adapter_model.safetensors"
    files[model] = save(change(load(files[model])))
    with pytest.raises(IntegrityError, match=f"{WHERE}/{model}") as caught:
        load_adapter(files, served.backbone(), where=WHERE)
    assert named in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 64])
def test_a_file_that_is_no_safetensors_is_refused_by_name(content: bytes) -> None:
    files = packed() | {"adapter_model.safetensors": content}
    with pytest.raises(IntegrityError, match=f"{WHERE}/adapter_model.safetensors"):
        load_adapter(files, served.backbone(), where=WHERE)


def test_a_damaged_configuration_is_refused_by_name() -> None:
    files = packed() | {"adapter_config.json": b"{}"}
    with pytest.raises(IntegrityError, match=f"{WHERE}/adapter_config.json"):
        load_adapter(files, served.backbone(), where=WHERE)


def test_another_backbone_of_equal_shapes_is_refused_before_anything_is_run() -> None:
    other = served.backbone(seed=1)
    with pytest.raises(BackboneMismatch, match=other.fingerprint[:12]) as caught:
        load_adapter(packed(), other, where=WHERE, canary=False)
    assert served.backbone().fingerprint[:12] in str(caught.value)


def test_weights_of_another_version_sing_another_canary() -> None:
    model = "adapter_model.safetensors"
    files = packed() | {model: packed(seed=2)[model]}
    with pytest.raises(CanaryMismatch, match=WHERE):
        load_adapter(files, served.backbone(), where=WHERE)
    load_adapter(files, served.backbone(), where=WHERE, canary=False)  # on purpose


def test_equal_seeds_start_equal_adapters_and_others_do_not() -> None:
    traits = served.backbone().traits
    one, two, three = (
        build_adapter("vapt", {}, traits, 4, seed=seed, where="here").state_dict()
        for seed in (5, 5, 6)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["first"], three["first"])


def test_every_problem_of_hyper_parameters_is_reported_with_its_key() -> None:
    with pytest.raises(ConfigError) as caught:
        method_config("vapt", {"prompts": 0, "rnk": 8, "conv": "yes"}, where="tasks.dtd.hyper")
    assert caught.value.where == "tasks.dtd.hyper"
    keys = [problem.partition(": ")[0] for problem in caught.value.problems]
    assert sorted(keys) == ["conv", "prompts", "rnk"]


def test_an_unknown_method_lists_its_neighbours() -> None:
    with pytest.raises(UnknownName, match="'vapt'"):
        find_method("vatp")


def test_what_the_numbers_depend_on_is_noted_with_its_version() -> None:
    noted = libraries()
    assert torch.__version__.startswith(noted["torch"])  # builds add their own suffix
    assert {"python", "torch", "torchvision", "timm", "pillow"} <= noted.keys()

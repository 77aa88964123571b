"""The model card is valid front matter, whatever people call their classes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from adapterbank.registry.card import render_card
from tests.registry_samples import config_of

METRICS = {
    "schema": 1,
    "val": {"correct": 30, "total": 40},
    "test": {"correct": 3, "total": 4},
    "note": "not a split",
}


def _front(card: str) -> dict[str, Any]:
    _, front, _ = card.split("---\n", 2)
    loaded = yaml.safe_load(front)
    assert isinstance(loaded, dict)
    return loaded


def test_the_card_has_a_model_index_of_all_splits_test_first() -> None:
    front = _front(render_card(config_of("dtd"), METRICS))
    (index,) = front["model-index"]
    assert index["name"] == "dtd-vapt"
    assert [
        (r["dataset"]["split"], r["metrics"][0]["type"], r["metrics"][0]["value"])
        for r in index["results"]
    ] == [("test", "accuracy", 0.75), ("val", "accuracy", 0.75)]
    assert front["pipeline_tag"] == "image-classification"
    assert front["library_name"] == "adapterbank"


def test_the_best_of_many_trials_is_said_to_be_too_high_and_is_no_result() -> None:
    config = config_of("dtd")
    plain = render_card(config, METRICS)
    config["train"] = {"search": {"trials": 40}}
    card = render_card(config, METRICS)
    assert "best of 40 trials" in card
    assert "trials" not in plain
    results = _front(card)["model-index"][0]["results"]
    assert [result["dataset"]["split"] for result in results] == ["test"]


def test_the_card_depends_on_its_arguments_alone() -> None:
    config = config_of("dtd")
    assert render_card(config, METRICS) == render_card(dict(reversed(config.items())), METRICS)


def test_the_card_names_backbone_data_and_parents() -> None:
    config = {**config_of("dtd"), "parents": ["dtd@sha256:abcd"]}
    card = render_card(config, METRICS)
    for text in (config["backbone"]["fingerprint"], config["data"]["digest"], "dtd@sha256:abcd"):
        assert text in card


def test_a_timm_backbone_is_linked_to_its_page_on_the_hub() -> None:
    config = config_of("dtd")
    config["backbone"]["uri"] = "timm://vit_base_patch16_224.augreg_in21k"
    front = _front(render_card(config, METRICS))
    assert front["base_model"] == "timm/vit_base_patch16_224.augreg_in21k"
    assert "base_model" not in _front(render_card(config_of("dtd"), METRICS))


@pytest.mark.parametrize("name", ["a|b", "---", "<script>", "x\n# y", "`", "[l](u)", "{{ x }}"])
def test_a_strange_class_name_stays_plain_text(name: str) -> None:
    card = render_card(config_of("dtd", (name, "dog")), METRICS)
    assert _front(card)["model-index"]
    assert "<script>" not in card
    assert "\n# y" not in card


def test_many_classes_are_counted_not_listed() -> None:
    card = render_card(config_of("dtd", tuple(f"class{i}" for i in range(1000))), {})
    assert "and 960 more" in card
    assert "model-index" not in card


def test_an_accuracy_without_counts_is_shown() -> None:
    card = render_card(config_of("dtd"), {"test": {"accuracy": 0.123456}})
    assert "| test | 0.1235 |" in card

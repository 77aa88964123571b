"""The model card of a version: what the Hub, or a person with a folder, wants to know first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from adapterbank.registry.adapter_config import trials_of
from adapterbank.text import visible

_SHOWN_CLASSES = 40


def render_card(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Write ``README.md`` for a version, with the front matter the Hugging Face Hub reads.

    Args:
        config: content of ``adapter_config.json``.
        metrics: content of ``metrics.json``; each split (``test``, ``val``…) that is an object
            with ``correct`` and ``total``, or with ``accuracy``, becomes a result.

    Returns:
        Markdown that depends on the arguments alone: no time, host or path of this run.
    """
    front = yaml.safe_dump(
        _front_matter(config, metrics), sort_keys=False, allow_unicode=True, width=1000
    )
    return f"---\n{front}---\n\n" + "\n\n".join(_body(config, metrics)) + "\n"


def _front_matter(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    task, method = config["task"], config["method"]["name"]
    front: dict[str, Any] = {
        "library_name": "adapterbank",
        "pipeline_tag": "image-classification",
        "tags": ["adapterbank", "image-classification", method],
    }
    scheme, _, backbone = config["backbone"]["uri"].partition("://")
    if scheme == "timm" and backbone:  # others are not on the Hub
        front["base_model"] = f"timm/{backbone}"
        front["base_model_relation"] = "adapter"
    results = [
        {
            "task": {"type": "image-classification"},
            "dataset": {"name": task, "type": config["data"]["source"], "split": split},
            "metrics": [{"type": "accuracy", "value": round(accuracy, 6)}],
        }
        for split, accuracy, _ in _splits(metrics)
        if split != "val" or trials_of(config["train"]) is None  # the best of many: too high
    ]
    if results:
        front["model-index"] = [{"name": f"{task}-{method}", "results": results}]
    return front


def _body(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield the blocks of Markdown between which an empty line stands."""
    task, method, classes = config["task"], config["method"], config["classes"]
    height, width = config["input"]["size"]
    yield f"# {_text(task)}: {_text(method['name'])} adapter"
    yield (
        f"Tells {len(classes)} classes apart on images of {height}×{width} pixels. It is one"
        " adapter on a frozen backbone and answers nothing without exactly that backbone."
    )
    rows = [
        ("Backbone", _code(config["backbone"]["uri"])),
        ("Backbone fingerprint", _code(config["backbone"]["fingerprint"])),
        ("Data", _code(config["data"]["source"])),
        ("Data digest", _code(config["data"]["digest"])),
        ("Seed", str(config["seed"])),
        ("Parents", ", ".join(map(_code, config["parents"])) or "none"),
    ]
    yield _table(("What", "Which"), rows)
    scores = [
        (_text(split), f"{accuracy:.4f}", count) for split, accuracy, count in _splits(metrics)
    ]
    if scores:
        yield "## Accuracy"
        yield _table(("Split", "Accuracy", "Images"), scores)
    trials = trials_of(config["train"])
    if trials is not None and any(split == "val" for split, _, _ in scores):
        yield (
            f"The validation accuracy is that of the best of {trials} trials, which these very"
            " images chose: it is too high for others."
        )
    for title, values in (("Method", method["hyper"]), ("Training", config["train"])):
        if values:
            yield f"## {title}"
            settings = [(_code(name), _code(values[name])) for name in sorted(values)]
            yield _table(("Setting", "Value"), settings)
    yield "## Classes"
    more = f" and {len(classes) - _SHOWN_CLASSES} more" if len(classes) > _SHOWN_CLASSES else ""
    yield ", ".join(map(_text, classes[:_SHOWN_CLASSES])) + more
    yield "## Use"
    yield f"```bash\nadapterbank predict --task {task} IMAGE…\n```"


def _splits(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float, str]]:
    """Yield name, accuracy and count of every split that has an accuracy, test first."""
    for split in sorted(metrics, key=lambda name: (name != "test", name)):
        values = metrics[split]
        if not isinstance(values, Mapping):
            continue
        correct, total = values.get("correct"), values.get("total")
        if isinstance(correct, int) and isinstance(total, int) and total > 0:
            yield split, correct / total, f"{correct} of {total}"
        elif isinstance(values.get("accuracy"), (int, float)):
            yield split, float(values["accuracy"]), ""


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = (f"| {' | '.join(cells)} |" for cells in rows)
    return "\n".join([f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *lines])


def _text(value: object) -> str:
    """Make a name of somebody's plain Markdown: class names are folder names, so anything."""
    text = visible(" ".join(str(value).split()))
    for character in "\\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text


def _code(value: object) -> str:
    text = visible(" ".join(str(value).split())).replace("`", "'").replace("|", "\\|")
    return f"`{text}`"

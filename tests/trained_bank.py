"""A tiny bank, built by the real stages: two versions of one task, the first is champion."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterbank.__main__ import main
from tests.cli_samples import COLOURS, PARAMS, draw


def train_bank(root: Path) -> None:
    """Build it in a folder that does not exist yet."""
    params = root / "pipelines" / "params.yaml"
    params.parent.mkdir(parents=True)
    params.write_text(PARAMS)
    (root / "registry").mkdir()
    for index, (name, colour) in enumerate(COLOURS.items()):
        for number in range(12):
            draw(root / "photos" / name / f"{number:02}.png", colour, 100 * index + number)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        steps = ["train colours", "evaluate colours --trained", "register work/colours/version"]
        for step in [*steps, "promote colours@1 --expected none"]:
            assert main(step.split()) == 0, step
        params.write_text(PARAMS.replace("batch_size: 8", "batch_size: 6"))  # the same images
        for step in steps:
            assert main(step.split()) == 0, step
        params.write_text(PARAMS)

"""What a new version must reach: the section `gates`."""

from __future__ import annotations

from pydantic import Field

from adapterbank.config.strict import Strict


class GateConfig(Strict):
    """What a new version must reach before ``release`` makes it the champion.

    A version is worse than the champion where it falls more than ``max_regression`` behind and a
    one-sided exact test calls that no accident (p ≤ ``alpha``), or where it falls ``max_drop`` or
    more behind, however few images say so. It is also held against the best champion there was, so
    that small falls, none of them proven, do not add up: there too it fails where it is proven
    worse, and beyond ``max_decline`` however few images say so. At the defaults a version as good
    passes 95 of 100 times on 80 images and more, if the two answer at most 20 % of them
    differently, and less often otherwise (``benchmarks/gates.py``). A gate that is None is off.
    """

    min_accuracy: float = Field(default=0.0, ge=0.0, le=1.0)
    # Images that no version compared has learned from; fewer decide nothing.
    min_images: int = Field(default=5, ge=1)
    max_regression: float = Field(default=0.005, ge=0.0, le=1.0)  # of accuracy, to the champion
    alpha: float = Field(default=0.05, gt=0.0, lt=1.0)
    max_drop: float = Field(default=0.1, gt=0.0, le=1.0)
    max_decline: float | None = Field(default=0.075, ge=0.0, le=1.0)  # to the best champion
    accept_classes: bool = False  # others than the champion's
    max_calibration_error: float | None = Field(default=None, ge=0.0, le=1.0)
    max_bytes: int | None = Field(default=None, ge=1)  # of the adapter's file
    max_latency: float | None = Field(default=None, ge=1.0)  # in forwards of the bare backbone
    # Of another task's images that the router gives to it, by the same rule as max_regression.
    max_routing_drop: float | None = Field(default=0.005, ge=0.0, le=1.0)
    # The same for a task's first version: a task that looks like another one always takes some of
    # its images, so that is told, and refused only where a bank says so.
    max_new_task_drop: float | None = Field(default=None, ge=0.0, le=1.0)

"""Find the tasks of images: one frozen pass, whatever the number of tasks."""

from __future__ import annotations

import threading
from dataclasses import replace

import torch
from torch import Tensor

from adapterbank.backbones.base import Backbone, slices
from adapterbank.data.images import normalise
from adapterbank.model import forward
from adapterbank.records import ROUTER, Reference, Route
from adapterbank.registry.store import Registry
from adapterbank.registry.task_record import CHAMPION
from adapterbank.registry.versions import Version
from adapterbank.routing.router import Router
from adapterbank.routing.storage import unpack_router


def load_router(registry: Registry, ref: str | Reference = ROUTER) -> tuple[Version, Router]:
    """Read a version of the router, every byte checked.

    Args:
        registry: an open registry.
        ref: ``router``, ``router@2``, ``router@sha256:1f0c…``.

    Raises:
        IntegrityError: it is not what was published, or no router.
        UnknownName: there is none, or no such version.
    """
    version = registry.resolve(ref)
    return version, unpack_router(registry.read(version), where=str(version))


class TaskRouter:
    """A registry's router, kept in memory. One instance serves any number of threads.

    Args:
        registry: an open registry.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._read: tuple[Version, Router] | None = None
        self._live: tuple[str, frozenset[str], Router] | None = None

    def current(self) -> tuple[Version, Router]:
        """The router that is served now, of the tasks that have a champion now.

        A task that was removed since is not among them: no image is sent where nobody answers.
        A task that was added since is not either, until ``release`` has built the next router.

        Raises:
            InputError: none of its tasks has a champion any more.
            IntegrityError: it is not what was published.
            UnknownName: the registry has no router yet.
        """
        version = self._registry.resolve(ROUTER)
        with self._lock:
            if self._read is None or self._read[0].digest != version.digest:
                self._read = load_router(self._registry, f"{ROUTER}@sha256:{version.digest}")
            version, router = self._read
        known = set(self._registry.tasks()) & set(router.tasks)
        live = frozenset(task for task in known if CHAMPION in self._registry.aliases(task))
        with self._lock:
            if self._live is None or self._live[:2] != (version.digest, live):
                self._live = version.digest, live, router.among(live)
            return version, self._live[2]


def find_tasks(
    found: tuple[Version, Router], backbone: Backbone, pixels: Tensor, top_k: int
) -> list[Route]:
    """Route images by one pass of the bare backbone.

    Args:
        found: a router and its version.
        backbone: the registry's.
        pixels: (B, 3, H, W) uint8.
        top_k: how many tasks to name with their probabilities.

    Raises:
        BackboneMismatch: the router is of another backbone.
    """
    version, router = found
    with torch.inference_mode():
        images = normalise(pixels.to(backbone.device), backbone.spec)
        parts = [
            forward.frozen_features(backbone, images[part], router.blocks)
            for part in slices(backbone, len(images))
        ]
    features = torch.cat(parts).float().cpu().numpy()
    routes = router.route(features, top_k=top_k, backbone=backbone.fingerprint)
    return [replace(route, router=version.digest) for route in routes]

"""Find the tasks of images: one frozen pass, whatever the number of tasks."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from adapterbank.backbones.base import Backbone, slices
from adapterbank.data.images import normalise
from adapterbank.errors import UnknownName
from adapterbank.model import forward
from adapterbank.records import ROUTER, Reference, Route
from adapterbank.registry.layout import Layout
from adapterbank.registry.store import Registry
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


class Champions:
    """The champions of a registry, read again only where an alias file changed.

    Every move replaces an alias file as a whole, so a file with the inode, size and times of the
    last look says what it said then. A look is one ``stat``; any number of threads may look.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._record = cache(Layout(root=registry.root).record)  # a path costs more than its stat
        self._seen: dict[str, tuple[tuple[int, ...], Version | None]] = {}

    def find(self, task: str) -> Version | None:
        """Find the champion of a task, or of the router, at this moment; None if it has none.

        Raises:
            IntegrityError: the alias file changed, and is damaged.
        """
        try:
            status = self._record(task).lstat()
        except FileNotFoundError:
            state: tuple[int, ...] = ()
        else:
            state = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        seen = self._seen.get(task)
        if seen is None or seen[0] != state:
            champion = None
            with suppress(UnknownName):
                champion = self._registry.resolve(task)
            # Looked at before it was read: a move in between is seen by the next look.
            seen = self._seen[task] = state, champion
        return seen[1]

    def require(self, task: str) -> Version:
        """Find the champion of a task, or of the router, which must have one.

        Raises:
            UnknownName: it has none; the message says why.
        """
        return self.find(task) or self._registry.resolve(task)


class TaskRouter:
    """A registry's router, kept in memory. One instance serves any number of threads."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.champions = Champions(registry)
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
        version = self.champions.require(ROUTER)
        with self._lock:
            if self._read is None or self._read[0].digest != version.digest:
                self._read = load_router(self._registry, f"{ROUTER}@sha256:{version.digest}")
            version, router = self._read
        live = frozenset(task for task in router.tasks if self.champions.find(task) is not None)
        with self._lock:
            if self._live is None or self._live[:2] != (version.digest, live):
                self._live = version.digest, live, router.among(live)
            return version, self._live[2]


def find_tasks(
    served: tuple[Version, Router], backbone: Backbone, pixels: Tensor, top_k: int
) -> list[Route]:
    """Route images by one pass of the bare backbone.

    Args:
        served: a router and its version.
        backbone: the registry's.
        pixels: (B, 3, H, W) uint8.
        top_k: how many tasks to name with their probabilities.

    Raises:
        BackboneMismatch: the router is of another backbone.
    """
    version, router = served
    with torch.inference_mode():
        images = normalise(pixels.to(backbone.device), backbone.spec)
        parts = [
            forward.frozen_features(backbone, images[part], router.blocks)
            for part in slices(backbone, len(images))
        ]
    features = torch.cat(parts).float().cpu().numpy()
    routes = router.route(features, top_k=top_k, backbone=backbone.fingerprint)
    return [replace(route, router=version.digest) for route in routes]

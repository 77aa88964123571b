"""Answer images under any task of a registry, from one backbone in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias, overload

import torch
from PIL import Image
from torch import Tensor

from adapterbank import model
from adapterbank.backbones.loading import load, pick_device
from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.data.images import load_pixels, normalise, to_pixels
from adapterbank.errors import ImageError, InputError, IntegrityError
from adapterbank.inference.artifact import LoadedAdapter, load_adapter
from adapterbank.inference.routing import TaskRouter, find_tasks
from adapterbank.records import AUTO, ROUTER, Abstention, Prediction, Reference, Route
from adapterbank.registry.manifest import check_payload
from adapterbank.registry.store import Registry, Version
from adapterbank.routing.router import Router

__all__ = ["ImageInput", "Predictor", "load_bank_backbone"]

ImageInput = Path | str | bytes | Image.Image
"""A file's path, a file's bytes, or a decoded image."""

Auto: TypeAlias = Literal["auto"]

DECODERS = 4  # PIL releases the interpreter lock


def load_bank_backbone(registry: Registry, device: str | torch.device = "cpu") -> TimmViT:
    """Load a registry's backbone and check that it is the one its versions were trained on.

    Raises:
        FetchError: the registry has none yet.
        InputError: its weights are not on this machine.
        IntegrityError: the weights have another fingerprint, or are not what the record says.
    """
    place = torch.device(device)
    if place.type == "cuda":
        # On by default for convolutions, such as the patch embedding. A tenth of float32's digits
        # would be lost, and a GPU would not give the canary a CPU gave.
        torch.backends.cudnn.allow_tf32 = False
    record = registry.backbone()
    backbone = load(
        registry.backbone_weights, record.spec, arch=record.arch, expected=record.fingerprint
    )
    if backbone.traits != record.traits:  # which the fingerprint does not cover
        raise IntegrityError(
            f"{registry.root}/backbone.json states {record.traits}; the weights are of"
            f" {backbone.traits}",
            fix="git checkout -- registry/backbone.json",
        )
    return backbone.to(place)


@dataclass(frozen=True)
class _Decoded:
    name: str
    content: Tensor | ImageError
    seconds: float


class Predictor:
    """Predict with any version of a registry. One instance serves any number of threads.

    The backbone is loaded at the first prediction, a version at its first use; both stay. Every
    version is verified byte by byte and replays its canary before it answers anything.

    Args:
        registry: an open registry, or its folder.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    def __init__(self, registry: Registry | Path | str, *, device: str = "cpu") -> None:
        self.registry = registry if isinstance(registry, Registry) else Registry.open(registry)
        self._device = pick_device(device)
        self._lock = threading.Lock()
        self._backbone: TimmViT | None = None
        self._adapters: dict[str, LoadedAdapter] = {}  # by digest: a version never changes
        self._router = TaskRouter(self.registry)

    @property
    def backbone(self) -> TimmViT:
        """The registry's backbone, loaded once."""
        if self._backbone is None:
            with self._lock:
                if self._backbone is None:
                    self._backbone = load_bank_backbone(self.registry, self._device)
        return self._backbone

    def load(self, ref: str | Reference) -> tuple[Version, LoadedAdapter]:
        """Resolve a reference now and return that version, loaded and verified.

        Raises:
            InputError: it is a router's.
        """
        version = self.registry.resolve(ref)
        if version.task == ROUTER:
            raise InputError(f"{version} is the router, not a task", fix="ask it with task auto")
        return version, self._loaded(version, lambda: self.registry.read(version))

    def load_files(self, version: Version, files: Mapping[str, bytes]) -> LoadedAdapter:
        """Load a version from bytes that came from elsewhere, such as a download.

        The version's folder need not be there; from now on it answers under its digest.

        Args:
            version: of the registry.
            files: content by file name, ``manifest.json`` included.

        Raises:
            IntegrityError: they are not that version, byte for byte, or it is not what was
                published.
        """
        where = f"the files of {version}"
        check_payload(files, version.digest, where=where)
        return self._loaded(version, lambda: files)

    def _loaded(self, version: Version, read: Callable[[], Mapping[str, bytes]]) -> LoadedAdapter:
        backbone = self.backbone
        loaded = self._adapters.get(version.digest)
        if loaded is None:
            with self._lock:
                loaded = self._adapters.get(version.digest)
                if loaded is None:
                    loaded = load_adapter(read(), backbone, where=str(version))
                    self._adapters[version.digest] = loaded
        return loaded

    @overload
    def predict(  # type: ignore[overload-overlap]  # of all strings only "auto" may abstain
        self, images: Iterable[ImageInput], *, task: Auto, top_k: int = 5, batch_size: int = 32
    ) -> list[Prediction | Abstention]: ...

    @overload
    def predict(
        self, images: Iterable[ImageInput], *, task: str, top_k: int = 5, batch_size: int = 32
    ) -> list[Prediction]: ...

    def predict(
        self, images: Iterable[ImageInput], *, task: str, top_k: int = 5, batch_size: int = 32
    ) -> list[Prediction | Abstention] | list[Prediction]:
        """Classify images under one task, or each under the task the router finds for it.

        Args:
            images: paths, encoded bytes or PIL images.
            task: a reference: ``dtd``, ``dtd@challenger``, ``dtd@3``, ``dtd@sha256:1f0c…``; or
                ``auto``, which asks the router, then the champion of the task it names.
            top_k: how many labels to give with each answer.
            batch_size: images in one forward.

        Returns:
            One answer for each image, in order; an abstention only where the router was asked.

        Raises:
            ImageError: an image cannot be used; :meth:`stream` goes on with the others.
            IntegrityError: the version or the backbone is not what was published.
            UnknownName: no such task, version or alias.
        """
        answers: list[Prediction | Abstention] = []
        for answer in self.stream(images, task=task, top_k=top_k, batch_size=batch_size):
            if isinstance(answer, ImageError):
                raise answer
            answers.append(answer)
        return answers

    @overload
    def stream(  # type: ignore[overload-overlap]  # as above
        self, images: Iterable[ImageInput], *, task: Auto, top_k: int = 5, batch_size: int = 32
    ) -> Iterator[Prediction | Abstention | ImageError]: ...

    @overload
    def stream(
        self, images: Iterable[ImageInput], *, task: str, top_k: int = 5, batch_size: int = 32
    ) -> Iterator[Prediction | ImageError]: ...

    def stream(
        self, images: Iterable[ImageInput], *, task: str, top_k: int = 5, batch_size: int = 32
    ) -> Iterator[Prediction | Abstention | ImageError]:
        """Classify images as they come; see :meth:`predict`.

        The reference is resolved once, so one call never mixes versions; the router and what it
        leads to are, too.

        Yields:
            For each image, in order, an answer or the error that names it.
        """
        _check_arguments(images, top_k, batch_size)
        if task == AUTO:
            found = self._router.current()
            loaded_by: dict[str, tuple[Version, LoadedAdapter]] = {}
            for decoded in self._batches(images, batch_size):
                yield from self._answer_routed(found, loaded_by, decoded, top_k)
            return
        version, loaded = self.load(task)
        for decoded in self._batches(images, batch_size):
            yield from self._answer(version, loaded, decoded, top_k)

    def route(
        self, images: Iterable[ImageInput], *, top_k: int = 3, batch_size: int = 32
    ) -> Iterator[tuple[str, Route | ImageError]]:
        """Find the tasks of images as they come: one pass of the backbone, and no adapter's.

        Yields:
            For each image, in order, its name, and its route or the error that names it.

        Raises:
            UnknownName: the registry has no router yet.
        """
        _check_arguments(images, top_k, batch_size)
        found = self._router.current()
        for decoded in self._batches(images, batch_size):
            good = [one.content for one in decoded if isinstance(one.content, Tensor)]
            routed = find_tasks(found, self.backbone, torch.stack(good), top_k) if good else []
            routes = iter(routed)
            for one in decoded:
                yield one.name, one.content if isinstance(one.content, ImageError) else next(routes)

    def _batches(self, images: Iterable[ImageInput], batch_size: int) -> Iterator[list[_Decoded]]:
        """Decode images by the batch."""
        with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:
            rest = enumerate(images)
            while group := list(islice(rest, batch_size)):
                yield list(pool.map(self._decode, group))

    def _answer_routed(
        self,
        found: tuple[Version, Router],
        loaded_by: dict[str, tuple[Version, LoadedAdapter]],
        decoded: list[_Decoded],
        top_k: int,
    ) -> Iterator[Prediction | Abstention | ImageError]:
        """Find the task of each image, then answer those of one task together."""
        good = [i for i, one in enumerate(decoded) if isinstance(one.content, Tensor)]
        answers: dict[int, Prediction | Abstention | ImageError] = {}
        begun = time.perf_counter()
        pixels = [one.content for one in decoded if isinstance(one.content, Tensor)]
        routes = find_tasks(found, self.backbone, torch.stack(pixels), 3) if good else []
        share = 1000 * (time.perf_counter() - begun) / max(len(good), 1)
        by_task: dict[str, list[tuple[int, Route]]] = {}
        for i, route in zip(good, routes, strict=True):
            if route.task is None:
                spent = 1000 * decoded[i].seconds + share
                answers[i] = Abstention(image=decoded[i].name, route=route, latency_ms=spent)
            else:
                by_task.setdefault(route.task, []).append((i, route))
        for task, rows in by_task.items():
            if task not in loaded_by:
                loaded_by[task] = self.load(task)
            group = self._answer(*loaded_by[task], [decoded[i] for i, _ in rows], top_k)
            for (i, route), answer in zip(rows, group, strict=True):
                if isinstance(answer, Prediction):  # what could not be decoded is not among them
                    spent = answer.latency_ms + share
                    answers[i] = replace(answer, route=route, latency_ms=spent)
        for i, one in enumerate(decoded):
            yield one.content if isinstance(one.content, ImageError) else answers[i]

    def _decode(self, numbered: tuple[int, ImageInput]) -> _Decoded:
        begun = time.perf_counter()
        index, image = numbered
        source = Path(image) if isinstance(image, str) else image
        name = str(source) if isinstance(source, Path) else f"image {index}"
        try:
            if isinstance(source, Image.Image):
                pixels = to_pixels(source, self.backbone.spec, name=name)
            else:
                pixels = load_pixels(source, self.backbone.spec, name=name)
        except ImageError as error:
            return _Decoded(name, error, 0.0)
        return _Decoded(name, pixels, time.perf_counter() - begun)

    def _answer(
        self, version: Version, loaded: LoadedAdapter, decoded: list[_Decoded], top_k: int
    ) -> Iterator[Prediction | ImageError]:
        good = [one.content for one in decoded if isinstance(one.content, Tensor)]
        begun = time.perf_counter()
        rows = iter(self._probabilities(loaded, torch.stack(good)) if good else ())
        share = (time.perf_counter() - begun) / max(len(good), 1)
        classes = loaded.config.classes
        for one in decoded:
            if isinstance(one.content, ImageError):
                yield one.content
                continue
            values, indices = next(rows).topk(min(top_k, len(classes)))
            top = tuple(
                (classes[index], value)
                for index, value in zip(indices.tolist(), values.tolist(), strict=True)
            )
            yield Prediction(
                image=one.name,
                task=version.task,
                version=version.version,
                digest=version.digest,
                label=top[0][0],
                probability=top[0][1],
                top_k=top,
                latency_ms=1000.0 * (one.seconds + share),
            )

    @torch.inference_mode()
    def _probabilities(self, loaded: LoadedAdapter, pixels: Tensor) -> Tensor:
        """Class probabilities (B, C) of pixels (B, 3, H, W), on the CPU."""
        images = normalise(pixels.to(self._device), self.backbone.spec)
        return model.forward(self.backbone, images, loaded.folded).softmax(dim=1).cpu()


def _check_arguments(images: object, top_k: int, batch_size: int) -> None:
    if isinstance(images, str | bytes | Path):
        raise InputError(f"images is one {type(images).__name__}, expected a list of images")
    if top_k < 1 or batch_size < 1:
        raise InputError(f"top_k and batch_size start at 1, got {top_k} and {batch_size}")

"""Answer images under any tasks of a registry, from one backbone in memory."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from io import IOBase
from itertools import repeat
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, overload

import torch
from torch import Tensor

from adapterbank.backbones.loading import load, pick_device
from adapterbank.backbones.timm_vit import TimmViT
from adapterbank.data.images import normalise
from adapterbank.errors import ImageError, InputError, IntegrityError
from adapterbank.inference.artifact import LoadedAdapter, load_adapter
from adapterbank.inference.decoding import Decoded, ImageInput, decoded_batches, paired
from adapterbank.inference.residents import RESIDENT_BYTES, Residents
from adapterbank.inference.routing import TaskRouter, find_tasks
from adapterbank.methods.base import Folded
from adapterbank.model import mixed
from adapterbank.records import AUTO, ROUTER, Abstention, Prediction, Reference, Route
from adapterbank.registry.aliases import as_reference
from adapterbank.registry.manifest import check_payload
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from adapterbank.routing.router import Router

Auto: TypeAlias = Literal["auto"]
With = TypeVar("With")


def load_bank_backbone(registry: Registry, device: str | torch.device = "cpu") -> TimmViT:
    """Load a registry's backbone and check that it is the one its versions were trained on.

    Args:
        registry: an open registry.
        device: where to, or the name of it: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        FetchError: the registry has none yet.
        InputError: its weights are not on this machine, or there is no such device.
        IntegrityError: the weights have another fingerprint, or are not what the record says.
    """
    place = pick_device(device) if isinstance(device, str) else device
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
            fix="git checkout HEAD -- registry/backbone.json",
        )
    return backbone.to(place)


class Predictor:
    """Predict with any version of a registry. One instance serves any number of threads.

    The backbone is loaded at the first prediction and stays, a version at its first use; it stays
    as long as ``budget_bytes`` lets it (:class:`~adapterbank.inference.residents.Residents`). Every
    version is verified byte by byte and replays its canary before it answers anything.

    Args:
        registry: an open registry, or its folder.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        budget_bytes: for the tensors of versions in memory; beyond it the least recently used go.
    """

    def __init__(
        self,
        registry: Registry | Path | str,
        *,
        device: str = "cpu",
        budget_bytes: int = RESIDENT_BYTES,
    ) -> None:
        self.registry = registry if isinstance(registry, Registry) else Registry.open(registry)
        self._device = pick_device(device)
        self._lock = threading.Lock()
        self._backbone: TimmViT | None = None
        self.residents = Residents(budget_bytes)
        self._router = TaskRouter(self.registry)

    @property
    def backbone(self) -> TimmViT:
        """The registry's backbone, loaded once."""
        if self._backbone is None:
            with self._lock:
                if self._backbone is None:
                    self._backbone = load_bank_backbone(self.registry, self._device)
        return self._backbone

    def load(self, ref: str | Reference | Version) -> tuple[Version, LoadedAdapter]:
        """Resolve a reference now and return that version, loaded and verified.

        Raises:
            InputError: it is a router's.
        """
        version = self._resolve(ref)
        with self._reading(version) as loaded:
            return version, loaded

    def load_files(self, version: Version, files: Mapping[str, bytes]) -> LoadedAdapter:
        """Load a version from bytes that came from elsewhere, such as a download.

        The version's folder need not be there; from now on it answers under its digest, and is
        never evicted.

        Args:
            version: of the registry.
            files: content by file name, ``manifest.json`` included.

        Raises:
            IntegrityError: they are not that version, byte for byte, or it is not what was
                published.
        """
        where = f"the files of {version}"
        check_payload(files, version.digest, where=where)
        backbone = self.backbone
        return self.residents.keep(
            version.digest, lambda: load_adapter(files, backbone, where=str(version))
        )

    def _resolve(self, ref: str | Reference | Version) -> Version:
        return ref if isinstance(ref, Version) else self.registry.resolve(ref)

    def _reading(self, version: Version) -> AbstractContextManager[LoadedAdapter]:
        """Pin a version in memory, loading it where it is not there."""
        if version.task == ROUTER:
            raise InputError(f"{version} is the router, not a task", fix="ask it with task auto")
        backbone = self.backbone

        def load() -> LoadedAdapter:
            return load_adapter(self.registry.read(version), backbone, where=str(version))

        return self.residents.reading(version.digest, load)

    @overload
    def predict(  # type: ignore[overload-overlap]  # of all strings only "auto" may abstain
        self, images: Iterable[ImageInput], *, task: Auto, top_k: int = 5, batch_size: int = 32
    ) -> list[Prediction | Abstention]: ...

    @overload
    def predict(
        self,
        images: Iterable[ImageInput],
        *,
        task: str | Version | None = None,
        tasks: Iterable[str] | None = None,
        top_k: int = 5,
        batch_size: int = 32,
    ) -> list[Prediction]: ...

    def predict(
        self,
        images: Iterable[ImageInput],
        *,
        task: str | Version | None = None,
        tasks: Iterable[str] | None = None,
        top_k: int = 5,
        batch_size: int = 32,
    ) -> list[Prediction | Abstention] | list[Prediction]:
        """Classify images under one task, each under its own, or under the one the router finds.

        Args:
            images: paths, encoded bytes or PIL images.
            task: a reference: ``dtd``, ``dtd@challenger``, ``dtd@3``, ``dtd@sha256:1f0c…``; or a
                version that was resolved before; or ``auto``, which asks the router, then the
                champion of the task it names.
            tasks: instead of ``task``, a reference for each image. Images of all tasks share
                forwards, and each is answered as it would be alone, to 1e-5 of a probability.
            top_k: how many labels to give with each answer.
            batch_size: images in one forward.

        Returns:
            One answer for each image, in order; an abstention only where the router was asked.

        Raises:
            ImageError: an image cannot be used; :meth:`stream` goes on with the others.
            InputError: both or neither of ``task`` and ``tasks``, or not one of ``tasks`` for each
                image.
            IntegrityError: a version or the backbone is not what was published.
            UnknownName: no such task, version or alias.
        """
        answers: list[Prediction | Abstention] = []
        stream = self.stream(images, task=task, tasks=tasks, top_k=top_k, batch_size=batch_size)
        for answer in stream:
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
        self,
        images: Iterable[ImageInput],
        *,
        task: str | Version | None = None,
        tasks: Iterable[str] | None = None,
        top_k: int = 5,
        batch_size: int = 32,
    ) -> Iterator[Prediction | ImageError]: ...

    def stream(
        self,
        images: Iterable[ImageInput],
        *,
        task: str | Version | None = None,
        tasks: Iterable[str] | None = None,
        top_k: int = 5,
        batch_size: int = 32,
    ) -> Iterator[Prediction | Abstention | ImageError]:
        """Classify images as they come; see :meth:`predict`.

        Each distinct reference is resolved once, before the first image, so one call never mixes
        versions of one reference; the router, and what it leads to, are resolved once too. Versions
        of ``tasks`` are loaded when their first batch comes.

        Of a list, the next batch is decoded while one is answered. Any other iterable is asked for
        the images of a batch only after the answers to the batch before.

        Yields:
            For each image, in order, an answer or the error that names it.
        """
        _check_arguments(images, top_k, batch_size)
        if isinstance(task, str) and task == AUTO and tasks is None:
            yield from self._stream_routed(images, top_k, batch_size)
            return
        if task is not None and tasks is None:
            version = self._resolve(task)
            with self._reading(version) as loaded:  # before an image is looked at
                for batch in self._decoded(images, zip(images, repeat(version)), batch_size):
                    yield from self._answer(batch, {version: loaded}, top_k)
            return
        pairs = paired(images, self._resolved(images, task, tasks))
        for batch in self._decoded(images, pairs, batch_size):
            yield from self._answer_mixed(batch, top_k)

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
        router = self._router.current()
        for batch in self._decoded(images, zip(images, repeat(None)), batch_size):
            decoded = [image for image, _ in batch]
            for image, route in zip(decoded, self._routes(router, decoded, top_k), strict=True):
                yield image.name, route

    def _routes(
        self, router: tuple[Version, Router], decoded: Sequence[Decoded], top_k: int
    ) -> list[Route | ImageError]:
        pixels = [image.content for image in decoded if isinstance(image.content, Tensor)]
        routes = iter(
            find_tasks(router, self.backbone, torch.stack(pixels), top_k) if pixels else ()
        )
        return [
            image.content if isinstance(image.content, ImageError) else next(routes)
            for image in decoded
        ]

    def _resolved(
        self,
        images: Iterable[ImageInput],
        task: str | Version | None,
        tasks: Iterable[str] | None,
    ) -> list[Version]:
        """Resolve the reference of each image, equal ones once."""
        if tasks is None or task is not None:
            raise InputError("expected one of task and tasks: what to classify the images under")
        if not isinstance(tasks, Iterable):
            raise InputError(f"tasks is one {type(tasks).__name__}, expected a list of references")
        if isinstance(tasks, str):
            raise InputError(
                f"tasks is one string, {tasks!r}, expected a reference for each image",
                fix=f"task={tasks!r}",
            )
        refs = list(tasks)
        for ref in refs:
            as_reference(ref)  # what is none may not even be comparable with others
        if isinstance(images, Sized) and len(images) != len(refs):
            raise InputError(f"{len(images)} images, but {len(refs)} tasks: expected one for each")
        versions = {ref: self.registry.resolve(ref) for ref in dict.fromkeys(refs)}
        return [versions[ref] for ref in refs]

    def _stream_routed(
        self, images: Iterable[ImageInput], top_k: int, batch_size: int
    ) -> Iterator[Prediction | Abstention | ImageError]:
        """Find the task of each image, then answer all of a batch in one mixed forward."""
        router = self._router.current()
        versions: dict[str, Version] = {}
        for batch in self._decoded(images, zip(images, repeat(None)), batch_size):
            decoded = [image for image, _ in batch]
            begun = time.perf_counter()
            routes = self._routes(router, decoded, 3)
            readable = sum(isinstance(route, Route) for route in routes)
            share = 1000.0 * (time.perf_counter() - begun) / max(readable, 1)
            routed = []
            for image, route in zip(decoded, routes, strict=True):
                if isinstance(route, Route) and route.task is not None:
                    if route.task not in versions:
                        versions[route.task] = self._router.champions.require(route.task)
                    routed.append((image, versions[route.task]))
            answers = iter(self._answer_mixed(routed, top_k))
            for image, route in zip(decoded, routes, strict=True):
                if isinstance(route, ImageError):
                    yield route
                elif route.task is None:
                    spent = 1000.0 * image.seconds + share
                    yield Abstention(image=image.name, route=route, latency_ms=spent)
                else:
                    answer = next(answers)
                    assert isinstance(answer, Prediction)  # its image was decoded
                    spent = answer.latency_ms + share
                    yield replace(answer, route=route, latency_ms=spent)

    def _decoded(
        self, images: Iterable[ImageInput], pairs: Iterable[tuple[ImageInput, With]], size: int
    ) -> Iterator[list[tuple[Decoded, With]]]:
        """Decode images with what goes with them; of an iterator, none before they are needed."""
        ahead = isinstance(images, Sequence)
        return decoded_batches(pairs, self.backbone.spec, size, ahead=ahead)

    def _answer_mixed(
        self, batch: Sequence[tuple[Decoded, Version]], top_k: int
    ) -> list[Prediction | ImageError]:
        """Answer a batch of images and their versions, which are pinned meanwhile."""
        readable = [version for image, version in batch if isinstance(image.content, Tensor)]
        with ExitStack() as pins:
            loaded = {v: pins.enter_context(self._reading(v)) for v in dict.fromkeys(readable)}
            return self._answer(batch, loaded, top_k)

    def _answer(
        self,
        batch: Sequence[tuple[Decoded, Version]],
        loaded: Mapping[Version, LoadedAdapter],
        top_k: int,
    ) -> list[Prediction | ImageError]:
        """Answer a batch of images and their versions in one forward."""
        begun = time.perf_counter()
        pixels = [image.content for image, _ in batch if isinstance(image.content, Tensor)]
        folded = [loaded[v].folded for image, v in batch if isinstance(image.content, Tensor)]
        rows = iter(self._probabilities(folded, torch.stack(pixels)) if pixels else ())
        share = (time.perf_counter() - begun) / max(len(pixels), 1)
        answers: list[Prediction | ImageError] = []
        for image, version in batch:
            if isinstance(image.content, ImageError):
                answers.append(image.content)
                continue
            classes = loaded[version].config.classes
            best = next(rows)[: len(classes)].topk(min(top_k, len(classes)))
            labels = [classes[index] for index in best.indices.tolist()]
            top = tuple(zip(labels, best.values.tolist(), strict=True))
            if math.isnan(top[0][1]):
                raise IntegrityError(
                    f"{version} answers {image.name} with numbers that are none: its tensors are"
                    " beyond what can be computed with",
                    fix=f"adapterbank rollback {version.task}",
                )
            answers.append(
                Prediction(
                    image=image.name,
                    task=version.task,
                    version=version.version,
                    digest=version.digest,
                    label=top[0][0],
                    probability=top[0][1],
                    top_k=top,
                    latency_ms=1000.0 * (image.seconds + share),
                )
            )
        return answers

    @torch.inference_mode()
    def _probabilities(self, folded: Sequence[Folded], pixels: Tensor) -> Tensor:
        """Class probabilities (B, C) of pixels (B, 3, H, W), on the CPU; 0 beyond a row's own."""
        images = normalise(pixels.to(self._device), self.backbone.spec)
        logits, _ = mixed.forward_mixed(self.backbone, images, folded)
        return logits.softmax(dim=1).cpu()


def _check_arguments(images: object, top_k: object, batch_size: object) -> None:
    if isinstance(images, str | bytes | Path | IOBase) or not isinstance(images, Iterable):
        raise InputError(f"images is one {type(images).__name__}, expected a list of images")
    if any(type(number) is not int or number < 1 for number in (top_k, batch_size)):
        raise InputError(
            f"top_k and batch_size are ints and start at 1, got {top_k!r} and {batch_size!r}"
        )

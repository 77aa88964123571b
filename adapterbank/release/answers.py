"""What versions answer to the same images, measured here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from adapterbank.backbones.base import Backbone
from adapterbank.bank.bank import Bank
from adapterbank.bank.features import adapter_logits
from adapterbank.data.base import TaskData
from adapterbank.errors import IntegrityError
from adapterbank.inference.artifact import LoadedAdapter
from adapterbank.records import Score
from adapterbank.registry.versions import Version
from adapterbank.release.fresh import Fresh, Learned


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A version that is judged, or a champion that it is compared with."""

    version: Version
    loaded: LoadedAdapter
    learned: Learned

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of its head."""
        return self.loaded.config.classes


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """A version's answers to n images."""

    said: NDArray[np.object_]  # (n,) names of the classes it gave
    truth: NDArray[np.object_]  # (n,) names of the true ones
    confidence: NDArray[np.float64]  # (n,) probability of the class it gave

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,) whether it answered each image right."""
        return np.equal(self.said, self.truth).astype(np.bool_)

    @property
    def score(self) -> Score:
        """Right answers."""
        return Score(correct=int(self.right.sum()), total=len(self.said))


def measure_answers(
    bank: Bank, backbone: Backbone, contender: Contender, data: TaskData, fresh: Fresh
) -> Answers:
    """Let a version answer images, by the names of its own classes.

    Raises:
        IntegrityError: it gives probabilities that are no numbers.
    """
    task = contender.version.task
    found = adapter_logits(bank, backbone, task, fresh.split, contender.loaded)
    rows = torch.from_numpy(fresh.rows)
    logits, labels = found.logits[rows], found.labels[rows]
    confidence = logits.double().softmax(1).amax(1).numpy()
    if not np.isfinite(confidence).all():
        raise IntegrityError(
            f"{contender.version} gives probabilities that are no numbers for"
            f" {int((~np.isfinite(confidence)).sum())} of {len(confidence)} images",
            fix=f"adapterbank train {task}",
        )
    names = np.array(contender.classes, dtype=object)
    return Answers(
        said=names[logits.argmax(1).numpy()],
        truth=np.array(data.classes, dtype=object)[labels.numpy()],
        confidence=confidence,
    )

"""A bank of two tasks to be damaged, and what must still answer when it is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapterbank.errors import IntegrityError
from adapterbank.inference.predictor import Predictor
from adapterbank.registry.manifest import FILE_LIMITS, MANIFEST
from adapterbank.registry.seen import SEEN, pack_seen
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from tests import served

FILES = (*FILE_LIMITS, MANIFEST)
SMALL = 4096  # bytes: every bit of a smaller file is flipped
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 36, 3), dtype=np.uint8))
OTHERS = ("colours", "bugs@2")
"""What must answer on, to the bit, whatever happens to ``bugs@1``."""

Answer = tuple[str, tuple[tuple[str, float], ...]]


def new_bank(root: Path) -> Registry:
    """Create a registry of ``bugs``, with two versions, and ``colours``, both with all files."""
    registry = served.new_registry(root)
    bugs, colours = (
        {SEEN: pack_seen(n * 16 for n in some)} for some in ((b"a", b"b"), (b"c", b"d"))
    )
    served.publish(registry, "bugs", seed=1, more=bugs)
    served.publish(registry, "bugs", seed=2, more=bugs)
    registry.promote("bugs@1", expected=None)
    served.publish(registry, "colours", seed=3, method="vpt_deep", more=colours,
                   classes=("red", "green", "blue"))  # fmt: skip
    registry.promote("colours@1", expected=None)
    return registry


def answer(registry: Registry, ref: str) -> Answer:
    """Predict one picture with a predictor that has loaded nothing yet."""
    (found,) = Predictor(registry).predict([PICTURE], task=ref)
    return found.digest, found.top_k


def answers(registry: Registry) -> dict[str, Answer]:
    """Answer for all that must answer on."""
    return {ref: answer(registry, ref) for ref in OTHERS}


def flips(size: int, count: int, seed: int = 0) -> Iterator[tuple[int, int]]:
    """Positions and bits to flip: all of a small file, ``count`` drawn over all of a larger."""
    if size <= SMALL:
        yield from ((position, bit) for position in range(size) for bit in range(8))
        return
    generator = random.Random(seed)  # noqa: S311  # no secret
    for number in range(count):  # one in each of `count` equal parts, so that none is left out
        yield (number * size + generator.randrange(size)) // count, generator.randrange(8)


def flipped(data: bytes, position: int, bit: int) -> bytes:
    """Return ``data`` with one bit flipped."""
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


@contextmanager
def restored(path: Path) -> Iterator[bytes]:
    """Give the content of a file, and put it back in the end."""
    sound = path.read_bytes()
    try:
        yield sound
    finally:
        path.write_bytes(sound)


def expect_refusal(registry: Registry, version: Version, name: str) -> None:
    """Check that a version cannot be read, and that the error names the file."""
    with pytest.raises(IntegrityError) as caught:
        registry.read(version)
    assert f"{version.path}/{name} " in caught.value.message
    assert caught.value.exit_code == 4

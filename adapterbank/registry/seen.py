"""Which images a version learned from: the digests of their pixels, ``seen_images.bin``.

Images it was trained on, and those that its hyper-parameters were chosen by. Whoever judges the
version leaves them out; what is stated here can only make the images it is judged on fewer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from adapterbank.errors import IntegrityError

SEEN: Final = "seen_images.bin"
DIGEST_BYTES: Final = 16


def pack_seen(digests: Iterable[bytes]) -> bytes:
    """Write digests one after the other, ascending, each once."""
    return b"".join(sorted(set(digests)))


def parse_seen(data: bytes, *, where: str) -> frozenset[bytes]:
    """Read what :func:`pack_seen` wrote.

    Raises:
        IntegrityError: it is no ascending list of digests.
    """
    starts = range(0, len(data), DIGEST_BYTES)
    digests = [data[start : start + DIGEST_BYTES] for start in starts]
    found = frozenset(digests)
    if pack_seen(found) != data or len(data) % DIGEST_BYTES:
        raise IntegrityError(
            f"{where} is no ascending list of digests of {DIGEST_BYTES} bytes: {len(data)} bytes"
        )
    return found

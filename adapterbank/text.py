"""How numbers are written for people: shares, counts, sizes, durations, digests."""

from __future__ import annotations


def percent(correct: int | None, total: int | None) -> str:
    """Format a count as a percentage; ``–`` where there is none."""
    return f"{100 * correct / total:.1f} %" if correct is not None and total else "–"


def count(number: int, noun: str) -> str:
    """Format a number of things: ``1 version``, ``3 versions``."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def human_bytes(size_bytes: int | None) -> str:
    """Format a size: ``198 KiB``."""
    if size_bytes is None:
        return "–"
    size, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"


def human_seconds(seconds: float | None) -> str:
    """Format a duration: ``8.1 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def short_digest(digest: str | None) -> str:
    """Shorten a digest to what people compare by eye."""
    return "–" if digest is None else digest[:12]

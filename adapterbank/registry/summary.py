"""What a version's files say of it: its configuration, its figures, its sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapterbank.records import Score
from adapterbank.registry.adapter_config import AdapterConfig, parse_adapter_config
from adapterbank.registry.manifest import check_files, check_some
from adapterbank.registry.versions import Version

_CONFIG = "adapter_config.json"
_METRICS = "metrics.json"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a version's files say of it; ``sizes`` are bytes by file name."""

    version: Version
    config: AdapterConfig
    metrics: dict[str, Any]
    sizes: dict[str, int]

    @property
    def parameters(self) -> tuple[int, int] | None:
        """Trained parameters of the method and of the head; None where they are not counted."""
        match self.metrics.get("parameters"):
            case {"method": int(method), "head": int(head)}:
                return method, head
        return None


def summarise(version: Version, *, whole: bool = False) -> Summary:
    """Read what an adapter's version says of itself; check what is read, or the ``whole``.

    Raises:
        IntegrityError: its bytes are missing or not what was published.
    """
    if whole:
        files = check_files(version.path, version.digest)
        sizes = {name: len(data) for name, data in sorted(files.items())}
    else:
        files, sizes = check_some(version.path, version.digest, (_CONFIG, _METRICS))
    return Summary(
        version=version,
        config=parse_adapter_config(files[_CONFIG], where=str(version.path)),
        metrics=json.loads(files.get(_METRICS, b"{}")),
        sizes=sizes,
    )


def score_of(metrics: Mapping[str, Any], *path: str) -> Score | None:
    """Find a count in metrics such as ``("linear_probe", "test")``; versions need not have any."""
    part: Any = metrics
    for name in path:
        part = part.get(name) if isinstance(part, Mapping) else None
    match part:
        case {"correct": int(correct), "total": int(total)}:
            return Score(correct=correct, total=total)
    return None

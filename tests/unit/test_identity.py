"""What a backbone's file says of itself is believed within limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterbank.backbones.identity import check_weights
from adapterbank.errors import IntegrityError
from adapterbank.records import InputSpec


def test_a_tensor_of_more_axes_than_any_has_is_refused_before_they_are_multiplied(
    tmp_path: Path,
) -> None:
    entry = {"dtype": "F32", "shape": [2**63] * 20_000, "data_offsets": [0, 4]}
    header = json.dumps({"norm.bias": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(IntegrityError, match=r"norm\.bias\.shape: Tuple should have at most 8 "):
        check_weights(path, InputSpec(size=(32, 32)), "vit_tiny", "a" * 64)

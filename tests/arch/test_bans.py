"""Nothing that is read can run code: no pickle, in any of its disguises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.source import BENCHMARKS, PACKAGE, name_of

BANNED = (
    r"\bimport (cloud|c)?pickle",
    r"\bfrom (cloud|c)?pickle",
    r"\b(dill|joblib|marshal|shelve)\b",
    r"\btorch\.(load|save|jit\.load)\b",
    r"allow_pickle\s*=\s*True",
    r"\bweights_only\b",
    r"\byaml\.(load|unsafe_load|full_load)\(",
    r"\b(eval|exec)\(",
)


READERS = {"adapterbank/reading.py", "adapterbank/config/yaml.py"}
LIMITLESS = (
    r"\bjson\.loads?\(",
    r"\bJSONDecoder\b",
    r"validate_json\(",
    r"\bfrom_json\(\w*bytes",
    r"\bYAML\(\)\.load",
    r"\byaml\.(safe_load|compose|parse)",
    r"\byaml\.\w*Loader\b",
    r"\bfrom safetensors\.numpy import .*\bload",
)


@pytest.mark.parametrize("path", PACKAGE, ids=name_of)
def test_a_module_reads_json_yaml_and_tensors_by_what_knows_limits(path: Path) -> None:
    text = "" if name_of(path) in READERS else path.read_text(encoding="utf-8")
    assert [pattern for pattern in LIMITLESS if re.search(pattern, text)] == []


@pytest.mark.parametrize("path", [*PACKAGE, *BENCHMARKS], ids=name_of)
def test_a_module_unpickles_and_evaluates_nothing(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    # `.eval()` is a module's evaluation mode.
    text = text.replace(".eval()", "")
    # The command that a user may run to convert a checkpoint is no code of ours.
    text = re.sub(r"^_CONVERT = .*", "", text, flags=re.MULTILINE)
    assert [pattern for pattern in BANNED if re.search(pattern, text)] == []

"""Environment defaults: set where nothing is set, and never over the user's choice."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from adapterbank.integrations.environment import DEFAULTS, quiet_environment


def test_what_is_unset_gets_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)

    quiet_environment()

    assert {name: os.environ[name] for name in DEFAULTS} == dict(DEFAULTS)


def test_the_user_s_choice_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")

    quiet_environment()

    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"


def test_setting_defaults_loads_no_vendor_library() -> None:
    code = (
        "import sys; from adapterbank.integrations import environment, git;"
        "environment.quiet_environment();"
        "print([name for name in ('mlflow', 'dvc', 'ray', 'torch') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"

"""The proof of zero forgetting, and what spoils it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load, save

from adapterbank.bank.bank import Bank
from adapterbank.continual.audit import audit
from adapterbank.registry.store import Registry
from tests.bank_samples import damage, republish, sharpen
from tests.cli_samples import Cli

REPORT = Path("reports/audit.json")


def report_of(bank: Path) -> dict[str, Any]:
    """Return the report on the disk."""
    content: dict[str, Any] = json.loads((bank / REPORT).read_text())
    return content


def test_a_sound_bank_has_forgotten_nothing(bank: Path, cli: Cli) -> None:
    ran = cli("audit", "--json")
    assert ran.code == 0, ran.err
    report = report_of(bank)
    assert json.loads(ran.out) == report
    assert (report["ok"], report["checked"], report["failed"]) == (True, 2, 0)
    assert report["backbone"]["fingerprint"] == Registry.open("registry").backbone().fingerprint
    versions = Registry.open("registry").versions("colours")
    told = [(one["version"], one["digest"]) for one in report["versions"]]
    assert told == [(version.version, version.digest) for version in versions]
    # The same machine computes the same logits, to the bit or nearly so.
    assert all(0 <= one["canary_difference"] < 1e-5 for one in report["versions"])
    text = cli("audit").out
    assert "2 versions checked: nothing was forgotten" in text
    assert report["backbone"]["fingerprint"] in text
    assert "colours" in text


def test_two_audits_of_one_bank_differ_in_the_time_alone(bank: Path) -> None:
    seen = []
    opened = Bank.open(bank)
    for second in (1, 2):
        audit(opened, clock=lambda second=second: f"2026-01-01T00:00:0{second}Z")  # type: ignore[misc]
        seen.append((bank / REPORT).read_text())
    assert seen[0] != seen[1]
    assert seen[0].replace("00:00:01Z", "00:00:02Z") == seen[1]


def test_older_versions_are_unchanged_by_a_new_task(bank: Path) -> None:
    opened = Bank.open(bank)
    before = audit(opened)
    republish(opened, "colours@1", sharpen, task="paints")
    after = audit(opened, before="paints@1")
    assert after.ok
    assert after.versions == before.versions


@pytest.mark.parametrize(
    ("moment", "checked"),
    [("2001-01-01", 0), ("2001-01-01T12:00:00+02:00", 0), ("2100-01-01", 2), ("colours@2", 1)],
)
def test_only_versions_published_before_a_moment_are_checked(
    bank: Path, cli: Cli, moment: str, checked: int
) -> None:
    ran = cli("audit", "--before", moment)
    assert ran.code == 0, ran.err
    assert (report_of(bank)["checked"], report_of(bank)["before"]) == (checked, moment)
    assert f"published before {moment} checked" in ran.out


@pytest.mark.parametrize(("moment", "code"), [("yesterday", 2), ("colours@9", 3), ("dtd@1", 3)])
def test_a_moment_that_is_none_is_refused(bank: Path, cli: Cli, moment: str, code: int) -> None:
    assert cli("audit", "--before", moment).code == code
    assert not (bank / REPORT).exists()


def flip(bank: Path) -> None:
    """Flip a bit of the weights."""
    damage(Registry.open(bank / "registry").resolve("colours@2").path / "adapter_model.safetensors")


def delete(bank: Path) -> None:
    """Delete a version."""
    shutil.rmtree(Registry.open(bank / "registry").resolve("colours@2").path)


def swap(bank: Path) -> None:
    """Put another version in its place."""
    registry = Registry.open(bank / "registry")
    target = registry.resolve("colours@2").path
    shutil.rmtree(target)
    shutil.copytree(registry.resolve("colours@1").path, target)


def lie(bank: Path) -> None:
    """Publish a version whose canary its weights never gave."""
    registry = Registry.open(bank / "registry")
    files = registry.read(registry.resolve("colours@1"))
    logits = load(files["canary.safetensors"])["logits"]
    changed = {**files, "canary.safetensors": save({"logits": 1.1 * logits})}
    del changed["manifest.json"]
    registry.register("colours", changed)


@pytest.mark.parametrize(
    ("spoil", "name", "equal"),
    [
        (flip, "colours@2", False),
        (delete, "colours@2", False),
        (swap, "colours@2", False),
        (lie, "colours@3", True),
    ],
    ids=["bit", "deleted", "swapped", "answers"],
)
def test_a_tampered_version_fails_by_name_with_1(
    bank: Path, cli: Cli, spoil: Callable[[Path], None], name: str, equal: bool
) -> None:
    spoil(bank)
    ran = cli("audit")
    assert ran.code == 1, ran.err
    assert f"FAILED {name}: " in ran.out
    assert "FAILED colours@1" not in ran.out
    report = report_of(bank)
    assert (report["ok"], report["failed"]) == (False, 1)
    (failed,) = [one for one in report["versions"] if one["problem"]]
    assert (f"{failed['task']}@{failed['version']}", failed["bytes_equal"]) == (name, equal)


def test_a_damaged_record_fails_its_task_and_no_other(bank: Path, cli: Cli) -> None:
    republish(Bank.open(bank), "colours@1", sharpen, task="paints")
    (bank / "registry" / "aliases" / "colours.json").write_text("{")
    ran = cli("audit")
    assert ran.code == 1
    assert "FAILED colours: " in ran.out
    assert "FAILED paints" not in ran.out


def test_a_damaged_backbone_fails_every_version(bank: Path, cli: Cli) -> None:
    damage(bank / "registry" / "backbone" / "model.safetensors")
    ran = cli("audit", "--json")
    assert ran.code == 1
    report = json.loads(ran.out)
    assert "fingerprint" in report["backbone"]["problem"]
    assert [one["bytes_equal"] for one in report["versions"]] == [True, True]
    assert report["failed"] == 2


def test_an_audit_changes_nothing_but_its_report(bank: Path, cli: Cli) -> None:
    def content() -> dict[str, bytes]:
        return {
            str(path.relative_to(bank)): path.read_bytes()
            for path in sorted((bank / "registry").rglob("*"))
            if path.is_file()
        }

    before = content()
    assert cli("audit").code == 0
    assert content() == before
    assert [path.name for path in (bank / "reports").iterdir()] == ["audit.json"]

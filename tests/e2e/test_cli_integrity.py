"""What the program does with a bank that is not what was published, and with bad names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load, save

from adapterbank.backbones.sources import fetch
from adapterbank.bank.bank import Bank
from adapterbank.registry.store import Registry
from tests.bank_samples import republish as copy_version
from tests.bank_samples import sharpen
from tests.cli_samples import Cli

PICTURE = "photos/green/00.png"
WEIGHTS = Path("registry/backbone/model.safetensors")
RECORD = Path("registry/backbone.json")


def predict(cli: Cli, ref: str = "colours") -> tuple[int, str, str]:
    """Predict; give the exit code, standard output and the message of the error."""
    ran = cli("predict", "--task", ref, "--json", PICTURE)
    return ran.code, ran.out, json.loads(ran.err)["message"] if ran.err else ""


def test_another_backbone_of_equal_shapes_is_refused_by_its_fingerprint(
    bank: Path, cli: Cli
) -> None:
    record = Registry.open(bank / "registry").backbone()
    other = fetch(record.uri.replace("seed=0", "seed=1"))
    sound = load(WEIGHTS.read_bytes())
    assert {n: t.shape for n, t in other.state.items()} == {n: t.shape for n, t in sound.items()}
    WEIGHTS.write_bytes(save(other.state))
    code, out, message = predict(cli)
    assert (code, out) == (4, "")
    assert f"expected {record.fingerprint[:16]}" in message


@pytest.mark.parametrize("bit", [0, 7])
def test_one_changed_bit_of_one_weight_of_the_backbone_is_refused(
    bank: Path, cli: Cli, bit: int
) -> None:
    assert bank.is_dir()
    sound = bytearray(WEIGHTS.read_bytes())
    sound[-4] ^= 1 << bit  # the last digits of the last number
    WEIGHTS.write_bytes(sound)
    code, out, message = predict(cli)
    assert (code, out) == (4, "")
    assert "fingerprint" in message
    ran = cli("predict", "--task", "colours", PICTURE)
    assert (ran.code, ran.out) == (4, "")
    assert "To mend it: adapterbank backbone fetch --force" in ran.err


def test_a_backbone_whose_record_was_changed_along_is_not_that_of_the_versions(
    bank: Path, cli: Cli
) -> None:
    record = Registry.open(bank / "registry").backbone()
    shutil.move(RECORD, "aside.json")
    changed = Path("aside.json").read_text().replace(record.fingerprint, "ef" * 32)
    RECORD.write_text(changed)
    assert predict(cli)[0] == 4  # its weights are not those it names
    ran = cli("verify", "--json")
    assert ran.code == 4
    assert "efefefefefef" in ran.out + ran.err


def test_a_record_that_states_other_traits_than_the_weights_have_is_refused(
    bank: Path, cli: Cli
) -> None:
    assert bank.is_dir()
    text = RECORD.read_text()
    assert '"width": 32' in text
    RECORD.write_text(text.replace('"width": 32', '"width": 33'))
    code, out, message = predict(cli)
    assert (code, out) == (4, "")
    assert "width=33" in message


NAMES = [
    "../x", "/etc/passwd", "", ".", "..", "colours/", "COLOURS", "colours\n3",
    "\uff43olours", "c\u043elours", "colours\0", "colours\udcff", "a" * 100_000, "colours@../x",
    "colours@sha256:../x", "colours@@1", "colours@\u0663", "colours@1\0", "colours@",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=[f"{number:02}" for number in range(len(NAMES))])
def test_a_name_that_is_none_is_a_usage_error_of_every_command(
    bank: Path, cli: Cli, name: str
) -> None:
    before = {path for path in bank.parent.rglob("*") if "mlflow" not in path.name}
    for words in (
        ["predict", "--task", name, PICTURE],
        ["promote", name, "--expected", "none"],
        ["verify", name],
        ["show", name],
        ["evaluate", name],
    ):
        ran = cli(*words)
        assert ran.code == 2, (words[0], ran.err)
        assert ran.out == ""
        assert "Internal" not in ran.err
    if "@" not in name:
        for words in (["history", name], ["rollback", name], ["task", "remove", name, "--yes"]):
            ran = cli(*words)
            assert ran.code == (3 if words[0] == "task" else 2), (words[0], ran.err)
    assert {path for path in bank.parent.rglob("*") if "mlflow" not in path.name} == before


@pytest.mark.parametrize("alias", ["../x", "", "Champion", "\u0441hampion", "a" * 33, "b\0", "b\n"])
def test_an_alias_that_is_none_is_a_usage_error(bank: Path, cli: Cli, alias: str) -> None:
    assert bank.is_dir()
    for words in (
        ["promote", "colours@2", "--alias", alias, "--expected", "none"],
        ["rollback", "colours", "--alias", alias],
    ):
        ran = cli(*words)
        assert ran.code == 2, (words[0], ran.err)


@pytest.mark.parametrize("name", ["a\0b.png", "a" * 5000 + ".png", "\udcff.png", "a\nb.png"])
def test_a_path_no_file_can_have_is_a_bad_image_and_the_rest_go_on(
    bank: Path, cli: Cli, name: str
) -> None:
    assert bank.is_dir()
    ran = cli("predict", "--task", "colours", "--json", name, PICTURE)
    assert ran.code == 1, ran.err
    bad, good = [json.loads(line) for line in ran.out.splitlines()]
    assert bad["image"] == name
    assert good["image"] == PICTURE


def test_other_tasks_answer_on_whatever_is_wrong_with_one(bank: Path, cli: Cli) -> None:
    copy_version(Bank.open(bank), "colours@1", sharpen, task="paints")
    registry = Registry.open(bank / "registry")
    before = json.loads(predict(cli, "paints@1")[1]) | {"latency_ms": 0}
    version = registry.resolve("colours")
    for spoil in (
        lambda: (version.path / "adapter_config.json").write_bytes(b"{}"),
        (version.path / "extra").mkdir,
        lambda: shutil.rmtree(version.path),
        lambda: (bank / "registry/aliases/colours.json").write_text("[]"),
    ):
        spoil()
        code, out, message = predict(cli)
        assert (code, out) == (4, "")
        assert "colours" in message
        code, out, _ = predict(cli, "paints@1")
        assert code == 0
        assert json.loads(out) | {"latency_ms": 0} == before


def test_a_linked_folder_of_aliases_is_refused(bank: Path, cli: Cli) -> None:
    aliases = bank / "registry" / "aliases"
    aliases.rename(bank / "elsewhere")
    aliases.symlink_to(bank / "elsewhere")
    code, out, message = predict(cli)
    assert (code, out) == (4, "")
    assert "aliases is a symbolic link" in message
    for command in ("list", "verify", "audit", "status"):
        ran = cli(command)
        assert ran.code == 4, (command, ran.err)
        assert "aliases is a symbolic link" in ran.err

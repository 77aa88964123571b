"""What is kept is computed with one number of threads, whatever the process had before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from threadpoolctl import threadpool_info

from adapterbank.config.bank import TrainConfig
from adapterbank.errors import InputError
from adapterbank.model.threads import computing_with
from adapterbank.training.loop import train
from adapterbank.training.sinks import Epoch
from tests import tiny, toys


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """Give the process its number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _product() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(740, 384, generator=generator)
    return (rows @ rows.mT).double().logsumexp(0) + rows.sum()


@pytest.mark.parametrize("had", [1, 2, 3])
def test_the_same_sums_come_to_the_same_bits_whatever_the_process_had(had: int) -> None:
    torch.set_num_threads(2)
    expected = _product()
    torch.set_num_threads(had)
    with computing_with(2):
        assert torch.equal(_product(), expected)
    assert torch.get_num_threads() == had


def test_numpys_linear_algebra_runs_in_one_thread() -> None:
    with computing_with(3):
        blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    assert blas == {1}


class _Counting:
    """A sink that keeps the number of threads each step and epoch was computed with."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def step(self, done: int, total: int) -> None:
        del done, total
        self.seen.add(torch.get_num_threads())

    def epoch(self, epoch: Epoch) -> None:
        del epoch
        self.seen.add(torch.get_num_threads())


@pytest.mark.parametrize("threads", [1, 3])
def test_a_training_computes_with_the_threads_of_its_settings(threads: int) -> None:
    torch.set_num_threads(2)
    backbone, counting = tiny.backbone("plain"), _Counting()
    adapter = toys.start("vapt", backbone)
    settings = TrainConfig(epochs=1, batch_size=12, threads=threads)
    train(backbone, toys.task(), adapter, toys.RECIPE, settings, seed=0, sinks=(counting,))
    assert counting.seen == {threads}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMP_DYNAMIC", "true"),
        ("OMP_DYNAMIC", "TRUE"),
        ("OMP_THREAD_LIMIT", "1"),
        ("OMP_MAX_ACTIVE_LEVELS", "0"),
    ],
)
def test_a_variable_that_silently_takes_threads_away_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"{name}={value}"), computing_with(2):
        pass
    with computing_with(1):  # of one thread none can be taken
        pass


@pytest.mark.parametrize(
    ("name", "value"),
    [("OMP_NUM_THREADS", "1"), ("OMP_DYNAMIC", "false"), ("OMP_THREAD_LIMIT", "2")],
)
def test_other_variables_change_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with computing_with(2):
        assert torch.get_num_threads() == 2

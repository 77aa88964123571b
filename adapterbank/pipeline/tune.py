"""The ``tune`` stage: a task's hyper-parameters searched, or noted as pinned."""

from __future__ import annotations

import os
from collections.abc import Callable

from adapterbank.bank.bank import Bank
from adapterbank.bank.plan import is_searched, write_pinned
from adapterbank.search import STORAGE, study
from adapterbank.search.task_search import View


def tune(
    bank: Bank, task: str, view: View, note: Callable[[str], None]
) -> study.SearchResult | None:
    """Search a task's hyper-parameters where there is anything to choose.

    The cluster and the storage are those of ``RAY_ADDRESS`` and ``ADAPTERBANK_STORAGE``, so that
    ``dvc repro`` takes up what ``adapterbank tune`` found there.

    Args:
        bank: an open bank.
        task: a task that is prepared.
        view: shown how the search goes.
        note: told, in a sentence, of a search that goes on.

    Returns:
        What the search found; None where the method has no choice or the task pins all of it.

    Raises:
        AdapterBankError: see :func:`adapterbank.search.study.tune`.
    """
    if not is_searched(bank, task):
        write_pinned(bank, task)
        return None
    where = study.Where(storage=os.environ.get(STORAGE) or None)
    (result,) = study.tune(bank, [task], view, where, earlier="renew", note=note)
    return result

"""A version of the bank as an MLflow model: ``mlflow.pyfunc.load_model("models:/dtd@champion")``.

The ``MLmodel`` file that :mod:`adapterbank.integrations.mlflow.artifacts` adds to a download
names this module as the loader. The model is one version of one task and answers for no other.

MLflow drops parameters that a model does not name, with a warning, before the model sees any. That
a mistyped one is dropped costs no wrong answer: every row says which task and version it is of.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # comes with MLflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE
from PIL import Image

from adapterbank.config.bank import find_bank
from adapterbank.durable import read_file
from adapterbank.errors import AdapterBankError, InputError, IntegrityError, UnknownName
from adapterbank.inference.decoding import ImageInput
from adapterbank.inference.predictor import Predictor
from adapterbank.integrations.mlflow.artifacts import TOP_K, start_of_bank
from adapterbank.registry.adapter_config import parse_adapter_config
from adapterbank.registry.manifest import (
    FILE_LIMITS,
    MANIFEST,
    MANIFEST_LIMIT,
    check_payload,
    parse_manifest,
    version_digest,
)
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version

COLUMN: Final = "image"

_DATA_URI: Final = "data:"
_BASE64: Final = re.compile(r"[A-Za-z0-9+/\s]{32,}={0,2}\s*")  # no path to an image: it has no dot
_FORMS: Final = (
    f'Accepted are {{"dataframe_split": {{"columns": ["{COLUMN}"], "data": [["…"]]}}}},'
    f' {{"dataframe_records": [{{"{COLUMN}": "…"}}]}}, {{"inputs": ["…"]}},'
    f' {{"instances": ["…"]}}, and the last two with {{"{COLUMN}": "…"}} for "…" as well, where'
    ' "…" is the path of an image on the server, or its bytes in base64; "params" may have'
    ' "top_k" and "task"'
)


class BankModel:
    """One version, verified and ready, as MLflow's pyfunc calls it.

    Args:
        predictor: of the bank; it has loaded the version.
        version: the one that answers.
    """

    def __init__(self, predictor: Predictor, version: Version) -> None:
        self._predictor = predictor
        self.version = version

    def predict(
        self,
        model_input: Any,  # noqa: ANN401  # whatever MLflow was given
        params: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Classify images.

        Args:
            model_input: a list, a column, a table with the one column ``image``, or a list of
                its rows, of paths, encoded bytes, the same in base64 (alone or as a ``data:``
                address), or PIL images.
            params: ``top_k``; ``task``, which can only be the model's own. MLflow drops others,
                with a warning.

        Returns:
            For each image, in order: image, task, version, digest, label, probability and
            ``top_k``, a list of labels with their probabilities.

        Raises:
            MlflowException: another task, or a value, a column or an image that cannot be used,
                which a server tells as 400 with the forms that are accepted; or the bank is not
                what was published, which it tells as 500.
        """
        given = params or {}
        task, top_k = given.get("task", self.version.task), given.get("top_k", TOP_K)
        if task != self.version.task:
            raise _refused(
                f"this model answers for {self.version.task!r} alone, not for {task!r}: load"
                f" models:/{task}@champion"
            )
        ref = f"{task}@sha256:{self.version.digest}"
        try:
            images = _images(model_input)
            answers = self._predictor.predict(images, task=ref, top_k=int(top_k))
        except (InputError, UnknownName) as error:
            raise _refused(f"{error}\n{_FORMS}") from error
        except AdapterBankError as error:
            raise MlflowException(str(error), error_code=INTERNAL_ERROR) from error
        rows = [
            {name: getattr(answer, name) for name in _OUTPUT}
            | {"top_k": [list(pair) for pair in answer.top_k]}
            for answer in answers
        ]
        return pd.DataFrame(rows, columns=_OUTPUT)


_OUTPUT: Final = ("image", "task", "version", "digest", "label", "probability", "top_k")


def _load_pyfunc(path: str) -> BankModel:
    """Load a downloaded version; MLflow calls it by this name.

    The bank at or above ``ADAPTERBANK_BANK``, or else the current folder, has the backbone and
    knows the version. Digest, fingerprint and canary are checked.

    Args:
        path: the folder of the download.

    Raises:
        AdapterBankError: no bank, a version it does not know, or anything that is not what was
            published.
    """
    folder = Path(path)
    files = _read(folder)
    digest = version_digest(files[MANIFEST])
    check_payload(files, digest, where=path)
    task = parse_adapter_config(files["adapter_config.json"], where=path).task
    predictor = Predictor(Registry.open(find_bank(start_of_bank()) / "registry"))
    version = predictor.registry.resolve(f"{task}@sha256:{digest}")
    predictor.load_files(version, files)
    return BankModel(predictor, version)


def _read(folder: Path) -> dict[str, bytes]:
    """Read the files of the version alone: MLflow may lay others beside them."""
    try:
        manifest = read_file(folder / MANIFEST, limit=MANIFEST_LIMIT)
        names = parse_manifest(manifest, where=str(folder / MANIFEST))
        files = {name: read_file(folder / name, limit=FILE_LIMITS[name]) for name in names}
    except FileNotFoundError as error:
        raise IntegrityError(f"{error.filename} is missing: {folder} is no version") from error
    return {**files, MANIFEST: manifest}


def _images(given: Any) -> list[ImageInput]:  # noqa: ANN401  # whatever MLflow was given
    values: Any = given
    if isinstance(given, pd.DataFrame | Mapping):
        values = _column(given)
    if isinstance(values, str | bytes | Path | Image.Image):
        values = [values]
    if isinstance(values, np.ndarray):
        values = values.reshape(-1)
    if not isinstance(values, list | tuple | pd.Series | np.ndarray):
        raise InputError(f"cannot take images from a {type(values).__name__}")
    rows = (_column(value) if isinstance(value, Mapping) else value for value in values)
    return [_image(value, index) for index, value in enumerate(rows)]


def _column(given: Any) -> Any:  # noqa: ANN401  # a table or a row
    """Return the one column that a table or a row may have."""
    if list(given) != [COLUMN]:
        what = "the table has the columns" if isinstance(given, pd.DataFrame) else "got"
        raise InputError(f"{what} {', '.join(map(str, given))}, expected {COLUMN!r} alone")
    return given[COLUMN]


def _image(value: Any, index: int) -> ImageInput:  # noqa: ANN401  # one cell of a table
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, list | tuple) and len(value) == 1:  # a row of a list of rows
        (value,) = value
    if isinstance(value, str) and value.startswith(_DATA_URI):
        head, _, data = value.partition(",")
        if not head.endswith(";base64"):
            raise InputError(f"image {index}: a {_DATA_URI} address has to be base64")
        return _decoded(data, index)
    if isinstance(value, str) and _BASE64.fullmatch(value) and not _is_file(value):
        return _decoded(value, index)
    if isinstance(value, str | bytes | Path | Image.Image):
        return value
    raise InputError(
        f"image {index} is a {type(value).__name__}, expected a path, bytes or a PIL image"
    )


def _decoded(text: str, index: int) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise InputError(f"image {index}: not base64: {error}") from error


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # longer than any name
        return False


def _refused(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)

"""A downloaded version as an MLflow model: it answers as the bank does, and for its task alone."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import mlflow
import pandas as pd  # type: ignore[import-untyped]  # comes with MLflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, scoring_server
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from adapterbank.errors import CanaryMismatch, InputError, IntegrityError, UnknownName
from adapterbank.inference.predictor import Predictor
from adapterbank.integrations.mlflow.artifacts import MLMODEL, DvcArtifactRepository
from adapterbank.integrations.mlflow.mirror import lookup
from adapterbank.registry.manifest import build_manifest
from adapterbank.registry.store import Registry
from tests.bank_samples import damage


def download(bank: Path, target: Path, number: int = 0) -> Path:
    """Download what MLflow has as its first (or another) version of the task."""
    target.mkdir()
    fetch = DvcArtifactRepository(lookup(bank, "colours").versions[number].source)
    return Path(fetch.download_artifacts("", str(target)))  # type: ignore[no-untyped-call]


def load(folder: Path) -> PyFuncModel:
    model: PyFuncModel = mlflow.pyfunc.load_model(str(folder))
    return model


def rows(answer: object) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", cast("Any", answer).to_dict(orient="records"))


@pytest.fixture
def folder(bank: Path, tmp_path: Path) -> Path:
    return download(bank, tmp_path / "download")


@pytest.fixture
def images(bank: Path) -> list[str]:
    return [str(path) for path in sorted(bank.glob("photos/*/0[0-3].png"))]


def test_the_answers_are_the_predictor_s_own(bank: Path, folder: Path, images: list[str]) -> None:
    expected = Predictor(bank / "registry").predict(images, task="colours@1")
    table = pd.DataFrame({"image": images})
    found = rows(load(folder).predict(table))
    assert len(found) == len(images) == 12
    assert found == [
        {
            "image": one.image, "task": "colours", "version": 1, "digest": one.digest,
            "label": one.label, "probability": one.probability,
            "top_k": [list(pair) for pair in one.top_k],
        }
        for one in expected
    ]  # fmt: skip


def test_a_list_bytes_an_address_and_one_image_answer_alike(
    folder: Path, images: list[str]
) -> None:
    model = load(folder)
    (expected,) = rows(model.predict(images[:1]))
    data = Path(images[0]).read_bytes()
    address = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    for given in ([data], [address], images[0], {"image": images[:1]}, [Path(images[0])]):
        (found,) = rows(model.predict(given))
        assert {**found, "image": expected["image"]} == expected


def test_top_k_is_a_parameter_and_so_is_the_model_s_own_task(
    folder: Path, images: list[str]
) -> None:
    (found,) = rows(load(folder).predict(images[:1], params={"top_k": 1, "task": "colours"}))
    assert found["top_k"] == [[found["label"], found["probability"]]]


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"task": "pets"}, "answers for 'colours' alone, not for 'pets'"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": "many"}, "top_k"),
        (["task"], "Parameters must be a dictionary"),
    ],
    ids=str,
)
def test_a_parameter_that_cannot_be_used_is_refused(
    folder: Path, images: list[str], params: dict[str, Any], reason: str
) -> None:
    with pytest.raises(MlflowException, match=reason) as caught:
        load(folder).predict(images[:1], params=params)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_images_that_cannot_be_used_are_refused(folder: Path, images: list[str]) -> None:
    table = pd.DataFrame({"image": images, "task": "pets"})
    model = load(folder)
    for given, reason in (
        (table, "expected 'image' alone"),
        ({"taks": ["pets"]}, "expected 'image' alone"),
        ([str(folder / "nothing.png")], "nothing.png"),
        ([3.5], "image 0 is a float"),
        (["data:image/png;base64,!"], "not base64"),
        (["A" * 33], "not base64"),
        (["A" * 64], "image 0"),
        ([["a.png", "b.png"]], "image 0 is a list"),
        ([{"picture": "a.png"}], "got picture, expected 'image' alone"),
        (["data:text/plain,hello"], "has to be base64"),
        (7, "cannot take images from a int"),
    ):
        with pytest.raises(MlflowException, match=re.escape(reason)) as caught:
            model.predict(given)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_parameter_that_mlflow_drops_changes_no_answer(folder: Path, images: list[str]) -> None:
    model = load(folder)
    answers = rows(model.predict(images, params={"taks": "pets"}))
    assert answers == rows(model.predict(images))
    assert {row["task"] for row in answers} == {"colours"}


def test_a_version_whose_folder_is_gone_answers_from_the_download(
    bank: Path, folder: Path, images: list[str]
) -> None:
    expected = rows(load(folder).predict(images))
    shutil.rmtree(bank / "registry" / "adapters")
    assert rows(load(folder).predict(images)) == expected


def test_an_altered_download_is_refused_by_the_file_s_name(folder: Path) -> None:
    damage(folder / "adapter_model.safetensors")
    with pytest.raises(IntegrityError, match="adapter_model"):
        load(folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        load(folder)


def test_a_version_that_the_bank_does_not_know_is_refused(folder: Path) -> None:
    files = {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name not in {MLMODEL, "manifest.json"}
    }
    files["README.md"] += b"and more\n"
    (folder / "README.md").write_bytes(files["README.md"])
    (folder / "manifest.json").write_bytes(build_manifest(files))
    with pytest.raises(UnknownName):
        load(folder)


def test_other_weights_are_refused(bank: Path, folder: Path) -> None:
    weights = Registry.open(bank / "registry").backbone_weights
    tensors = load_arrays(weights.read_bytes())
    name = max(tensors)
    weights.unlink()
    weights.write_bytes(save_arrays({**tensors, name: tensors[name] + 1}))
    with pytest.raises(IntegrityError, match="fingerprint"):
        load(folder)


def test_a_version_that_answers_differently_than_it_did_is_refused(
    bank: Path, folder: Path
) -> None:
    registry = Registry.open(bank / "registry")
    files = registry.read(registry.resolve("colours@1"))
    del files["manifest.json"]
    canary = load_arrays(files["canary.safetensors"])
    files["canary.safetensors"] = save_arrays({**canary, "logits": canary["logits"] * 1.5})
    version = registry.register("colours", files, actor="a test")
    for path in version.path.iterdir():
        shutil.copy(path, folder)
    with pytest.raises(CanaryMismatch):
        load(folder)


def test_outside_a_bank_the_error_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERBANK_BANK", str(tmp_path))
    with pytest.raises(InputError, match="not inside a bank"):
        load(folder)


def test_a_request_for_another_task_is_a_bad_one(folder: Path, images: list[str]) -> None:
    """What ``mlflow models serve`` does with a request's body."""
    model = load(folder)
    table = {"columns": ["image"], "data": [[image] for image in images]}

    def ask(**params: object) -> str:
        body = json.dumps({"dataframe_split": table, "params": params})
        answer = scoring_server.invocations(  # type: ignore[no-untyped-call]
            body, "application/json", model, None
        )
        return str(answer.response)

    found = json.loads(ask(top_k=1))["predictions"]
    assert found == rows(model.predict(images, params={"top_k": 1}))
    with pytest.raises(MlflowException) as caught:
        ask(task="pets")
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"  # which HTTP calls 400


@pytest.fixture(scope="module")
def served(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PyFuncModel]:
    """Return a model as a server has it, loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(built)
        yield load(download(built, tmp_path_factory.mktemp("served") / "download"))


def asked(model: PyFuncModel, body: object) -> Any:  # noqa: ANN401  # an answer in JSON
    """Ask as an HTTP request asks ``mlflow models serve``."""
    answer = scoring_server.invocations(  # type: ignore[no-untyped-call]
        json.dumps(body), "application/json", model, None
    )
    assert answer.status == 200
    return json.loads(answer.response)["predictions"]


FORMS: dict[str, Callable[[list[str]], object]] = {
    "dataframe_split": lambda given: {
        "dataframe_split": {"columns": ["image"], "data": [[one] for one in given]}
    },
    "dataframe_records": lambda given: {"dataframe_records": [{"image": one} for one in given]},
    "inputs": lambda given: {"inputs": given},
    "inputs by name": lambda given: {"inputs": {"image": given}},
    "inputs of rows": lambda given: {"inputs": [{"image": one} for one in given]},
    "inputs of lists": lambda given: {"inputs": [[one] for one in given]},
    "instances": lambda given: {"instances": given},
    "instances by name": lambda given: {"instances": [{"image": one} for one in given]},
    "instances of lists": lambda given: {"instances": [[one] for one in given]},
}


@pytest.mark.parametrize("encoded", ["path", "base64", "address"])
@pytest.mark.parametrize("form", FORMS)
def test_a_server_answers_in_every_form_that_mlflow_documents(
    served: PyFuncModel, built: Path, form: str, encoded: str
) -> None:
    paths = sorted(built.glob("photos/*/00.png"))
    texts = [base64.b64encode(path.read_bytes()).decode() for path in paths]
    given = {
        "path": [str(path) for path in paths],
        "base64": texts,
        "address": [f"data:image/png;base64,{text}" for text in texts],
    }[encoded]
    expected = [(row["label"], row["probability"]) for row in rows(served.predict(given))]
    found = asked(served, FORMS[form](given))
    assert [(row["label"], row["probability"]) for row in found] == expected
    assert len({row["label"] for row in found}) > 1 or len(found) == 3


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["picture"], "data": [["a.png"]]}},
        {"dataframe_split": {"data": [["a.png"]]}},
        {"dataframe_records": [{"image": "a.png", "more": 1}]},
        {"dataframe_records": [{"image": None}]},
        {"inputs": 7},
        {"inputs": None},
        {"inputs": {"picture": ["a.png"]}},
        {"instances": [{"picture": "a.png"}]},
        {"instances": [[0.5, 0.5]]},
        {"instances": ["nothing.png"]},
        {"instances": ["A" * 64]},
        {"inputs": ["a.png"], "params": {"top_k": 0}},
        {"messages": [{"role": "user", "content": "a.png"}]},
        {"prompt": "a.png"},
    ],
    ids=str,
)
def test_a_bad_request_is_told_which_forms_are_accepted(served: PyFuncModel, body: object) -> None:
    with pytest.raises(MlflowException) as caught:
        asked(served, body)
    assert caught.value.get_http_status_code() == 400  # type: ignore[no-untyped-call]
    forms = ("dataframe_split", "dataframe_records", "inputs", "instances")
    assert [form for form in forms if form not in caught.value.message] == []


def test_what_is_wrong_with_the_bank_is_no_bad_request(
    served: PyFuncModel, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise IntegrityError("not what was published")

    monkeypatch.setattr(Predictor, "predict", fail)
    with pytest.raises(MlflowException, match="not what was published") as caught:
        asked(served, {"inputs": [str(next(built.glob("photos/*/00.png")))]})
    assert caught.value.get_http_status_code() == 500  # type: ignore[no-untyped-call]

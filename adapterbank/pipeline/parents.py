"""Which champion a new adapter had best start from: far ones are put aside, near ones tried.

First the Gaussians of all champions' stored frozen features are held against the target's, which
costs no forward. Then the nearest adapters run on some of the target's training images, and the one
whose features separate the target's classes best, by the shrunk H-score, is the parent. No
validation or test image is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from adapterbank.backbones.base import Backbone
from adapterbank.data.base import Split
from adapterbank.data.splits import choose, generator
from adapterbank.errors import InputError, IntegrityError
from adapterbank.inference.artifact import ADAPTER_CONFIG, ADAPTER_MODEL, load_adapter
from adapterbank.inference.champions import champions, read_routing
from adapterbank.methods.base import Adapter, Folded
from adapterbank.pipeline.transferability import TaskGaussian, bhattacharyya, shrunk_h_score
from adapterbank.registry.adapter_config import AdapterConfig, parse_adapter_config
from adapterbank.registry.manifest import check_some
from adapterbank.registry.store import Registry
from adapterbank.registry.versions import Version
from adapterbank.routing.record import TaskStatistics
from adapterbank.training.evaluation import Progress, extract_features

KEPT = 5  # of the nearest; each costs a pass over the images
IMAGES = 512  # of the target, at most
_HEAD = "head."


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """The task that is to be learned.

    Args:
        task: its name; no champion of its own is a candidate.
        method: the method of its adapter.
        start: the adapter at its start, whose shapes a candidate must have.
        record: statistics of its frozen training features.
        train: its training images; at most 512 are used, of all classes alike.
        digest: of its data.
    """

    task: str
    method: str
    start: Adapter
    record: TaskStatistics
    train: Split
    digest: str


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A champion that the adapter could start from.

    Args:
        version: the champion.
        distance: Bhattacharyya distance of its task's frozen features to the target's, in nats.
        score: shrunk H-score of the target's features under its adapter; None where it was not
            among the nearest.
    """

    version: Version
    distance: float
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Candidates, the best first; those that were not run follow by distance.

    Args:
        images: of the target that adapters were run on.
        bare: shrunk H-score of the backbone's own features of these images.
        candidates: of the same method and shapes.
        left_out: why a champion is no candidate, by task.
        damaged: those of them whose files are missing here or not what was published.
    """

    images: int
    bare: float
    candidates: tuple[Candidate, ...]
    left_out: Mapping[str, str]
    damaged: tuple[str, ...] = ()

    @property
    def parent(self) -> Candidate | None:
        """The candidate with the best H-score; of equal ones the nearer."""
        return self.candidates[0] if self.candidates else None


def rank(
    registry: Registry, backbone: Backbone, target: Target, progress: Progress | None = None
) -> Ranking:
    """Rank all champions as parents of a task's adapter.

    Args:
        registry: an open registry.
        backbone: its backbone.
        target: the task to be learned.
        progress: told of the images of each forward.

    Raises:
        InputError: all frozen features of the target are the same.
    """
    left_out: dict[str, str] = {}
    damaged: list[str] = []
    own = TaskGaussian.of(target.record)
    found = []
    for version in champions(registry):
        if version.task == target.task:
            continue
        try:
            other = TaskGaussian.of(_record(version, target))
        except (InputError, IntegrityError) as error:
            left_out[version.task] = error.message
            damaged += [version.task] if isinstance(error, IntegrityError) else []
            continue
        found.append(Candidate(version=version, distance=bhattacharyya(own, other)))
    found.sort(key=lambda one: (one.distance, one.version.task))
    images = some(target.train)
    tried: list[Candidate] = []
    while found and len(tried) < KEPT:
        near = found.pop(0)
        try:
            folded = _folded(registry, near.version, backbone)
        except IntegrityError as error:  # in a file that no distance needs
            left_out[near.version.task] = error.message
            damaged.append(near.version.task)
            continue
        tried.append(replace(near, score=h_score(backbone, images, folded, progress)))
    tried.sort(key=lambda one: (-(one.score or 0.0), one.distance, one.version.task))
    return Ranking(
        images=len(images),
        bare=h_score(backbone, images, None, progress),
        candidates=(*tried, *found),
        left_out=left_out,
        damaged=tuple(damaged),
    )


def score_one(
    registry: Registry,
    version: Version,
    backbone: Backbone,
    target: Target,
    progress: Progress | None = None,
) -> Ranking:
    """Score one version as a parent, whatever its method and shapes are.

    Raises:
        InputError: it has no routing record, or all features of a task are the same.
        IntegrityError: it is not what was published.
    """
    other = TaskGaussian.of(_read_record(version))
    images = some(target.train)
    candidate = Candidate(
        version=version,
        distance=bhattacharyya(TaskGaussian.of(target.record), other),
        score=h_score(backbone, images, _folded(registry, version, backbone), progress),
    )
    return Ranking(
        images=len(images),
        bare=h_score(backbone, images, None, progress),
        candidates=(candidate,),
        left_out={},
    )


def method_tensors(adapter: Adapter) -> dict[str, Tensor]:
    """Tensors of an adapter but its head's, which belongs to the task's classes."""
    return {n: t for n, t in adapter.state_dict().items() if not n.startswith(_HEAD)}


def seen_images(config: AdapterConfig, task: str, digest: str) -> str | None:
    """Say whether a version may have been trained on what are a task's validation images now.

    Then the choice between its child and an adapter from scratch would not be fair.

    Args:
        config: of the version.
        task: that is to be learned.
        digest: of the task's data.

    Returns:
        What is wrong, to be read after the version's name; None where nothing is.
    """
    same = config.data.digest == digest
    if same and config.train.get("fit") == "train+val":
        return "was trained on the validation images too"
    if config.task == task and not same:
        return "was trained on other data of this task, which may hold its validation images of now"
    return None


def some(train: Split) -> Split:
    """Choose the images that adapters are run on: at most 512, classes in their proportions."""
    rows = choose(train.labels.numpy(), IMAGES, generator(0, "parents"))
    return Split(images=train.images[rows], labels=train.labels[rows])


def h_score(
    backbone: Backbone, images: Split, folded: Folded | None, progress: Progress | None = None
) -> float:
    """Shrunk H-score of images under an adapter or (None) of the bare backbone."""
    features = extract_features(backbone, images, folded, progress)
    return shrunk_h_score(features.double().numpy(), images.labels.numpy())


def _record(version: Version, target: Target) -> TaskStatistics:
    """Read the record of a champion that the target's adapter could start from.

    Raises:
        InputError: it could not: its method or its shapes are others.
        IntegrityError: its files are missing here or not what was published.
    """
    files, _ = check_some(version.path, version.digest, (ADAPTER_CONFIG, ADAPTER_MODEL))
    config = parse_adapter_config(files[ADAPTER_CONFIG], where=str(version))
    problem = seen_images(config, target.task, target.digest)
    if problem is not None:
        raise InputError(f"it {problem}")
    method = config.method.name
    if method != target.method:
        raise InputError(f"its method is {method}, not {target.method}")
    wanted = {name: tensor.shape for name, tensor in method_tensors(target.start).items()}
    if not wanted:
        raise InputError(f"{method} has nothing but a head")
    try:
        tensors = load_tensors(files[ADAPTER_MODEL])
    except (SafetensorError, ValueError) as error:
        raise IntegrityError(f"{version}/{ADAPTER_MODEL}: {error}") from error
    shapes = {n: t.shape for n, t in tensors.items() if not n.startswith(_HEAD)}
    if shapes != wanted:
        names = sorted(n for n in shapes.keys() | wanted.keys() if shapes.get(n) != wanted.get(n))
        raise InputError(f"its hyper-parameters give other shapes ({', '.join(names)})")
    return _read_record(version)


def _read_record(version: Version) -> TaskStatistics:
    found = read_routing(version)
    if found is None:
        raise InputError("it has no routing record")
    record, _ = found
    return record.last


def _folded(registry: Registry, version: Version, backbone: Backbone) -> Folded:
    return load_adapter(registry.read(version), backbone, where=str(version)).folded

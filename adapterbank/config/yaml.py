"""Reading YAML as DVC reads it: YAML 1.2 by ruamel.yaml, so that one text means one thing to both.

``yes``, ``no`` and ``12:30:45`` are text, ``2e-3`` and ``0o7`` are numbers. What no configuration
needs is refused: a key that stands twice, of which the last would silently win, and a document
that is nested too deeply or too large, where what an alias stands for counts each time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import yaml as fast_yaml
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode
from ruamel.yaml.reader import ReaderError

from adapterbank.errors import ConfigError

_Loader: Final = getattr(fast_yaml, "CBaseLoader", fast_yaml.BaseLoader)  # no dates, no numbers
_DEEPEST = 50  # collections in one another
_BEYOND = 10**20  # no whole number of 64 bits
_LARGEST = 250_000  # keys and values
_LONGEST = 4_000_000  # characters


def read_yaml(text: str, where: str) -> Any:  # noqa: ANN401  # any YAML value
    """Read one YAML 1.2 document, which messages call ``where``; an empty one says None.

    Raises:
        ConfigError: it is not YAML, too large or too deep, in one line with line and column.
    """
    return _read(text, where, YAML.load)


def read_mapping(text: str, where: str) -> dict[str, Any]:
    """Read one YAML 1.2 document whose top is a mapping.

    Raises:
        ConfigError: see :func:`read_yaml`; or its top is no mapping.
    """
    content = read_yaml(text, where)
    if not isinstance(content, dict):
        raise ConfigError(where, ["expected a mapping at the top"])
    return content


def read_nodes(text: str, where: str) -> MappingNode:
    """Read the same as nodes, which know their places in the text.

    Raises:
        ConfigError: see :func:`read_mapping`.
    """
    node = _read(text, where, YAML.compose)
    if not isinstance(node, MappingNode):
        raise ConfigError(where, ["expected a mapping at the top"])
    return node


def read_texts(data: bytes, where: str) -> Any:  # noqa: ANN401  # collections of texts
    """Read YAML that a program wrote, such as ``dvc.lock``, in a tenth of the time.

    Every scalar is the text that stands there; what an alias stands for is not written out.

    Raises:
        ConfigError: it is not YAML, or too large or too deep.
    """
    if len(data) > 16 * _LONGEST:
        raise ConfigError(where, [f"not YAML: {len(data):,} bytes, at most {16 * _LONGEST:,}"])
    try:
        return fast_yaml.load(data, _Loader)  # noqa: S506  # it makes texts, lists and mappings
    except (fast_yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(where, [f"not YAML: {' '.join(str(error).split())}"]) from error


def _read(text: str, where: str, read: Callable[[YAML, str], Any]) -> Any:  # noqa: ANN401
    if len(text) > _LONGEST:
        raise ConfigError(where, [f"not YAML: {len(text):,} characters, at most {_LONGEST:,}"])
    yaml = YAML(typ="safe", pure=True)  # the parser in C knows no limits
    yaml.Composer, yaml.Constructor = _Composer, _Constructor
    try:
        return read(yaml, text)
    except ReaderError as error:
        start = text.rfind("\n", 0, error.position) + 1
        line, column = text.count("\n", 0, start), error.position - start
        problem = f"the character U+{error.character:04X} is not allowed"
        raise _problem(where, line, column, problem) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise _problem(where, mark.line, mark.column, problem) from error
    except RecursionError as error:  # of ruamel's parser, before anything is composed
        raise ConfigError(where, [f"not YAML: nested more than {_DEEPEST} deep"]) from error
    except AssertionError as error:  # ruamel's own
        raise ConfigError(where, ["not YAML: a key stands twice in an !!omap"]) from error


def _problem(where: str, line: int, column: int, problem: str) -> ConfigError:
    said = " ".join(problem.split())  # in one line
    return ConfigError(where, [f"not YAML: line {line + 1}, column {column + 1}: {said}"])


class _Composer(Composer):
    """Stops before a document is too deep or too large, with its aliases written out."""

    def __init__(self, loader: Any = None) -> None:  # noqa: ANN401  # ruamel's signature
        super().__init__(loader)
        self.warn_double_anchors = False  # YAML allows them
        self._size = self._level = self._bottom = 0  # the bottom: the deepest level since a node
        self._anchored: dict[str, tuple[int, int]] = {}  # size and height of finished nodes

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401
        event, size, bottom = self.parser.peek_event(), self._size, self._bottom
        self._level += 1
        if isinstance(event, AliasEvent):
            if event.anchor in self.anchors and event.anchor not in self._anchored:
                raise _refusal(f"the alias {event.anchor!r} stands within what it means", event)
            more, height = self._anchored.get(event.anchor, (1, 0))
        else:
            self._anchored.pop(event.anchor, None)
            more, height = 1, 0
        self._size, self._bottom = size + more, self._level + height
        if self._bottom > _DEEPEST:
            raise _refusal(f"nested more than {_DEEPEST} deep", event)
        if self._size > _LARGEST:
            raise _refusal(f"more than {_LARGEST:,} keys and values", event)
        node = super().compose_node(parent, index)
        if event.anchor is not None and not isinstance(event, AliasEvent):
            self._anchored[event.anchor] = (self._size - size, self._bottom - self._level)
        self._bottom = max(self._bottom, bottom)
        self._level -= 1
        return node


class _Constructor(SafeConstructor):
    """Says in its own words, and where, what ruamel.yaml leaves to Python or says at length."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002  # ruamel's signature
        try:
            value = super().construct_object(node, deep)
        except (ArithmeticError, LookupError, ValueError) as error:  # such as 2026-02-30
            problem = f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}: {error}"
            raise ConstructorError(None, None, problem, node.start_mark) from error
        if isinstance(value, int) and abs(value) >= _BEYOND:
            problem = f"{str(node.value)[:20]}… has more than 20 digits"
            raise ConstructorError(None, None, problem, node.start_mark)
        return value

    def check_mapping_key(self, *args: Any) -> bool:  # noqa: ANN401
        _, key_node, mapping, key, _ = args
        if key in mapping:
            problem = f"the key {key!r} stands here twice"
            raise ConstructorError(None, None, problem, key_node.start_mark)
        return super().check_mapping_key(*args)


def _refusal(problem: str, event: Any) -> ComposerError:  # noqa: ANN401  # any of ruamel's events
    return ComposerError(None, None, problem, event.start_mark)

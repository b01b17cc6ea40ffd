"""What a signal says: checked against what the definition declares for it, and written as JSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from headrace_chassis.errors import InvalidRequest, Problem
from headrace_definition import DefinitionError
from headrace_definition.model import Parameter
from headrace_definition.parameters import parameter_value, resolve_parameters
from headrace_definition.secret_words import holds_secret, is_secret_key
from headrace_definition.substitution import BoundValue, text_of
from pydantic import TypeAdapter

from headrace_execution.acceptance.compiling import to_problems
from headrace_execution.acceptance.parameters import exact_number, plain_value
from headrace_execution.domain.recipe import WaitSpec

_DECLARED = TypeAdapter(dict[str, dict[str, Parameter]])


def declared_fields(wait: WaitSpec) -> dict[str, Parameter] | None:
    """The fields that a definition declares for a signal; None where it takes any object."""
    return None if wait.data is None else _fields(wait.data)


@dataclass(frozen=True, slots=True)
class Checked:
    """What a signal says."""

    data: bytes
    """A JSON object, declared defaults included."""
    unmet: tuple[str, ...] = ()
    """What it would have to say for the run to go on, in words."""


def check_signal(wait: WaitSpec, given: bytes) -> Checked:
    """What a signal says, and whether that lets the run go on.

    Raises:
        InvalidRequest: naming everything that does not fit. Values are not repeated.
    """
    declared = declared_fields(wait)
    data = _object(given, exact=declared is not None)
    problems = [
        Problem("SECRET_IN_SIGNAL", path, "what a signal says is kept and shown: it cannot hold a secret")
        for path in _secrets(data, "data")
    ]
    if _has_nul(data):
        problems.append(Problem("INVALID_VALUE", "data", "the character U+0000 cannot be used"))
    if problems:
        raise InvalidRequest(problems)
    if declared is not None:
        try:
            values = resolve_parameters(declared, data, where="data", noun="field")
        except DefinitionError as error:
            raise InvalidRequest(to_problems(error.problems)) from None
        data = {name: plain_value(value) for name, value in values.items() if value is not None}
        return Checked(_dump(data), _unmet(wait, declared, values))
    return Checked(_dump(data))


def _unmet(
    wait: WaitSpec, declared: Mapping[str, Parameter], values: Mapping[str, BoundValue]
) -> tuple[str, ...]:
    demanded = json.loads(wait.proceed_if) if wait.proceed_if is not None else {}
    wanted = {name: parameter_value(declared[name], value) for name, value in demanded.items()}
    return tuple(f"{name} is not {text_of(value)}" for name, value in wanted.items() if values[name] != value)


def _dump(data: dict[str, object]) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


@lru_cache(maxsize=256)
def _fields(document: bytes) -> dict[str, Parameter]:
    return _DECLARED.validate_json(document)["data"]


def _object(given: bytes, *, exact: bool) -> dict[str, object]:
    try:
        value = json.loads(given or b"{}", parse_float=exact_number if exact else None)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest(
            [Problem("INVALID_VALUE", "data", "a JSON object of values by name was expected")]
        )
    return value


def _secrets(value: object, path: str) -> Iterator[str]:
    """Where something stands that its name or its form tells to be a secret."""
    if isinstance(value, dict):
        for name, each in value.items():
            if is_secret_key(name) and each not in (None, ""):
                yield f"{path}.{name}"
            else:
                yield from _secrets(each, f"{path}.{name}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _secrets(each, f"{path}[{index}]")
    elif isinstance(value, str) and holds_secret(value):
        yield path


def _has_nul(value: object) -> bool:
    if isinstance(value, dict):
        return any("\0" in name or _has_nul(each) for name, each in value.items())
    if isinstance(value, list):
        return any(_has_nul(each) for each in value)
    return isinstance(value, str) and "\0" in value

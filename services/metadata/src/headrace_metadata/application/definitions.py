"""Checking definitions without holding up the calls beside: in threads, a few at a time."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from headrace_chassis.errors import InvalidDefinition, TooLarge, Unavailable
from headrace_definition import (
    Compiled,
    CompileSettings,
    ConnectionDefaults,
    Definition,
    Problem,
    Report,
    validate,
)

from headrace_metadata.domain.pipelines import Content, Declared, Notification, clean_tags
from headrace_metadata.errors import told

_WAITING_PER_THREAD = 50

T = TypeVar("T")


@dataclass(frozen=True)
class Text:
    """A definition to check, with the connections that serve where it names none."""

    text: str
    source_connection_id: UUID | None = None
    target_connection_id: UUID | None = None

    @staticmethod
    def of(content: Content) -> "Text":
        """The text of a version."""
        given = content.given
        return Text(content.text, given.source_connection_id, given.target_connection_id)

    @property
    def defaults(self) -> ConnectionDefaults:
        """The connections by which the language calls them."""
        return ConnectionDefaults(_word(self.source_connection_id), _word(self.target_connection_id))


@dataclass(frozen=True)
class Checked:
    """A text that has no errors, and what metadata keeps of it."""

    text: Text
    name: str | None
    declared: Declared
    references: frozenset[str]
    warnings: tuple[Problem, ...]


class DefinitionChecker:
    """Compiles and validates definitions in `threads` threads; `max_bytes` bounds a text."""

    def __init__(self, threads: int, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="definition")
        self._free = threads * (1 + _WAITING_PER_THREAD)

    def close(self) -> None:
        """Ends the threads when their work is done."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def check(self, text: Text, connection_types: Mapping[str, str]) -> Checked:
        """Compiles a text. `connection_types` are those of its workspace's connections, by name and id.

        Raises:
            InvalidDefinition: it has errors, all of them listed with their places.
            TooLarge: it is longer than this installation allows.
            Unavailable: too many others are being checked.
        """
        report = await self.report(text, connection_types)
        if report.compiled is None:
            raise InvalidDefinition(told(report.errors))
        return _checked(text, report.compiled)

    async def report(self, text: Text, connection_types: Mapping[str, str]) -> Report:
        """What is right and wrong with a text.

        Raises:
            TooLarge, Unavailable: as `check`.
        """
        size = len(text.text.encode())
        if size > self._max_bytes:
            raise TooLarge("yamlDefinition", self._max_bytes, size)
        settings = CompileSettings(max_bytes=self._max_bytes, connection_types=connection_types)
        return await self.in_thread(lambda: _report(text, settings))

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Does work of the kind that holds a processor for long.

        Raises:
            Unavailable: too much of it is waiting.
        """
        if self._free == 0:
            raise Unavailable("the check of definitions (too many are waiting)")
        self._free -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._free += 1


def _report(text: Text, settings: CompileSettings) -> Report:
    """The report, with what must not be kept refused: versions are stored and shown as they came."""
    report = validate(text.text, settings=settings, defaults=text.defaults)
    if report.compiled is None:
        return report
    # Written as an escape it passes the reader, but no text of PostgreSQL can hold it.
    if "\0" in (report.compiled.definition.description or ""):
        error = Problem("INVALID_CHARACTER", "description", "the character U+0000 is not allowed")
        return Report((error,), report.warnings, None)
    return report


def _checked(text: Text, compiled: Compiled) -> Checked:
    given = {
        str(identity)
        for identity in (text.source_connection_id, text.target_connection_id)
        if identity is not None
    }
    return Checked(
        text=text,
        name=compiled.definition.name,
        declared=declared_settings(compiled.definition),
        references=frozenset({*compiled.plan.connections, *given}),
        warnings=compiled.warnings,
    )


def declared_settings(definition: Definition) -> Declared:
    """The settings that a definition declares itself."""
    execution, orchestration = definition.execution, definition.orchestration
    schedule = orchestration.schedule if orchestration else None
    notifications = tuple(
        Notification(each.on, each.type, each.target, each.signing_secret)
        for each in definition.notifications
    )
    return Declared(
        description=definition.description,
        schedule_cron=schedule.cron.strip() if schedule else None,
        tags=clean_tags(definition.tags) or None,
        max_retries=execution.max_retries if execution else None,
        retry_delay_seconds=_seconds(execution.retry_delay) if execution else None,
        timeout_seconds=_seconds(execution.timeout) if execution else None,
        notifications=notifications or None,
        version_label=definition.version_label,
    )


def _seconds(duration: timedelta | None) -> int | None:
    """Whole seconds, never less than asked for."""
    return None if duration is None else -(-duration // timedelta(seconds=1))


def _word(identity: UUID | None) -> str | None:
    return None if identity is None else str(identity)

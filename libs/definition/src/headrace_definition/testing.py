"""Helpers for tests that judge definitions, of this package and of those that store and run them."""

from headrace_definition import (
    Compiled,
    CompileSettings,
    ConnectionDefaults,
    DefinitionError,
    compile_definition,
    validate,
)


def compiled(text: str | bytes, **settings: object) -> Compiled:
    """The compiled text; the test fails with the problems where it has any."""
    return compile_definition(text, settings=CompileSettings(**settings))  # type: ignore[arg-type]


def errors(text: str | bytes, **settings: object) -> list[tuple[str, str, int | None, int | None]]:
    """Code, path, line and column of each error, in the order of the text."""
    found = validate(text, settings=CompileSettings(**settings)).errors  # type: ignore[arg-type]
    return [(problem.code, problem.path, problem.line, problem.column) for problem in found]


def error_codes(text: str | bytes, **settings: object) -> list[str]:
    """Codes of the errors, in the order of the text."""
    return [code for code, *_ in errors(text, **settings)]


def warning_codes(
    text: str | bytes, defaults: ConnectionDefaults | None = None, **settings: object
) -> list[str]:
    """Codes of the warnings of a text without errors."""
    report = validate(text, settings=CompileSettings(**settings), defaults=defaults)  # type: ignore[arg-type]
    if not report.valid:
        raise DefinitionError(report.errors)
    return [problem.code for problem in report.warnings]


def with_transformations(*lines: str) -> str:
    """A definition with the sources a (x, y) and b (x, z), these transformations, and no sink."""
    head = "version: 1\nsources:\n- {id: a, values: [{x: 1, y: 2}]}\n- {id: b, values: [{x: 1, z: 2}]}\n"
    return head + "transformations:\n" + "\n".join(lines) + "\n"

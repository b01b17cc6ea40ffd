"""Secrets: refused where written out, whatever the spelling, and never repeated."""

import pytest
from headrace_definition import validate
from headrace_definition.secret_words import is_secret_key, without_secrets
from headrace_definition.testing import error_codes

CANARY = "hunter2-canary"


@pytest.mark.parametrize(
    "text",
    [
        f"source: {{connection: c, table: t, password: {CANARY}}}",
        f"sources: [{{id: s, connector: x, config: {{auth: {{clientSecret: {CANARY}}}}}}}]",
        f"sources: [{{id: s, connector: x, config: {{api_key: [{CANARY}]}}}}]",
        f"sources: [{{id: s, connector: x, config: {{credentials: {{user: a, pass: {CANARY}}}}}}}]",
        f"sources: [{{id: s, connector: x, config: {{url: 'postgres://me:{CANARY}@host/db'}}}}]",
        f"notifications: [{{type: WEBHOOK, target: 'https://u:{CANARY}@example.com'}}]",
        f"notifications: [{{type: WEBHOOK, target: 'https://example.com', signing_secret: {CANARY}}}]",
        f"parameters: {{db_password: {{default: {CANARY}}}}}",
        f"parameters: {{db_password: {CANARY}}}",
        f"config: {{source: {{name: x, authentication: {{params: {{token: {CANARY}}}}}}}}}",
        f"source: {{name: x, config: {{private_key: {CANARY}}}}}",
        f"nodes: [{{id: a, nodeType: source, config: {{connector: x, config: {{token: {CANARY}}}}}}}]",
    ],
)
def test_literal_secrets_are_refused_and_not_repeated(text: str) -> None:
    report = validate(text)
    assert "LITERAL_SECRET" in [problem.code for problem in report.errors]
    assert CANARY not in repr(report)


@pytest.mark.parametrize(
    "value",
    ["${secrets.token}", "${env.TOKEN}", "vault://kv/token", "env://TOKEN", "file:///run/token", ""],
)
def test_references_to_secrets_are_accepted(value: str) -> None:
    text = f"sources: [{{id: s, connector: postgresql, config: {{token: '{value}'}}}}]"
    assert error_codes(text) == []


def test_users_own_names_are_no_secrets() -> None:
    text = (
        "sources: [{id: s, values: [{token: abc, password: x}], schema: {token: VARCHAR, password: UUID}}]\n"
        "transformations: [{id: r, type: rename, input: s, columns: {token: api_key, password: secret}}]\n"
        "sinks: [{discard: true}]"
    )
    assert error_codes(text) == []


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("password", True),
        ("dbPassword", True),
        ("client-secret", True),
        ("aws_secret_access_key", True),
        ("token", True),
        ("tokens_per_minute", False),
        ("key", False),
        ("keys", False),
        ("partition_key", False),
        ("primary_key", False),
        ("passenger", False),
        ("secretary", False),
        ("token_url", False),
    ],
)
def test_which_keys_are_of_secrets(key: str, secret: bool) -> None:
    assert is_secret_key(key) is secret


@pytest.mark.parametrize("broken", ["a: [", "sources: {", "x: 'y", "engine: {password: ", "sql: SELECT '"])
def test_syntax_errors_do_not_quote_the_text(broken: str) -> None:
    report = validate(f"password: {CANARY}\n{broken}")
    assert report.errors
    assert CANARY not in repr(report)


def test_values_of_wrong_types_are_not_repeated() -> None:
    text = (
        f"engine: {CANARY}\nexecution: {{timeout: {CANARY}}}\nsources: {CANARY}\nsinks: [{{mode: {CANARY}}}]"
    )
    report = validate(text)
    assert len(report.errors) == 4
    assert CANARY not in repr(report)


def test_a_secret_in_a_config_is_told_with_its_place() -> None:
    text = f"config:\n  source:\n    name: hubspot\n    authentication:\n      token: {CANARY}\n"
    (error,) = validate(text).errors
    assert (error.code, error.line, error.column) == ("LITERAL_SECRET", 5, 14)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("host=db password=lovelace dbname=x", "host=db password=*** dbname=x"),
        ("PWD=love;Server=db", "PWD=***;Server=db"),
        ("password='love lace' host=db", "password='***' host=db"),
        ("https://h/x?sig=1&access_token=abc&a=b", "https://h/x?sig=1&access_token=***&a=b"),
        ("aws_secret_access_key=wJalr/XUtn+FE", "aws_secret_access_key=***"),
        ('{"clientSecret": "abc", "user": "ada"}', '{"clientSecret": "***", "user": "ada"}'),
        ("Authorization: Bearer abc.def, Accept: x", "Authorization: Bearer ***, Accept: x"),
        ("Authorization: Basic YTpi", "Authorization: Basic ***"),
        ("refused bearer 0123456789abcdef0123", "refused bearer ***"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "got ***"),
        ("key AKIAIOSFODNN7EXAMPLE is unknown", "key *** is unknown"),
        (f"key hr_{'a' * 22}_{'B' * 50} is unknown", "key *** is unknown"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- is no date",
            "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY----- is no date",
        ),
    ],
)
def test_what_has_the_form_of_a_secret_is_masked(text: str, shown: str) -> None:
    assert without_secrets(text, "***") == shown


@pytest.mark.parametrize(
    "text",
    [
        "password: a text is expected",
        "the token is no date; Basic authentication is refused, and a bearer token is needed",
        'column "token" does not exist',
        'SELECT "token" FROM a JOIN b ON a."secret" = b."secret"',
        "password=${secrets.db} and authorization: Bearer ${secrets.api}",
        "monkey=1 keyboard=2 tokens 3",
    ],
)
def test_a_word_for_a_secret_is_none(text: str) -> None:
    assert without_secrets(text, "***") == text

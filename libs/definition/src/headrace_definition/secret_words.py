"""Which keys hold secrets, and what may stand there instead of one."""

import re

from headrace_definition.nodes import Mapping, Node, Scalar, Sequence
from headrace_definition.problems import Findings

_SECRET_KEY = re.compile(
    r"(^|_)(password|passwd|pwd|passphrase|secret|secrets|token|apikey|api_key|access_key|secret_key|private_key"
    r"|signing_key|account_key|sas_token|client_secret|credential|credentials|bearer|authorization)(_value|_text)?$"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_REFERENCE = re.compile(r"\s*(\$\{(secrets|env)\.[^}]*\}|\$\{params\.[^}]*\}|(env|file|vault|k8s)://\S*)\s*")
_URL_PASSWORD = re.compile(r"(://[^/\s:@'\"]*:)(?!\$\{)[^/\s@'\"]+(@)")
_NAMED_SO = (
    r"password|passwd|pwd|passphrase|secret|token|api[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key"
    r"|signature"
)
# What drivers, servers and command lines write: `password=x` (DSN, ODBC, queries of URLs), `"token": "x"`
# (JSON), an Authorization header, and keys that show by themselves what they are. A word without a value
# keeps its sense: "the token: a text is expected".
_SHAPES = (
    re.compile(rf"(?i)((?:{_NAMED_SO})\s?=\s?[\"'])(?!\$\{{)[^\"']+()"),
    re.compile(rf"(?i)((?:{_NAMED_SO})=)(?!\$\{{|[\"'])[^\s,;&\"')]+()"),
    re.compile(rf"(?i)(\"[\w-]*(?:{_NAMED_SO})\"\s?:\s?\")(?!\$\{{)[^\"]+(\")"),
    re.compile(
        r"(?i)(authorization[\"']?\s?[:=]\s?[\"']?(?:(?:basic|bearer|token)\s+)?+)(?!\$\{)[^\s,;\"']+()"
    ),
    re.compile(r"(?i)(\bbearer\s+)[a-z0-9._~+/-]{20,}=*()"),
    re.compile(r"()\beyJ[\w-]{8,4000}\.eyJ[\w-]{8,4000}\.[\w-]{8,}()"),  # a JSON Web Token
    re.compile(r"()\b(?:AKIA|ASIA)[0-9A-Z]{16}\b()"),  # an access key of AWS
    re.compile(r"()\bhr_[0-9A-Za-z]{22}_[0-9A-Za-z]{40,}()"),  # an API key of Headrace
    re.compile(r"(?s)(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)"),
)

# Names that users choose: a column may be called `token` without being one.
_DATA = frozenset({"values", "schema", "columns", "aggregates", "on", "enum", "layout"})


def is_secret_key(key: str) -> bool:
    """Whether a value under this key is a secret, such as `password` or `clientSecret`."""
    return _SECRET_KEY.search(_CAMEL.sub("_", key).lower().replace("-", "_")) is not None


def is_reference(text: str) -> bool:
    """Whether a text refers to a secret instead of being one."""
    return _REFERENCE.fullmatch(text) is not None


def holds_secret(text: str) -> bool:
    """Whether a text has the form of something with a secret in it, such as a URL with a password."""
    return _URL_PASSWORD.search(text) is not None


def without_secrets(text: str, mask: str) -> str:
    """The text with a mask for whatever has the form of a secret: a password in a URL, the value of a setting
    that is called so, a header that authorises, a key that shows that it is one."""
    for shape in (_URL_PASSWORD, *_SHAPES):
        text = shape.sub(rf"\g<1>{mask}\g<2>", text)
    return text


def refuse_literals(root: Mapping, findings: Findings) -> None:
    """Adds an error for each secret that is written out. The error does not repeat it."""
    _walk(root, findings, secret=False)


def _walk(node: Node, findings: Findings, *, secret: bool) -> None:
    if isinstance(node, Scalar):
        _judge(node, findings, secret=secret)
    elif isinstance(node, Sequence):
        for item in node.items:
            _walk(item, findings, secret=secret)
    else:
        for key, value in node.items():
            if key not in _DATA:
                _walk(value, findings, secret=secret or is_secret_key(key))


def _judge(node: Scalar, findings: Findings, *, secret: bool) -> None:
    if node.value in (None, "") or isinstance(node.value, bool):
        return
    text = str(node.value)
    if (secret and not is_reference(text)) or holds_secret(text):
        findings.error(
            "LITERAL_SECRET",
            node,
            "a secret must not be written in a definition; store it with the connection, or refer to it as "
            "${secrets.name}",
        )

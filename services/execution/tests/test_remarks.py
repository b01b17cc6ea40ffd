"""What callers remark is kept and shown: it holds no secret."""

import pytest
from headrace_chassis.errors import InvalidRequest
from headrace_execution.remarks import check_remark


@pytest.mark.parametrize(
    ("text", "code"),
    [("see https://ada:lovelace@example.com", "LITERAL_SECRET"), ("a\0b", "INVALID_VALUE")],
)
def test_what_cannot_be_kept_is_refused_without_repeating_it(text: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_remark("reason", text)
    (problem,) = caught.value.problems
    assert (problem.code, problem.path, text in problem.message) == (code, "reason", False)


def test_anything_else_is_kept() -> None:
    check_remark("reason", None)
    check_remark("reason", "wrong day:\tsee https://example.com/a:b@c")

"""Where notifications may go."""

import pytest
from headrace_definition.notifying import target_flaw


@pytest.mark.parametrize(
    "target",
    [
        "https://hooks.example.com/x?y=z#1",
        "http://10.0.0.1:8080",
        "https://[2001:db8::1]:443/",
        "${secrets.hook}",
    ],
)
def test_urls_and_secrets_are_targets(target: str) -> None:
    assert target_flaw("WEBHOOK", target) is None


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("https://exa mple.com/", "no spaces"),
        ("https://example.com:99999/", "a port"),
        ("https://example.com:0/", "a port"),
        ("https://example.com:x/", "a port"),
        ("https://[2001:db8::1/", "a host"),
        ("https:///path", "a host"),
        ("https://user:word@example.com/", "user or password"),
        ("ftp://example.com/", "https://"),
        ("https://example.com/${secrets.hook}", "all of it a secret"),
        ("https://example.com/\nx", "printable"),
    ],
)
def test_what_is_no_target_is_told(target: str, said: str) -> None:
    assert said in str(target_flaw("WEBHOOK", target))


@pytest.mark.parametrize("address", ["name", "a@b@c.org", "a@", "a b@c.org", "<a@c.org>", "a@c.org,d@e.org"])
def test_a_mail_goes_to_one_address(address: str) -> None:
    assert target_flaw("EMAIL", "someone@example.com") is None
    assert target_flaw("EMAIL", address) is not None

"""Workspaces over real HTTP: their calendars, and who may change them."""

import uuid

import httpx
import pytest
from headrace_local.testing import demand


def test_a_workspace_holds_a_calendar_that_can_be_changed_and_cleared(admin: httpx.Client) -> None:
    slug = f"calendar-{uuid.uuid4().hex[:8]}"
    body = {
        "slug": slug,
        "name": "Sales",
        "country": "DE",
        "subdivision": "BY",
        "holidays": ["2026-12-24", "2026-12-31"],
        "timezone": "Europe/Berlin",
        "deployOnPush": True,
    }
    created = admin.post("workspaces", json=body)
    made = demand(created, 201)
    assert {name: made[name] for name in body} == body
    path = created.headers["location"]
    assert demand(admin.get(admin.base_url.join(path)), 200) == made

    changed = demand(
        admin.put(admin.base_url.join(path), json={"timezone": "Europe/Warsaw", "country": None}), 200
    )
    assert (changed["timezone"], "country" in changed, changed["slug"]) == ("Europe/Warsaw", False, slug)
    assert (changed["holidays"], changed["deployOnPush"]) == (body["holidays"], True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timezone", "Mars/Olympus"),
        ("country", "Germany"),
        ("holidays", ["2026-02-30"]),
        ("slug", "Not A Slug"),
        ("nmae", "Sales"),
    ],
)
def test_a_wrong_field_is_named(admin: httpx.Client, field: str, value: object) -> None:
    answer = admin.post("workspaces", json={"slug": f"w-{uuid.uuid4().hex[:8]}", field: value})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"].startswith(field)


def test_a_slug_is_taken_once(admin: httpx.Client) -> None:
    slug = f"taken-{uuid.uuid4().hex[:8]}"
    demand(admin.post("workspaces", json={"slug": slug}), 201)
    again = admin.post("workspaces", json={"slug": slug})
    assert (again.status_code, again.json()["code"]) == (409, "NAME_TAKEN")

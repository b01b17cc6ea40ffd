"""Notifications by mail, from a definition over HTTP to a mailbox."""

import uuid

import httpx
from headrace_local.testing import create_pipeline, demand, until, wait_for_end

from .conftest import Mailbox

UNMET = """
version: 1
sources: [{id: people, values: [{name: Ada}]}]
quality_checks: [{id: enough, type: row_count, input: people, min: 2}]
sinks: [{id: out, input: people, discard: true}]
notifications:
  - {on: [FAILED], type: EMAIL, target: %s}
"""


def test_a_failed_run_reaches_a_mailbox(admin: httpx.Client, mailbox: Mailbox) -> None:
    address = f"ada-{uuid.uuid4().hex}@example.com"
    pipeline = create_pipeline(admin, UNMET % address)
    assert pipeline["notifications"] == [{"on": ["FAILED"], "type": "EMAIL", "target": address}]

    run = demand(admin.post(f"pipelines/{pipeline['id']}/run", json={}), 202)["runId"]
    assert wait_for_end(admin, run)["overallStatus"] == "FAILED"

    (mail,) = until(lambda: mailbox.mails_to(address), bool)
    assert (mail["From"], mail["To"]) == ("headrace@example.com", address)
    # A long subject is folded at its first blank, which stays when it is unfolded.
    assert mail["Subject"].strip() == f"[Headrace] {pipeline['name']}: a run has failed"
    assert run in mail.get_content()
    assert "enough: row_count (min 2)" in mail.get_content()

"""Notifications over real HTTP and SMTP: what a run comes to reaches its receivers, whatever dies."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from headrace.execution.v1 import alerts_pb2
from headrace.metadata.v1 import definitions_pb2, pipelines_pb2
from headrace_chassis.database import Database, driver
from headrace_chassis.testing.ports import free_port
from headrace_chassis.testing.waiting import eventually
from headrace_execution.config import own_endpoint
from headrace_execution.domain.deliveries import Delivery
from headrace_execution.notifying.notifier import LEASE, Notifier
from headrace_execution.notifying.outcomes import Outcome, Sender
from headrace_outbound.standard_webhooks import signature

from .support import NOOP, PATIENT, Cluster, Replica, ScriptedWorker
from .test_alerting import alerts, followers, run_to, until_alert

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STATES = {
    word: pipelines_pb2.PipelineStatus.Value(f"PIPELINE_STATUS_{word}") for word in ("FAILED", "SUCCESS")
}


@dataclass
class Receiver:
    """An HTTP server that takes what it is sent, and answers as it is told to."""

    url: str = ""
    answers: list[str] = field(default_factory=list)
    """The next answers; when they are used up, 204."""
    heard: list[tuple[Mapping[str, str], bytes]] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """The ids of what was heard."""
        return [headers["webhook-id"] for headers, _ in self.heard]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer."""
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.heard.append((headers, await reader.readexactly(int(headers["content-length"]))))
        answer = self.answers.pop(0) if self.answers else "204 No Content\r\n"
        writer.write(f"HTTP/1.1 {answer}\r\n".encode())
        await writer.drain()
        writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    async with server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        yield made


def to(target: str, *on: str, kind: str = "WEBHOOK", secret: str | None = None) -> pipelines_pb2.Notification:
    return pipelines_pb2.Notification(
        on=[STATES[word] for word in on or ("FAILED",)],
        type=pipelines_pb2.NotificationType.Value(f"NOTIFICATION_TYPE_{kind}"),
        target=target,
        signing_secret=secret,
    )


def keep_secret(mesh: Cluster, name: str, value: str, kind: str = "secret") -> str:
    mesh.metadata.connections[name] = definitions_pb2.ResolvedConnection(
        reference=name, name=name, type=kind, secret=value
    )
    return f"${{secrets.{name}}}"


async def quiet(mesh: Cluster, **settings: Any) -> Replica:
    """A replica that sends only what a test has it send."""
    values = {"notify_allow_loopback": True, "notify_allow_http": True, **settings}
    return await mesh.replica(without=("notifier", "repeat_notifier"), **values)


async def fail(mesh: Cluster, replica: Replica, *notifications: pipelines_pb2.Notification) -> str:
    """A pipeline of which a run has failed, with what is to be told of that written down."""
    pipeline = mesh.metadata.add(NOOP, notifications=notifications)
    await fail_again(replica, await mesh.worker(replica), pipeline)
    return pipeline


async def fail_again(replica: Replica, worker: ScriptedWorker, pipeline: str, count: int = 1) -> None:
    await run_to(replica, worker, pipeline, "BROKEN")
    rule = alerts_pb2.ALERT_RULE_RUN_FAILED
    await until_alert(replica, count, pipeline_id=pipeline, rule=rule)  # of the same transaction


async def send(replica: Replica, *, again: bool = False) -> None:
    await followers(replica)["repeat_notifier" if again else "notifier"].run_once()


async def waiting(db: Database) -> list[Any]:
    async with db.read() as conn:
        return list(await driver(conn).fetch("SELECT * FROM deliveries ORDER BY id"))


async def test_a_webhook_is_signed_and_sent_once(mesh: Cluster, db: Database, receiver: Receiver) -> None:
    replica = await quiet(mesh)
    secret = keep_secret(mesh, "hook", SECRET)
    pipeline = await fail(mesh, replica, to(receiver.url, secret=secret), to(receiver.url, "SUCCESS"))
    await send(replica)
    await send(replica)

    ((headers, body),) = receiver.heard
    told = json.loads(body)
    assert (told["type"], told["data"]["pipelineId"]) == ("run.failed", pipeline)
    assert told["data"]["error"] == "noop: it did not work"
    expected = signature(headers["webhook-id"], int(headers["webhook-timestamp"]), body, SECRET)
    assert headers["webhook-signature"] == expected
    assert await waiting(db) == []


async def test_slack_gets_a_text_at_a_secret_url(mesh: Cluster, receiver: Receiver) -> None:
    replica = await quiet(mesh)
    await fail(mesh, replica, to(keep_secret(mesh, "slack", receiver.url), kind="SLACK"))
    await send(replica)
    ((_, body),) = receiver.heard
    assert json.loads(body)["text"].startswith("*a pipeline: a run has failed*\nError: noop: it did not work")


async def test_what_was_not_taken_is_sent_again_under_the_same_id(
    mesh: Cluster, db: Database, receiver: Receiver
) -> None:
    replica = await quiet(mesh)
    await fail(mesh, replica, to(receiver.url))
    receiver.answers = ["302 Found\r\nLocation: /elsewhere\r\n", "503 Busy\r\nRetry-After: 60\r\n"]
    await send(replica)
    await send(replica, again=True)
    assert len(receiver.heard) == 1, "it waits"
    replica.travel(6)
    await send(replica, again=True)
    replica.travel(30)
    await send(replica, again=True)
    assert len(receiver.heard) == 2, "not sooner than in five minutes, whatever is asked"
    replica.travel(400)
    await send(replica, again=True)
    assert len(receiver.heard) == 3
    assert len(set(receiver.ids)) == 1
    assert await waiting(db) == []


async def test_what_is_gone_is_given_up_and_told(mesh: Cluster, db: Database, receiver: Receiver) -> None:
    replica = await quiet(mesh)
    receiver.answers = ["410 Gone\r\n"]
    worker = await mesh.worker(replica)
    pipeline = mesh.metadata.add(NOOP, notifications=[to(receiver.url)])
    await fail_again(replica, worker, pipeline)
    await send(replica)
    (row,) = await waiting(db)
    assert (row["due_at"], row["last_error"]) == (None, "the receiver answered 410")
    (alert,) = await alerts(replica, rule=alerts_pb2.ALERT_RULE_NOTIFICATION_FAILED)
    assert (alert.pipeline_id, alert.count) == (pipeline, 1)
    assert alert.message.endswith("by WEBHOOK was not delivered: the receiver answered 410")

    await fail_again(replica, worker, pipeline, 2)
    await send(replica)
    (alert,) = await alerts(replica, rule=alerts_pb2.ALERT_RULE_NOTIFICATION_FAILED)
    assert alert.status == alerts_pb2.ALERT_STATUS_RESOLVED, "the receiver has taken something again"


@pytest.mark.parametrize(
    ("target", "settings", "reason"),
    [
        ("http://127.0.0.1:1/x", {"notify_allow_loopback": False}, "127.0.0.1:1 may not be reached"),
        ("http://169.254.169.254/x", {}, "it is a metadata address"),
        ("http://[::ffff:10.0.0.1]/x", {}, "it is not a public address"),
        ("http://example.com/x", {"notify_allow_http": False}, "only https:// is allowed"),
        ("${secrets.nobody}", {}, "the workspace has no secret nobody"),
        ("${secrets.warehouse}", {}, "connection warehouse is of type POSTGRESQL"),
        ("ada@example.com", {}, "this installation sends no mails: SMTP_HOST is not set"),
    ],
)  # fmt: skip
async def test_what_may_not_be_called_is_told_at_once(
    mesh: Cluster, db: Database, target: str, settings: dict[str, Any], reason: str
) -> None:
    replica = await quiet(mesh, **settings)
    keep_secret(mesh, "warehouse", "canary", kind="postgresql")
    await fail(mesh, replica, to(target, kind="EMAIL" if "@" in target else "WEBHOOK"))
    await send(replica)
    (row,) = await waiting(db)
    assert reason in row["last_error"]
    (alert,) = await alerts(replica, rule=alerts_pb2.ALERT_RULE_NOTIFICATION_FAILED)
    assert reason in alert.message


async def test_what_is_denied_is_called_by_nobody(mesh: Cluster, db: Database, receiver: Receiver) -> None:
    place = receiver.url.removeprefix("http://").removesuffix("/hook")
    replica = await quiet(mesh, notify_deny_endpoints=place)
    await fail(mesh, replica, to(receiver.url.replace("127.0.0.1", "localhost")))
    await send(replica)
    (row,) = await waiting(db)
    assert "it belongs to this installation itself" in row["last_error"]
    assert not receiver.heard


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("postgresql://u:p@db.internal:6432/x", ("db.internal", 6432)),
        ("postgresql://u:p@[::1]/x", ("::1", 5432)),
        ("nats://u:p@nats", ("nats", 4222)),
        ("postgresql:///x?host=/run/postgresql", None),
    ],
)
def test_our_own_servers_are_denied(url: str, endpoint: tuple[str, int] | None) -> None:
    assert own_endpoint(url) == endpoint


class Dying:
    """Sends as another sender does, and then its process dies before it can say so."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def send(self, delivery: Delivery) -> Outcome:
        await self._sender.send(delivery)
        raise asyncio.CancelledError


async def test_a_process_that_dies_after_sending_repeats_and_loses_nothing(
    mesh: Cluster, db: Database, receiver: Receiver
) -> None:
    replica, other = await quiet(mesh), await quiet(mesh)
    await fail(mesh, replica, to(receiver.url))
    dying = {channel: Dying(sender) for channel, sender in replica.parts.senders.items()}
    notifier = Notifier(replica.parts.store, dying, replica.parts.signals, random.random, again=False)
    with pytest.raises(asyncio.CancelledError):
        await notifier.run_once()
    assert len(await waiting(db)) == 1

    await send(other)
    await send(other, again=True)
    assert len(receiver.heard) == 1, "its lease is not over"
    other.travel(LEASE.total_seconds() + 1)
    await send(other, again=True)
    assert len(receiver.heard) == 2
    assert len(set(receiver.ids)) == 1
    assert await waiting(db) == []


async def test_two_replicas_share_the_work(mesh: Cluster, db: Database, receiver: Receiver) -> None:
    replicas = [await quiet(mesh), await quiet(mesh)]
    pipeline = mesh.metadata.add(NOOP, notifications=[to(receiver.url, "SUCCESS")])
    worker = await mesh.worker(replicas[0], slots=20)
    runs = [await replicas[0].run(pipeline) for _ in range(20)]
    for _ in runs:
        await worker.finish(await worker.next_assignment())
    for run in runs:
        await replicas[0].ended(run.run_id)

    async def written() -> bool:
        await asyncio.gather(*(followers(replica)["execution.metrics"].run_once() for replica in replicas))
        return len(await waiting(db)) == 20

    assert await eventually(written, within=PATIENT)
    await asyncio.gather(*(send(replica) for replica in replicas), *(send(replica) for replica in replicas))
    assert len(receiver.heard) == len(set(receiver.ids)) == 20
    assert await waiting(db) == []


class Mailbox:
    """Takes mails; refuses those to `nobody@`."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody@"):
            return "550 no such mailbox; secret words of the server"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        self.mails.append(envelope.content)
        return "250 OK"


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    taken = Mailbox()
    controller = Controller(taken, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield taken, controller.port
    controller.stop()


async def test_mails_reach_a_mailbox(mesh: Cluster, db: Database, mailbox: tuple[Mailbox, int]) -> None:
    taken, port = mailbox
    settings = {"smtp_host": "127.0.0.1", "smtp_port": port, "smtp_security": "none"}
    replica = await quiet(mesh, mail_from="headrace@example.com", **settings)
    addresses = ("ada@example.com", "nobody@example.com")
    await fail(mesh, replica, *(to(address, kind="EMAIL") for address in addresses))
    await send(replica)

    (mail,) = (message_from_bytes(each, policy=policy.default) for each in taken.mails)
    assert (mail["To"], mail["From"]) == ("ada@example.com", "headrace@example.com")
    assert mail["Subject"] == "[Headrace] a pipeline: a run has failed"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert "Error: noop: it did not work" in mail.get_content()
    (row,) = await waiting(db)
    assert row["last_error"] == "the mail server refused the address (550)"


async def test_a_mail_server_that_is_away_is_tried_again(mesh: Cluster, db: Database) -> None:
    settings = {"smtp_host": "127.0.0.1", "smtp_port": free_port(), "mail_from": "headrace@example.com"}
    replica = await quiet(mesh, **settings)
    await fail(mesh, replica, to("ada@example.com", kind="EMAIL"))
    await send(replica)
    (row,) = await waiting(db)
    assert row["due_at"] is not None
    assert "the mail server could not be used" in row["last_error"]


async def test_a_secret_shows_nowhere(
    mesh: Cluster, db: Database, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = "canary-4711"
    replica = await quiet(mesh)
    receiver.answers = ["500 No\r\n", "410 Gone\r\n"]
    await fail(
        mesh,
        replica,
        to(keep_secret(mesh, "slack", f"{receiver.url}?{canary}"), kind="SLACK"),
        to(f"{receiver.url}?{canary}", kind="SLACK"),
        to(keep_secret(mesh, "broken", f"nowhere {canary}")),
        to(receiver.url, secret=keep_secret(mesh, "signing", f"whsec_{canary}")),
        to(f"http://{canary}.invalid/"),
    )
    await send(replica)
    assert receiver.heard, "secrets reach whom they are for"
    printed = capfd.readouterr()
    shown = str(await alerts(replica)) + printed.out + printed.err
    async with db.read() as conn:
        events = await driver(conn).fetch("SELECT data FROM outbox_event")
    shown += "".join(str(row["data"]) for row in events)
    shown += "".join(str(row["last_error"]) for row in await waiting(db))
    assert canary not in shown.replace(f"{canary}.invalid", "the host of a target")

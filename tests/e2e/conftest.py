"""One real stack for all tests of this folder; each test makes what it needs under names of its own."""

import secrets
import tempfile
import uuid
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from headrace_local.ports import find_free_port
from headrace_local.testing import StackUnderTest, demand


class Mailbox:
    """The operator's mail server: keeps what it is given."""

    def __init__(self) -> None:
        self._taken: list[tuple[list[str], EmailMessage]] = []

    def mails_to(self, address: str) -> list[EmailMessage]:
        """What has come for an address."""
        return [mail for addresses, mail in self._taken if address in addresses]

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Called by the server for each mail."""
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        self._taken.append((list(envelope.rcpt_tos), mail))
        return "250 OK"


@pytest.fixture(scope="session")
def canary() -> str:
    """A secret that must never show anywhere."""
    return f"canary-{secrets.token_hex(16)}"


@pytest.fixture(scope="session")
def mail_server() -> Iterator[Controller]:
    """A mail server, in a thread."""
    controller = Controller(Mailbox(), hostname="127.0.0.1", port=find_free_port())
    controller.start()
    yield controller
    controller.stop()


@pytest.fixture
def mailbox(mail_server: Controller) -> Mailbox:
    """What it has been given."""
    assert isinstance(mail_server.handler, Mailbox)
    return mail_server.handler


@pytest.fixture(scope="session")
def stack(canary: str, mail_server: Controller) -> Iterator[StackUnderTest]:
    """The stack; its worker knows the canary as a secret by reference, its runs are told to a file, and mails
    go to the mail server."""
    folder = Path(tempfile.mkdtemp(prefix="hr-"))
    events = folder / "home" / "openlineage.jsonl"
    variables = {
        "HEADRACE_SECRET_CANARY": canary,
        "OPENLINEAGE_URL": f"file://{events}",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(mail_server.port),
        "SMTP_SECURITY": "none",
        "MAIL_FROM": "headrace@example.com",
    }
    running = StackUnderTest(variables, folder)
    try:
        running.up()
        yield running
    finally:
        running.remove()


@pytest.fixture(scope="session")
def admin(stack: StackUnderTest) -> Iterator[httpx.Client]:
    """An admin of the local tenant."""
    with stack.client("admin") as client:
        yield client


@pytest.fixture
def folder(stack: StackUnderTest) -> Path:
    """A folder that pipelines may read and write."""
    place = stack.home.work / uuid.uuid4().hex
    place.mkdir()
    return place


@pytest.fixture
def files(admin: httpx.Client, folder: Path) -> str:
    """The name of a connection to that folder."""
    name = f"files-{folder.name}"
    demand(admin.post("connections", json={"name": name, "type": "FILE", "path": str(folder)}), 201)
    return name


@pytest.fixture(scope="session")
def warehouse(stack: StackUnderTest, admin: httpx.Client) -> str:
    """The name of a connection to the user's database."""
    login = stack.warehouse_login()
    body = {
        "name": "e2e-warehouse",
        "type": "POSTGRESQL",
        "host": login["host"],
        "port": login["port"],
        "database": login["database"],
        "username": login["user"],
        "secret": login["password"],
    }
    demand(admin.post("connections", json=body), 201)
    return "e2e-warehouse"

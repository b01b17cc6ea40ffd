"""Notifications by mail, through the operator's SMTP server."""

import asyncio
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Literal

from headrace_execution.domain.deliveries import Delivery
from headrace_execution.notifying.outcomes import Delivered, Failed, Outcome, Refused
from headrace_execution.notifying.rendering import subject, text

Security = Literal["starttls", "tls", "none"]


@dataclass(frozen=True, slots=True)
class MailServer:
    """The server that takes mails on, and what it needs to know of us."""

    host: str
    port: int
    security: Security
    sender: str
    """The address that mails are from."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout: float = 20.0


class MailSender:
    """Sends one mail a delivery, in a thread. Its Message-ID is made of the delivery's id, so that repeats
    can be told."""

    def __init__(self, server: MailServer, clock: Callable[[], datetime]) -> None:
        self._server = server
        self._clock = clock

    async def send(self, delivery: Delivery) -> Outcome:
        """See the protocol."""
        return await asyncio.to_thread(self._send, delivery)

    def _send(self, delivery: Delivery) -> Outcome:
        try:
            with self._session() as session:
                session.send_message(self._message(delivery))
        except smtplib.SMTPRecipientsRefused as error:
            code = next(iter(error.recipients.values()))[0]
            return _refusal("the mail server refused the address", code)
        except smtplib.SMTPResponseException as error:
            # Its text is the server's and may hold anything; the code says enough.
            return Failed(f"the mail server answered {error.smtp_code}")
        except (smtplib.SMTPException, ssl.SSLError, OSError) as error:
            return Failed(f"the mail server could not be used ({type(error).__name__})")
        return Delivered()

    def _session(self) -> smtplib.SMTP:
        server = self._server
        if server.security == "tls":
            context = ssl.create_default_context()
            session: smtplib.SMTP = smtplib.SMTP_SSL(
                server.host, server.port, timeout=server.timeout, context=context
            )
        else:
            session = smtplib.SMTP(server.host, server.port, timeout=server.timeout)
        try:
            if server.security == "starttls":
                session.starttls(context=ssl.create_default_context())
            if server.username is not None:
                session.login(server.username, server.password or "")
        except BaseException:
            session.close()
            raise
        return session

    def _message(self, delivery: Delivery) -> EmailMessage:
        sender = self._server.sender
        message = EmailMessage()
        message["From"] = sender
        message["To"] = delivery.target
        message["Subject"] = f"[Headrace] {subject(delivery.body)}"
        message["Date"] = format_datetime(self._clock())
        message["Message-ID"] = f"<{delivery.id}@{sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text(delivery.body))
        return message


class NoMail:
    """Stands where no mail server is set up: nothing that is to be mailed is lost silently."""

    async def send(self, delivery: Delivery) -> Outcome:
        """See the protocol."""
        return Refused("this installation sends no mails: SMTP_HOST is not set")


def _refusal(what: str, code: int) -> Outcome:
    told = f"{what} ({code})"
    return Refused(told) if code >= 500 else Failed(told)

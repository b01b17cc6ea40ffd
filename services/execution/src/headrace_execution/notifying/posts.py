"""Notifications by HTTP: webhooks, signed as Standard Webhooks has it, and messages for Slack."""

from collections.abc import Callable, Mapping
from typing import Final

from headrace_outbound.guard import AddressRefused
from headrace_outbound.posting import Answer, CallFailed, GuardedPoster, InvalidUrl
from headrace_outbound.standard_webhooks import InvalidSecret, headers

from headrace_execution.domain.deliveries import Delivery
from headrace_execution.notifying.outcomes import Delivered, Failed, Outcome, Refused
from headrace_execution.notifying.rendering import slack_message
from headrace_execution.notifying.secrets import Secrets, SecretUnavailable

JSON: Final = {"Content-Type": "application/json"}
GONE = 410
SAYS_WHEN: Final = frozenset({429, 503})


class Posts:
    """What both have in common: the target, the guard, and what an answer means."""

    def __init__(self, poster: GuardedPoster, secrets: Secrets, *, allow_http: bool) -> None:
        self._poster = poster
        self._secrets = secrets
        self._allow_http = allow_http

    async def secret(self, delivery: Delivery, text: str) -> str:
        """A text of a delivery, or the secret it refers to. Raises SecretUnavailable."""
        return await self._secrets.value(delivery.tenant, delivery.workspace, text)

    async def post(self, delivery: Delivery, body: bytes, more: Mapping[str, str]) -> Outcome:
        """Sends a body to the target of a delivery."""
        try:
            url = (await self.secret(delivery, delivery.target)).strip()
            if not self._allow_http and not url.lower().startswith("https://"):
                return Refused("only https:// is allowed in this installation")
            return _outcome(await self._poster.post(url, body, {**JSON, **more}))
        except SecretUnavailable as error:
            return Failed(str(error), needs_change=error.needs_change)
        except InvalidUrl as error:
            return Refused(str(error))
        except AddressRefused as error:
            if error.code == "HOST_NOT_FOUND":
                return Failed(error.message, needs_change=not error.may_pass)
            return Refused(error.message)
        except CallFailed as error:
            return Failed(str(error))


class WebhookSender:
    """Signed POSTs. `clock` tells the seconds since 1970: the time of each try is signed with it."""

    def __init__(self, posts: Posts, clock: Callable[[], float]) -> None:
        self._posts = posts
        self._clock = clock

    async def send(self, delivery: Delivery) -> Outcome:
        """See the protocol."""
        body = delivery.body.encode()
        try:
            secrets = (
                [await self._posts.secret(delivery, delivery.signing_secret)]
                if delivery.signing_secret
                else []
            )
            signed = headers(str(delivery.id), int(self._clock()), body, secrets)
        except SecretUnavailable as error:
            return Failed(str(error), needs_change=error.needs_change)
        except InvalidSecret as error:
            return Failed(f"its signing secret {error}", needs_change=True)
        return await self._posts.post(delivery, body, signed)


class SlackSender:
    """Messages in the form of Slack's incoming webhooks, which others understand as well."""

    def __init__(self, posts: Posts) -> None:
        self._posts = posts

    async def send(self, delivery: Delivery) -> Outcome:
        """See the protocol."""
        return await self._posts.post(delivery, slack_message(delivery.body), {})


def _outcome(answer: Answer) -> Outcome:
    if answer.is_success:
        return Delivered()
    told = f"the receiver answered {answer.status}"
    if answer.status == GONE:
        return Refused(told)
    return Failed(told, answer.retry_after if answer.status in SAYS_WHEN else None)

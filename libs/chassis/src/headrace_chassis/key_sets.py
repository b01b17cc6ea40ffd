"""Public keys by key id, from a JWKS file or URL (RFC 7517), renewed when an unknown key id appears."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import structlog

from headrace_chassis.errors import Unauthenticated, Unavailable
from headrace_chassis.settings import is_url

_log = structlog.get_logger(__name__)

FETCH_TIMEOUT_SECONDS = 5.0
KEPT_SECONDS = 300.0
"""How long keys are used before their source is asked again: how long a removed key is still believed."""

MAXIMUM_DOCUMENT = 1024 * 1024
MAXIMUM_KEYS_OF_AN_ID = 4
MINIMUM_RSA_BITS = 2048  # RFC 7518 3.3

_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key: its type, the one algorithm that it declares (None: any of its type), and the key
    itself."""

    key_type: str
    algorithm: str | None
    key: Any

    def fits(self, algorithm: str) -> bool:
        """Tells whether a signature of this algorithm may be verified with this key (RFC 8725 3.1)."""
        return self.key_type == _KEY_TYPES.get(algorithm[:2]) and self.algorithm in (None, algorithm)


class KeySet:
    """The keys of one issuer. Only asymmetric ones are taken; a `kid` is looked up in a mapping and nowhere
    else.

    An unknown `kid` makes it read its source again, at most once in `first_wait` seconds, and more and more
    rarely (up to `longest_wait`) while that brings nothing new: a flood of forged key ids causes no flood of
    fetches.
    """

    def __init__(
        self,
        source: str,
        *,
        first_wait: float = 1.0,
        longest_wait: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._keys: dict[str, tuple[VerificationKey, ...]] = {}
        self._read_at: float | None = None
        self._monotonic = monotonic
        self._first_wait = first_wait
        self._longest_wait = longest_wait
        self._wait = first_wait
        self._next_try = 0.0
        self._lock = asyncio.Lock()

    async def find(self, kid: str, algorithm: str) -> list[VerificationKey]:
        """Returns the keys of an id that fit an algorithm; raises Unauthenticated when there is none."""
        if kid not in self._keys or self._is_old():
            await self._renew(kid)
        fitting = [key for key in self._keys.get(kid, ()) if key.fits(algorithm)]
        if not fitting:
            raise Unauthenticated("the token's key (kid) is not known here")
        return fitting

    async def load(self) -> None:
        """Reads the key set. A malformed one raises ValueError; a URL that is away is logged and asked again
        later."""
        try:
            self._keys = _parse(await self._read(), self._source)
            self._read_at = self._monotonic()
        except (httpx.HTTPError, OSError) as error:
            if not is_url(self._source):
                raise
            _log.warning("key set is away", source=self._source, error=str(error))

    def _is_old(self) -> bool:
        return self._read_at is None or self._monotonic() >= self._read_at + KEPT_SECONDS

    async def _renew(self, kid: str) -> None:
        if kid in self._keys and self._lock.locked():
            return  # another call is reading; what is known serves meanwhile
        async with self._lock:
            now = self._monotonic()
            if kid in self._keys and not self._is_old():
                return  # another call has just done so
            if now < self._next_try:
                self._demand_loaded()
                return
            try:
                keys = _parse(await self._read(), self._source)
            except (httpx.HTTPError, OSError, ValueError) as error:
                # The keys that are known stay good: an issuer's outage must not lock everybody out.
                _log.warning("key set could not be read again", source=self._source, error=str(error))
                self._back_off(now)
                self._demand_loaded()
                return
            self._read_at = now
            self._keys = keys
            if kid in keys:
                self._wait = self._first_wait
            else:
                self._back_off(now)

    def _back_off(self, now: float) -> None:
        self._next_try = now + self._wait
        self._wait = min(self._wait * 2, self._longest_wait)

    def _demand_loaded(self) -> None:
        if self._read_at is None:
            raise Unavailable("the key set of the token's issuer", retry_after=self._wait)

    async def _read(self) -> bytes:
        if not is_url(self._source):
            return await asyncio.to_thread(Path(self._source).read_bytes)
        async with httpx.AsyncClient(timeout=FETCH_TIMEOUT_SECONDS, follow_redirects=False) as client:
            response = await client.get(self._source, headers={"Accept": "application/json"})
            response.raise_for_status()
            return response.content


def _parse(document: bytes, source: str) -> dict[str, tuple[VerificationKey, ...]]:
    if len(document) > MAXIMUM_DOCUMENT:
        raise ValueError(f"the key set of {source} is larger than {MAXIMUM_DOCUMENT} bytes")
    try:
        listed = json.loads(document)["keys"]
        found: dict[str, list[VerificationKey]] = {}
        for item in listed:
            key = _key(item)
            if key is not None:
                found.setdefault(item["kid"], []).append(key)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{source} holds no JSON Web Key Set") from None
    return {kid: tuple(keys[:MAXIMUM_KEYS_OF_AN_ID]) for kid, keys in found.items()}


def _key(item: dict[str, Any]) -> VerificationKey | None:
    """Returns one key; None where it is not for us: symmetric, for encryption, without an id, too short,
    unknown."""
    key_type, kid = item.get("kty"), item.get("kid")
    if (
        not isinstance(key_type, str)
        or key_type not in _KEY_TYPES.values()
        or item.get("use", "sig") != "sig"
        or not isinstance(kid, str)
        or not kid
    ):
        return None
    try:
        key = jwt.PyJWK.from_dict(item).key
    except (jwt.PyJWTError, ValueError) as error:
        _log.warning("key is not usable", kid=kid, error=type(error).__name__)
        return None
    if key_type == "RSA" and key.key_size < MINIMUM_RSA_BITS:
        _log.warning("key is too short", kid=kid, bits=key.key_size)
        return None
    return VerificationKey(key_type, item.get("alg"), key)

"""The address guard, in the words of the connectors: what it refuses is a `ConnectorError`."""

from __future__ import annotations

import headrace_outbound.guard

from headrace_connectors.errors import ConnectorError, ErrorClass


class AddressGuard(headrace_outbound.guard.AddressGuard):
    """The operator's policy: see `headrace_outbound.guard`."""

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """The addresses of ``host``, each checked, in the resolver's order.

        :raises ConnectorError: HOST_INVALID, HOST_NOT_FOUND, ADDRESS_NOT_ALLOWED.
        """
        try:
            return await super().resolve(host, port)
        except headrace_outbound.guard.AddressRefused as error:
            kind = ErrorClass.TRANSIENT if error.may_pass else ErrorClass.CONFIGURATION
            raise ConnectorError(error.code, kind, error.message, error.details) from error

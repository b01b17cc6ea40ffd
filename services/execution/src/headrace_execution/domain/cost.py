"""What runs cost: a few quantities, each with its rate. Money is decimal and exact: nothing of it is rounded.

    compute = seconds that slots were held · rate a second
    storage = bytes landed / 10^9 · rate a gigabyte
    network = (bytes read + bytes landed) / 10^9 · rate a gigabyte

Quantities are what is kept; money is computed when somebody asks, at the rates of the day on which the run
ended.
"""

import decimal
import re
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from headrace_execution.domain.figures import Figures

_RATES = ("compute", "storage", "network")
_AMOUNT = re.compile(r"[0-9]{1,6}(\.[0-9]{1,12})?")
PER_RUN_PLACES = Decimal("1E-12")

# Quantities are 64-bit integers and rates have 18 digits, so that a sum over a year has 41: what would not
# fit, or would be rounded in any other way, raises.
_EXACT = decimal.Context(prec=60, traps=[decimal.Inexact, decimal.InvalidOperation, decimal.Overflow])
_ROUNDING = decimal.Context(prec=60)
_MICRO, _NANO = -6, -9


@dataclass(frozen=True, slots=True)
class Rates:
    """What one unit costs."""

    compute_second: Decimal
    """A second of one slot."""
    storage_gb: Decimal
    """A gigabyte (10^9 bytes) landed."""
    network_gb: Decimal
    """A gigabyte read or landed."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost by what it is for."""

    compute: Decimal = Decimal(0)
    storage: Decimal = Decimal(0)
    network: Decimal = Decimal(0)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            _EXACT.add(self.compute, other.compute),
            _EXACT.add(self.storage, other.storage),
            _EXACT.add(self.network, other.network),
        )

    @property
    def total(self) -> Decimal:
        """All of it."""
        return _EXACT.add(_EXACT.add(self.compute, self.storage), self.network)


@dataclass(frozen=True, slots=True)
class Tariff:
    """The rates, and from which day on they hold."""

    currency: str
    """ISO 4217."""
    first: Rates
    """The rates before all others."""
    later: tuple[tuple[date, Rates], ...] = field(default=())
    """The rates that hold from a day on, oldest first."""

    def on(self, day: date) -> Rates:
        """The rates of a day."""
        rates = self.first
        for since, changed in self.later:
            if since > day:
                break
            rates = changed
        return rates


def read_tariff(currency: str, text: str) -> Tariff:
    """The rates as an operator writes them: `compute=1,storage=2,network=3; 2027-01-01: compute=…`.

    Raises:
        ValueError: where it is something else; says what was expected.
    """
    head, *changes = (part.strip() for part in text.split(";"))
    later: list[tuple[date, Rates]] = []
    for change in changes:
        word, found, rates = change.partition(":")
        try:
            since = date.fromisoformat(word.strip())
        except ValueError:
            raise ValueError(
                f"{word.strip()!r}: a day is expected (YYYY-MM-DD), then a colon and rates"
            ) from None
        if later and since <= later[-1][0]:
            raise ValueError(f"{since}: the days must grow from one to the next")
        later.append((since, _read_rates(rates if found else "")))
    return Tariff(currency, _read_rates(head), tuple(later))


def _read_rates(text: str) -> Rates:
    given: dict[str, Decimal] = {}
    for part in text.split(","):
        name, _, amount = (word.strip() for word in part.partition("="))
        if name not in _RATES or name in given:
            raise ValueError(
                f"{part.strip()!r}: each of {', '.join(_RATES)} is expected once, as name=amount"
            )
        if _AMOUNT.fullmatch(amount) is None:
            raise ValueError(f"{name}: an amount such as 0.25 is expected, of at most 6 and 12 digits")
        given[name] = Decimal(amount)
    missing = [name for name in _RATES if name not in given]
    if missing:
        raise ValueError(f"rates of {', '.join(missing)} are missing")
    return Rates(given["compute"], given["storage"], given["network"])


def cost_of(figures: Figures, rates: Rates) -> Cost:
    """What something cost that moved and took this much."""
    return Cost(
        compute=_priced(figures.slot_us, _MICRO, rates.compute_second),
        storage=_priced(figures.bytes_written, _NANO, rates.storage_gb),
        network=_priced(figures.bytes_read + figures.bytes_written, _NANO, rates.network_gb),
    )


def per_run(total: Decimal, runs: int) -> Decimal | None:
    """The cost of a run on average, to twelve places; None where there are none."""
    if not runs:
        return None
    return _ROUNDING.divide(total, Decimal(runs)).quantize(PER_RUN_PLACES, context=_ROUNDING)


def digits(amount: Decimal) -> str:
    """An amount as its digits, without an exponent and without zeros that say nothing."""
    return format(amount.normalize(_EXACT), "f")


def _priced(quantity: int, scale: int, rate: Decimal) -> Decimal:
    return _EXACT.multiply(Decimal(quantity).scaleb(scale, _EXACT), rate)

"""Money is exact, percentiles are near, periods are days: the rules behind metrics and cost."""

import random
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from headrace_chassis.ids import uuid7
from headrace_execution.domain.cost import Cost, Rates, Tariff, cost_of, digits, per_run, read_tariff
from headrace_execution.domain.durations import ACCURACY, Durations
from headrace_execution.domain.figures import Figures
from headrace_execution.domain.periods import BadPeriod, Period, Trend, period_of, trend
from headrace_execution.domain.rollups import RunEnd, added, by_day
from headrace_execution.domain.states import RunState

from .factories import TENANT

RATES = Rates(Decimal("0.0000138889"), Decimal("0.023"), Decimal("0.09"))
TODAY = date(2026, 3, 10)


def end(**changes: Any) -> RunEnd:
    """A run that ended a second after it had started, on the evening of TODAY."""
    finished_at = changes.pop("finished_at", datetime(2026, 3, 10, 20, tzinfo=UTC))
    values: dict[str, Any] = {
        "tenant": TENANT,
        "pipeline": uuid7(),
        "state": RunState.COMPLETED,
        "finished_at": finished_at,
        "started_at": finished_at - timedelta(seconds=1),
        "warning_count": 0,
        "figures": Figures(1, 2, 3, 4, 5),
    }
    return RunEnd(**{**values, **changes})


class TestMoney:
    def test_a_cost_is_the_sum_of_quantities_times_rates(self) -> None:
        figures = Figures(bytes_read=3_000_000_000, bytes_written=500_000_000, slot_us=90_000_000)

        cost = cost_of(figures, RATES)

        assert cost == Cost(Decimal("0.001250001"), Decimal("0.0115"), Decimal("0.315"))
        assert digits(cost.total) == "0.327750001"

    def test_nothing_is_lost_however_small_the_parts_and_however_many(self) -> None:
        one = Figures(bytes_read=1, bytes_written=1, slot_us=1)
        total = Cost()
        for _ in range(10_000):
            total += cost_of(one, RATES)

        all_at_once = cost_of(Figures(bytes_read=10_000, bytes_written=10_000, slot_us=10_000), RATES)
        assert total.total == all_at_once.total == Decimal("0.000002168889")

    def test_the_greatest_figures_and_finest_rates_fit(self) -> None:
        finest = Rates(*[Decimal("999999.999999999999")] * 3)
        most = Figures(bytes_read=2**63 - 1, bytes_written=2**63 - 1, slot_us=2**63 - 1)

        cost = cost_of(most, finest)

        seconds = Fraction(2**63 - 1, 10**6)
        assert Fraction(cost.compute) == seconds * Fraction("999999.999999999999")
        assert Fraction(cost.network) == 2 * seconds / 1000 * Fraction("999999.999999999999")

    def test_digits_have_neither_exponents_nor_idle_zeros(self) -> None:
        amounts = [Decimal(text) for text in ("0", "0E-20", "100", "1E+3", "14.500", "0.00000000000001")]

        assert [digits(amount) for amount in amounts] == ["0", "0", "100", "1000", "14.5", "0.00000000000001"]
        assert [per_run(Decimal(1), 3), per_run(Decimal(1), 0)] == [Decimal("0.333333333333"), None]

    def test_rates_hold_from_their_day_on(self) -> None:
        cheap, dear = Rates(*[Decimal(1)] * 3), Rates(*[Decimal(2)] * 3)
        tariff = Tariff("USD", RATES, ((date(2026, 1, 1), cheap), (TODAY, dear)))

        days = [date(2025, 12, 31), date(2026, 1, 1), TODAY - timedelta(days=1), TODAY]
        assert [tariff.on(day) for day in days] == [RATES, cheap, cheap, dear]


class TestRates:
    def test_they_are_read_as_operators_write_them(self) -> None:
        text = "network=0.01, compute=0.5,storage=2 ; 2027-01-01: compute=1,storage=0,network=0"

        tariff = read_tariff("EUR", text)

        assert tariff.on(TODAY) == Rates(Decimal("0.5"), Decimal(2), Decimal("0.01"))
        assert tariff.on(date(2027, 1, 1)) == Rates(Decimal(1), Decimal(0), Decimal(0))

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "each of compute, storage, network"),
            ("compute=1,storage=1", "rates of network are missing"),
            ("compute=1,compute=1,storage=1,network=1", "'compute=1': each of"),
            ("compute=1e3,storage=1,network=1", "compute: an amount such as 0.25"),
            ("compute=-1,storage=1,network=1", "compute: an amount"),
            ("compute=1,storage=1,network=1;soon:compute=1", "'soon': a day is expected"),
            ("compute=1,storage=1,network=1;2027-01-01", "each of compute"),
            (
                "compute=1,storage=1,network=1;2027-01-01:compute=1,storage=1,network=1"
                ";2027-01-01:compute=1,storage=1,network=1",
                "2027-01-01: the days must grow",
            ),
        ],
    )
    def test_what_is_none_says_what_was_expected(self, text: str, told: str) -> None:
        with pytest.raises(ValueError, match=re.escape(told)):
            read_tariff("EUR", text)


class TestDurations:
    def test_percentiles_are_near_wherever_the_parts_were_counted(self) -> None:
        some = random.Random(7)
        values = [round(some.lognormvariate(8, 2)) for _ in range(3000)]
        parts = [Durations(), Durations(), Durations()]
        for number, value in enumerate(values):
            parts[number % 3] += Durations.of([value])

        total = parts[0] + parts[1] + parts[2]

        assert (total.count, total.sum) == (3000, sum(values))
        assert (total.min, total.max) == (min(values), max(values))
        for share in (0.5, 0.95, 0.99):
            exact = sorted(values)[int(share * 3000) - 1]
            assert total.percentile(share) == pytest.approx(exact, rel=ACCURACY, abs=1)

    def test_none_have_neither_average_nor_percentiles(self) -> None:
        assert (Durations().average, Durations().percentile(0.5)) == (None, None)
        assert (Durations.of([0]).average, Durations.of([0]).percentile(0.5)) == (0, 0)


class TestDays:
    def test_runs_are_counted_on_the_day_of_their_end_in_utc(self) -> None:
        pipeline = uuid7()
        late = datetime.fromisoformat("2026-03-10T23:30:00-05:00")

        days = by_day([end(pipeline=pipeline), end(pipeline=pipeline, finished_at=late), end()])

        assert [day.day for day in days if day.pipeline == pipeline] == [TODAY, date(2026, 3, 11)]
        assert len(days) == 3

    def test_each_state_is_counted_and_the_last_end_is_known(self) -> None:
        pipeline = uuid7()
        noon = datetime(2026, 3, 10, 12, tzinfo=UTC)
        ends = [
            end(pipeline=pipeline, warning_count=2),
            end(pipeline=pipeline, state=RunState.FAILED, finished_at=noon, warning_count=1),
            end(pipeline=pipeline, state=RunState.CANCELLED, finished_at=noon, started_at=None),
        ]

        (totals,) = (day.totals for day in by_day(ends))

        assert (totals.completed, totals.failed, totals.cancelled, totals.warned) == (1, 1, 1, 1)
        assert (totals.runs, totals.success_rate, totals.durations.count) == (3, 0.5, 2)
        assert totals.figures == Figures(3, 6, 9, 12, 15)
        assert totals.last_state is RunState.COMPLETED

    def test_totals_are_the_same_in_however_many_steps_they_were_added(self) -> None:
        pipeline = uuid7()
        ends = [end(pipeline=pipeline, state=state) for state in (RunState.FAILED, RunState.COMPLETED) * 3]

        (at_once,) = by_day(ends)
        (first,), (second,) = by_day(ends[:2]), by_day(ends[2:])
        (in_steps,) = added([second], {first.key: first.totals})

        assert (in_steps.totals.runs, in_steps.totals.durations) == (6, at_once.totals.durations)
        assert in_steps.totals.figures == at_once.totals.figures


class TestPeriods:
    @pytest.mark.parametrize(
        ("length", "first", "last", "expected"),
        [
            ("", "", "", ("2026-03-04", "2026-03-10")),
            ("1d", "", "", ("2026-03-10", "2026-03-10")),
            ("2w", "", "2026-03-01", ("2026-02-16", "2026-03-01")),
            ("", "2026-03-01", "", ("2026-03-01", "2026-03-10")),
            ("", "2024-01-01", "2024-12-31", ("2024-01-01", "2024-12-31")),
        ],
    )
    def test_days_belong_to_it_from_the_first_to_the_last(
        self, length: str, first: str, last: str, expected: tuple[str, str]
    ) -> None:
        period = period_of(length, first, last, usual="7d", today=TODAY)

        assert (str(period.first), str(period.last)) == expected
        assert (period.before.last + timedelta(days=1), period.before.days) == (period.first, period.days)

    @pytest.mark.parametrize(
        ("length", "first", "last", "place"),
        [
            ("7d", "2026-03-01", "", "period"),
            ("", "2026-03-11", "", "from"),
            ("367d", "", "", "period"),
            ("53w", "", "", "period"),
            ("24h", "", "", "period"),
            ("0d", "", "", "period"),
            ("7", "", "", "period"),
            ("", "2025-03-09", "", "from"),
            ("", "0001-01-01", "0001-01-02", "to"),
            ("366d", "", "1999-12-31", "to"),
        ],
    )
    def test_what_is_none_says_where(self, length: str, first: str, last: str, place: str) -> None:
        with pytest.raises(BadPeriod) as caught:
            period_of(length, first, last, usual="7d", today=TODAY)

        assert caught.value.place == place

    def test_a_tenth_up_or_down_is_stable(self) -> None:
        told = [trend(now, 100) for now in (90, 110, Decimal("110.01"), 89.9)]

        assert told == [Trend.STABLE, Trend.STABLE, Trend.INCREASING, Trend.DECREASING]
        assert [trend(0, 0), trend(1, 0), trend(None, 1), trend(1, None)] == [
            Trend.STABLE,
            Trend.INCREASING,
            None,
            None,
        ]
        assert str(Period(TODAY, TODAY)) == "1d"

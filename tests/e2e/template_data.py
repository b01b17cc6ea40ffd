"""Data for each template, the same for the same seed, and what must come of it, worked out in plain Python by
other means than the templates' SQL."""

import csv
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

Row = Sequence[Any]
FIRST = datetime(2026, 3, 1)  # noqa: DTZ001 - these systems know no zones
CENT = Decimal("0.01")


class World:
    """Where a template's data goes: a folder, and tables of the warehouse whose names are its own."""

    def __init__(self, folder: Path, execute: Callable[..., list[tuple[Any, ...]]], prefix: str) -> None:
        self._folder = folder
        self.execute = execute
        self.prefix = prefix

    def table(self, name: str) -> str:
        """The name of a table of this world."""
        return f"public.{self.prefix}_{name}"

    def csv(self, name: str, columns: str, rows: Sequence[Row]) -> None:
        """Writes a CSV file; columns are separated by blanks."""
        with (self._folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns.split())
            writer.writerows(rows)

    def ndjson(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Writes newline-delimited JSON."""
        (self._folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def rows(self, name: str, columns: str, rows: Sequence[Row]) -> None:
        """Makes a table and fills it; columns are as in CREATE TABLE."""
        self.execute(f"CREATE TABLE {self.table(name)} ({columns})")
        width = len(rows[0])
        for begin in range(0, len(rows), 500):
            some = rows[begin : begin + 500]
            marks = ", ".join(
                "(" + ", ".join(f"${line * width + place + 1}" for place in range(width)) + ")"
                for line in range(len(some))
            )
            self.execute(
                f"INSERT INTO {self.table(name)} VALUES {marks}", *(value for row in some for value in row)
            )


@dataclass(frozen=True)
class Made:
    """Parameters for the template, and what queries of the target must then answer."""

    parameters: dict[str, Any]
    expected: dict[str, list[tuple[Any, ...]]]


def _money(rng: random.Random, most: int) -> Decimal:
    return Decimal(rng.randrange(1, most * 100)) / 100


def payment_processing(world: World, rng: random.Random) -> Made:
    """Payments of some cards, now and then in bursts or from abroad."""
    merchants = [(f"m{n}", f"Merchant {n}", rng.choice(["PL", "DE", "FR"])) for n in range(20)]
    payments = []
    at = FIRST
    for number in range(3000):
        at += timedelta(seconds=rng.randrange(5, 400))
        card = rng.randrange(400 if number % 50 < 40 else 5)
        merchant = rng.randrange(20)
        country = merchants[merchant][2] if rng.random() < 0.9 else "US"
        amount = _money(rng, 1500)
        payments.append((number, at, f"m{merchant}", f"c{card}", f"{card:04}", country, amount, "EUR"))
    world.rows("merchants", "merchant_id text, merchant_name text, home_country text", merchants)
    world.rows(
        "payments",
        "payment_id bigint PRIMARY KEY, paid_at timestamp, merchant_id text, card_token text, "
        "card_last4 text, country text, amount numeric(12,2), currency text",
        payments,
    )
    home = {merchant: country for merchant, _, country in merchants}
    by_card: dict[str, list[datetime]] = defaultdict(list)
    scores = []
    for _, paid_at, paid_to, card_token, _, country, amount, _ in payments:
        by_card[card_token].append(paid_at)
        recent = sum(paid_at - timedelta(hours=1) <= other for other in by_card[card_token])
        score = 40 * (amount >= 1000) + 40 * (recent > 3) + 20 * (country != home[paid_to])
        scores.append((score, amount))
    review = [(score, amount) for score, amount in scores if score >= 60]
    assert 10 < len(review) < len(scores) / 2
    scored, reviewed = world.table("scored"), world.table("review")
    registry = "http://schema-registry:8081"
    return Made(
        {
            "SCHEMA_REGISTRY_URL": registry,
            "payments_table": world.table("payments"),
            "merchants_table": world.table("merchants"),
            "scored_table": scored,
            "review_table": reviewed,
        },
        {
            f"SELECT count(*), sum(amount), sum(risk_score)::int, max(schema_registry) FROM {scored}": [
                (
                    len(scores),
                    sum(amount for _, amount in scores),
                    sum(score for score, _ in scores),
                    registry,
                )
            ],
            f"SELECT count(*), sum(amount) FROM {reviewed}": [
                (len(review), sum(amount for _, amount in review))
            ],
        },
    )


def account_reconciliation(world: World, rng: random.Random) -> Made:
    """Entries of both sides, some of which are missing or differ."""
    ledger, statement = [], []
    findings: dict[str, list[Any]] = defaultdict(lambda: [0, Decimal(0)])
    for number in range(2000):
        account, day, amount = f"a{number % 7}", FIRST.date() + timedelta(days=number % 30), _money(rng, 9000)
        other = amount
        kind = rng.choices(
            ["", "MISSING_IN_LEDGER", "MISSING_IN_STATEMENT", "AMOUNT_DIFFERS"], [94, 2, 2, 2]
        )[0]
        if kind == "AMOUNT_DIFFERS":
            other = amount + rng.choice([-1, 1]) * _money(rng, 10)
        if kind != "MISSING_IN_LEDGER":
            ledger.append((f"r{number}", account, day, amount))
        if kind != "MISSING_IN_STATEMENT":
            statement.append((f"r{number}", account, day, other))
        if kind:
            found = findings[kind]
            found[0] += 1
            left = Decimal(0) if kind == "MISSING_IN_LEDGER" else amount
            right = Decimal(0) if kind == "MISSING_IN_STATEMENT" else other
            found[1] += right - left
    rng.shuffle(statement)
    world.csv("ledger.csv", "reference account booked_on amount", ledger)
    world.csv("statement.csv", "reference account valued_on amount", statement)
    differences = world.table("differences")
    return Made(
        {"differences_table": differences},
        {
            f"SELECT finding, count(*)::int, sum(difference) FROM {differences} GROUP BY 1 ORDER BY 1": [
                (kind, *findings[kind]) for kind in sorted(findings)
            ]
        },
    )


def call_rating(world: World, rng: random.Random) -> Made:
    """Calls of some days in two files, a few of them recorded twice."""
    tariffs = {zone: Decimal(rng.randrange(10, 9000)) / 10000 for zone in ("home", "eu", "world")}
    world.csv("tariffs.csv", "destination_zone price_per_minute", list(tariffs.items()))
    calls = []
    for number in range(4000):
        started = FIRST + timedelta(seconds=rng.randrange(5 * 86400))
        calls.append(
            (f"c{number}", f"s{rng.randrange(60)}", rng.choice(list(tariffs)), started, rng.randrange(0, 900))
        )
    written = [*calls, *rng.sample(calls, 100)]
    rng.shuffle(written)
    for part in range(2):
        world.csv(
            f"records{part}.csv", "call_id subscriber destination_zone started_at seconds", written[part::2]
        )
    charges: dict[tuple[str, date], list[Any]] = defaultdict(lambda: [0, 0, Decimal(0)])
    for _, subscriber, zone, started, seconds in calls:
        if seconds >= 1:
            minutes = -(-seconds // 60)
            charge = charges[subscriber, started.date()]
            charge[0] += 1
            charge[1] += minutes
            charge[2] += minutes * tariffs[zone]
    table = world.table("charges")
    return Made(
        {"charges_table": table},
        {
            f"SELECT count(*)::int, sum(calls)::int, sum(minutes)::int, sum(charge) FROM {table}": [
                (len(charges), *(sum(charge[place] for charge in charges.values()) for place in range(3)))
            ],
            f"SELECT subscriber, day, charge FROM {table} ORDER BY subscriber, day LIMIT 5": [
                (*key, charges[key][2]) for key in sorted(charges)[:5]
            ],
        },
    )


def network_quality(world: World, rng: random.Random) -> Made:
    """Counters of cells for a day, in quarters of an hour."""
    cells = [(f"cell{n}", f"site{n // 3}", rng.choice(["4G", "5G"])) for n in range(12)]
    world.csv("cells.csv", "cell site technology", cells)
    technology = {cell: kind for cell, _, kind in cells}
    counters: list[dict[str, Any]] = []
    hours: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for cell, _, _ in cells:
        for quarter in range(96):
            at = FIRST + timedelta(minutes=15 * quarter)
            attempts = rng.randrange(1, 400)
            drops = min(attempts, int(rng.expovariate(1 / 5)))
            counters.append(
                {
                    "cell": cell,
                    "measured_at": at.isoformat(sep=" "),
                    "attempts": attempts,
                    "drops": drops,
                    "megabytes": rng.randrange(5000),
                    "seconds_up": rng.choice([900, 900, 600]),
                }
            )
            if technology[cell] == "5G":
                hour = hours[cell, quarter // 4]
                hour[0] += attempts
                hour[1] += drops
    world.ndjson("counters.json", counters)
    table = world.table("cell_hours")
    good = sum(drops / attempts <= 0.02 for attempts, drops in hours.values())
    assert 0 < good < len(hours)
    return Made(
        {"figures_table": table, "technology": "5G"},
        {
            "SELECT count(*)::int, sum(attempts)::int, sum(drops)::int, "
            f"count(*) FILTER (WHERE within_target)::int FROM {table}": [
                (len(hours), sum(a for a, _ in hours.values()), sum(d for _, d in hours.values()), good)
            ]
        },
    )


def daily_sales(world: World, rng: random.Random) -> Made:
    """Receipts of some stores, with returns, a few lines twice and a few unknown products."""
    products = [(f"p{n}", rng.choice(["food", "drinks", "books"]), _money(rng, 20)) for n in range(50)]
    world.csv("products.csv", "sku category unit_cost", products)
    known = {sku: (category, cost) for sku, category, cost in products}
    lines = []
    for receipt in range(900):
        at, store = FIRST + timedelta(minutes=rng.randrange(3 * 1440)), f"store{rng.randrange(4)}"
        for line in range(rng.randrange(1, 5)):
            sku = f"p{rng.randrange(50)}" if rng.random() > 0.003 else "p999"
            quantity = rng.choice([1, 1, 2, 3, -1])
            lines.append((f"r{receipt}", line, store, at, sku, quantity, _money(rng, 40)))
    world.csv("receipts1.csv", "receipt line store sold_at sku quantity unit_price", lines[: len(lines) // 2])
    world.csv(
        "receipts2.csv", "receipt line store sold_at sku quantity unit_price", lines[len(lines) // 2 - 20 :]
    )
    sums: dict[str, list[Any]] = defaultdict(lambda: [0, 0, Decimal(0), Decimal(0)])
    for _, _, _, _, sku, quantity, price in lines:
        category, cost = known.get(sku, ("unknown", Decimal(0)))
        found = sums[category]
        found[0] += max(quantity, 0)
        found[1] += max(-quantity, 0)
        found[2] += quantity * price
        found[3] += quantity * (price - cost)
    assert "unknown" in sums
    table = world.table("daily_sales")
    return Made(
        {"sales_table": table, "unknown_share": 0.05},
        {
            f"SELECT category, sum(sold)::int, sum(returned)::int, sum(revenue), sum(margin) FROM {table} "
            "GROUP BY category ORDER BY category": [(category, *sums[category]) for category in sorted(sums)]
        },
    )


def stock_replenishment(world: World, rng: random.Random) -> Made:
    """The stock of some stores, and four weeks of sales."""
    stock = [(f"store{n % 5}", f"p{n // 5}", rng.randrange(40)) for n in range(300)]
    sales = [
        (store, sku, FIRST.date() + timedelta(days=rng.randrange(28)), rng.randrange(1, 12))
        for store, sku, _ in stock
        for _ in range(rng.randrange(0, 20))
    ]
    world.rows("stock", "store text, sku text, on_hand int", stock)
    world.rows("stock_sales", "store text, sku text, day date, quantity int", sales)
    sold: dict[tuple[str, str], int] = defaultdict(int)
    for store, sku, _, quantity in sales:
        sold[store, sku] += quantity
    orders = []
    for store, sku, on_hand in stock:
        needed = -(-sold[store, sku] * 5 // 28)
        if needed > on_hand:
            orders.append(-(-(needed - on_hand) // 6) * 6)
    assert 10 < len(orders) < len(stock)
    table = world.table("orders")
    return Made(
        {
            "stock_table": world.table("stock"),
            "sales_table": world.table("stock_sales"),
            "orders_table": table,
        },
        {f"SELECT count(*)::int, sum(quantity)::int FROM {table}": [(len(orders), sum(orders))]},
    )


def claims_adjudication(world: World, rng: random.Random) -> Made:
    """Claims of which some are late, of strangers, or of days without cover."""
    members = [
        (f"m{n}", date(2026, 1, 1), date(2026, rng.choice([2, 6, 12]), 28), Decimal(rng.choice([0, 10, 25])))
        for n in range(80)
    ]
    fees = [(f"x{n}", _money(rng, 400)) for n in range(30)]
    claims = []
    for number in range(1500):
        served = date(2026, 1, 1) + timedelta(days=rng.randrange(150))
        received = served + timedelta(days=rng.choice([3, 20, 60, 90, 91, 200]))
        member, code = f"m{rng.randrange(85)}", f"x{rng.randrange(32)}"
        claims.append((number, member, code, served, received, _money(rng, 500)))
    world.rows("members", "member_id text, covered_from date, covered_to date, copay numeric(8,2)", members)
    world.rows("fees", "procedure_code text, allowed numeric(10,2)", fees)
    world.rows(
        "claims",
        "claim_id bigint, member_id text, procedure_code text, served_on date, received_on date, "
        "billed numeric(10,2)",
        claims,
    )
    covers = {member: (begin, end, copay) for member, begin, end, copay in members}
    allowed = dict(fees)
    reasons: dict[str, int] = defaultdict(int)
    paid = Decimal(0)
    for _, member, code, served, received, billed in claims:
        if member not in covers:
            reasons["UNKNOWN_MEMBER"] += 1
        elif not covers[member][0] <= served <= covers[member][1]:
            reasons["NOT_COVERED"] += 1
        elif (received - served).days > 90:
            reasons["TOO_LATE"] += 1
        elif code not in allowed:
            reasons["UNKNOWN_PROCEDURE"] += 1
        else:
            reasons["PAID"] += 1
            owed = min(billed, allowed[code]) * Decimal("0.8") - covers[member][2]
            paid += max(owed, Decimal(0)).quantize(CENT, ROUND_HALF_UP)
    assert len(reasons) == 5
    table = world.table("decisions")
    return Made(
        {
            "claims_table": world.table("claims"),
            "members_table": world.table("members"),
            "fees_table": world.table("fees"),
            "decisions_table": table,
        },
        {
            f"SELECT coalesce(denial, decision), count(*)::int FROM {table} GROUP BY 1 ORDER BY 1": sorted(
                reasons.items()
            ),
            f"SELECT sum(paid) FROM {table}": [(paid,)],
        },
    )


def readmissions(world: World, rng: random.Random) -> Made:
    """Stays of patients, some of whom come back soon."""
    stays = []
    number = 0
    for patient in range(250):
        admitted = date(2026, 1, 1) + timedelta(days=rng.randrange(60))
        for _ in range(rng.randrange(1, 5)):
            discharged = admitted + timedelta(days=rng.randrange(0, 12))
            stays.append(
                (number, f"patient-{patient}", rng.choice(["surgery", "cardiology"]), admitted, discharged)
            )
            number += 1
            admitted = discharged + timedelta(days=rng.randrange(1, 70))
    left: dict[str, date] = {}
    figures: dict[tuple[str, date], list[int]] = defaultdict(lambda: [0, 0, 0])
    returned = 0
    for _, who, department, admitted, discharged in stays:
        is_back = who in left and (admitted - left[who]).days <= 30
        left[who] = discharged
        returned += is_back
        figure = figures[department, admitted.replace(day=1)]
        figure[0] += 1
        figure[1] += is_back
        figure[2] += (discharged - admitted).days
    kept = {key: figure for key, figure in figures.items() if figure[0] >= 5}
    assert 0 < len(kept) < len(figures)
    rng.shuffle(stays)
    world.csv("stays.csv", "stay_id patient_id department admitted_on discharged_on", stays)
    salt = "a salt of the test"
    first = hashlib.sha256(f"{next(stay[1] for stay in stays if stay[0] == 0)}{salt}".encode()).hexdigest()
    table, figures_table = world.table("stays"), world.table("figures")
    return Made(
        {"pseudonym_salt": salt, "stays_table": table, "figures_table": figures_table},
        {
            f"SELECT count(*)::int, count(*) FILTER (WHERE is_readmission)::int FROM {table}": [
                (len(stays), returned)
            ],
            f"SELECT patient FROM {table} WHERE stay_id = 0": [(first,)],
            f"SELECT department, month, stays, readmissions, days FROM {figures_table} ORDER BY 1, 2": [
                (*key, *kept[key]) for key in sorted(kept)
            ],
        },
    )


MAKERS: dict[str, Callable[[World, random.Random], Made]] = {
    "fintech/payment_processing": payment_processing,
    "fintech/account_reconciliation": account_reconciliation,
    "telecom/call_rating": call_rating,
    "telecom/network_quality": network_quality,
    "retail/daily_sales": daily_sales,
    "retail/stock_replenishment": stock_replenishment,
    "healthcare/claims_adjudication": claims_adjudication,
    "healthcare/readmissions": readmissions,
}
"""What makes the data of each template."""

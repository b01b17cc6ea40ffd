"""The cache of what was compiled."""

from headrace_execution.acceptance.sized_cache import SizedCache


def test_what_was_not_used_for_longest_makes_room() -> None:
    cache: SizedCache[str, int] = SizedCache(10)
    for number, key in enumerate("abc"):
        cache.put(key, number, 3)
    assert cache.get("a") == 0

    cache.put("d", 3, 3)

    assert [cache.get(key) for key in "abcd"] == [0, None, 2, 3]


def test_a_value_takes_the_place_and_the_size_of_the_one_before() -> None:
    cache: SizedCache[str, int] = SizedCache(10)
    cache.put("a", 1, 9)
    cache.put("a", 2, 4)
    cache.put("b", 3, 6)

    assert (cache.get("a"), cache.get("b")) == (2, 3)


def test_what_is_too_large_by_itself_stays_until_the_next() -> None:
    cache: SizedCache[str, int] = SizedCache(10)
    cache.put("a", 1, 11)
    assert cache.get("a") == 1

    cache.put("b", 2, 1)

    assert (cache.get("a"), cache.get("b")) == (None, 2)

"""Recipes by digest. They never change, so each process reads one once."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from headrace_execution.domain.recipe import Recipe
from headrace_execution.store.sql.documents import dump_recipe, load_recipe

Key = tuple[UUID, bytes]

_INSERT = """
INSERT INTO recipes (pipeline, digest, body)
SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::text[]) ON CONFLICT DO NOTHING
"""

_READ = """
SELECT r.pipeline, r.digest, r.body FROM unnest($1::uuid[], $2::bytea[]) AS u(pipeline, digest)
JOIN recipes AS r USING (pipeline, digest)
"""


class RecipeCache:
    """The recipes that were used last, and which of them are known to be in the database."""

    def __init__(self, capacity: int = 2000) -> None:
        self._capacity = capacity
        self._recipes: OrderedDict[Key, Recipe] = OrderedDict()

    async def load(self, conn: Any, keys: Collection[Key]) -> dict[Key, Recipe]:
        """The recipes of these keys. Raises KeyError when one is missing."""
        found = {key: self._recipes[key] for key in keys if key in self._recipes}
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            rows = await conn.fetch(_READ, [key[0] for key in missing], [key[1] for key in missing])
            for row in rows:
                key = (row["pipeline"], row["digest"])
                found[key] = load_recipe(row["digest"], row["body"])
                self.remember(key, found[key])
        for key in missing:
            if key not in found:
                raise KeyError(f"pipeline {key[0]} has no recipe {key[1].hex()}")
        return found

    async def store(self, conn: Any, recipes: Sequence[tuple[UUID, Recipe]]) -> list[tuple[Key, Recipe]]:
        """Writes those that are not known to be there. They are remembered by the caller after its commit."""
        new = {
            (pipeline, recipe.digest): recipe
            for pipeline, recipe in recipes
            if (pipeline, recipe.digest) not in self._recipes
        }
        if new:
            # Sorted, so that two transactions that insert the same ones wait in the same order.
            keys = sorted(new, key=lambda key: (key[0].bytes, key[1]))
            bodies = [dump_recipe(new[key]) for key in keys]
            await conn.execute(_INSERT, [key[0] for key in keys], [key[1] for key in keys], bodies)
        return list(new.items())

    def remember(self, key: Key, recipe: Recipe) -> None:
        """Keeps a recipe that is in the database."""
        self._recipes[key] = recipe
        self._recipes.move_to_end(key)
        while len(self._recipes) > self._capacity:
            self._recipes.popitem(last=False)

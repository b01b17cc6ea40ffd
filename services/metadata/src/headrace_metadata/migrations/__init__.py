"""The history of metadata's schema. Changes are additive first, so that the release before still runs on
it."""

"""The history of the scheduler's schema. Changes are additive, so that the release before still runs on
it."""

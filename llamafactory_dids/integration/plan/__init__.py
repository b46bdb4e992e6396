"""From settings and data to the `MixingPlan` that the trainer is given."""

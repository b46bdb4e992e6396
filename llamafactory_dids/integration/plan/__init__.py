"""From settings and data to the trainer's `MixingPlan`."""

"""The training loop and all that makes a run repeatable."""

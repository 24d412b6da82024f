"""Checkpoint: everything in an output folder that is not a weight tensor."""

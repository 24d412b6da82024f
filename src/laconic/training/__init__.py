"""Training-based baselines, to measure merges against."""

"""Run: samples in, completions out."""

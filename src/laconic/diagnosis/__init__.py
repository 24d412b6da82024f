"""Plan: what is wrong with a set of parents, and what laconic will do about it."""

"""Search: from a pair of models to its Pareto front of accuracy against tokens."""

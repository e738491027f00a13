"""Analysis of results: a tidy table, the Pareto front, statistics over few seeds. Pure functions without torch."""

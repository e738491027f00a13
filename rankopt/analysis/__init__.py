"""What results say: a tidy table, the Pareto front, statistics over few seeds. Pure functions, no torch."""

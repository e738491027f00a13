"""The values that all rooms share: rank patterns, budgets, specs and results. No torch."""

"""The values everything else speaks in: patterns, budgets, specs, results. No torch."""

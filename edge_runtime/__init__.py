"""edge_runtime: reads sweeps from a scanner, answers what was heard, and says what the answer cost."""

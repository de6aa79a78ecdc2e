"""compile: turns trained models into bundles (.edge) that edge_runtime runs on ARM devices."""

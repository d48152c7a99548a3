"""Scoring: generated meshes against ground truth, reports; the subset for ablations."""

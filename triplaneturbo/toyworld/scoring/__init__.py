"""Scoring: generated meshes against ground truth, reports and ablations."""

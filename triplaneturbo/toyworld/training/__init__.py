"""Training of the built-in model: pretraining of the base, distillation, the CLIP judge and the export."""

"""Domains: what differs between models by the prompts that they were trained on."""

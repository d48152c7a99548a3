"""Captions: lexicon, specs to captions, the caption parser and messages about prompts."""

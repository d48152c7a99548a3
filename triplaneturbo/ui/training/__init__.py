"""The Advanced tab: fine-tuning on a list of prompts."""

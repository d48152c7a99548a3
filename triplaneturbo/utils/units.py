"""Units of memory."""

GB = 2**30  # as devices report their memory

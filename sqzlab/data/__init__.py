"""Data sets by name: what they hold (`fingerprint`, without torch) and their batches (`open`)."""

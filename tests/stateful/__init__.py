"""Random histories of a small firm, told to the engine and to the oracle alike."""

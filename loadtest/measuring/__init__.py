"""What the scripts that measure have in common: how they end, where their data goes, their server, what is said of a run."""

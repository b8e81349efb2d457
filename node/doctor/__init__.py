"""The doctor: checks a machine before a node runs on it, or when something is wrong."""

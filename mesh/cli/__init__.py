"""Operator verbs: they know only the REST client."""

"""Resource types of /api/v1 and the one client that speaks it."""

"""Work at a node: orders become jobs, jobs become steps, steps touch machines."""

"""Host services every role needs: configuration, log, child processes."""

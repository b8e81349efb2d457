"""The hub's HTTP API under ``/api/v1``: routes over Services, nothing else."""

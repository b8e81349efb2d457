"""What the settings say about jobs, as the work service takes it."""

from node.config import NodeConfig
from node.work.ports import Limits


def job_limits(config: NodeConfig) -> Limits:
    """Return the limits of a node's work."""
    jobs = config.jobs
    return Limits(
        lost_s=config.policy.machine_lost_s,
        jobs_max=jobs.node_max,
        destructive_max=jobs.destructive_max,
        caps=jobs.caps(),
    )

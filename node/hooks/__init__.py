"""Hooks of a job, carried out: webhooks, commands over ssh, playbooks."""

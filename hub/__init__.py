"""The hub: phone-home front desk, console and API over all sites; a view, never the only copy."""

"""The hub: phone-home front desk, console and API of all sites; never the only copy."""

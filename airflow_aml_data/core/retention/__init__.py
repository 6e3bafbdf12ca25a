"""Intermediate data goes when it may, and never before: rules, plans, sweeps."""

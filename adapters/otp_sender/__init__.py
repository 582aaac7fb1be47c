"""Delivery of one-time codes."""

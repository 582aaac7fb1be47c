"""Notifications of jobs: Taskiq over a Redis stream.

A job only names a message or an account. Postgres decides which worker does it, so jobs are acknowledged
on arrival, and may be lost or come twice.
"""

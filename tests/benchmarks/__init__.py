"""What the product costs, as multiples of f: the CPU of one bare Sanic request of the same run.

Each section starts its own servers, measures, and returns figures by name. `make bench` runs all sections, stores
their figures in docs/performance/last.json and rewrites the tables and plots of docs/performance.md from that file.
"""

"""Measurements that take longer than a chapter may: each module is a command that writes a record of its runs."""

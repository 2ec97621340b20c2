"""The kernel's fair scheduler in numbers: what a task can be set to, what loads do, and what comes of both."""

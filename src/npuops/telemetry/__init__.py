"""Events into words for the outside: metrics, logs, traces, the live page."""

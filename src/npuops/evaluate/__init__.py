"""What goes in and what comes out: samples, the reference engine, metrics, and when two answers are equal."""

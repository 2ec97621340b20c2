"""From a model to a gated artifact: analyse, quantize, compile, prove, judge."""

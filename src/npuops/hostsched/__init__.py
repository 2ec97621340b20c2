"""The idle NPU tunes the host's CPU scheduler: observe, decide, guard, act, and put everything back."""

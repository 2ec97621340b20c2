"""What is plugged in: discovery, readings and health of real and virtual accelerators."""

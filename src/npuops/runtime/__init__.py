"""From a request to its completion: queues, batches, devices. It knows no protocol and no metric."""

"""What is being predicted: outputs, loss, metrics, target Gram."""

"""What the commands do: configs read, checked and turned into experiments."""

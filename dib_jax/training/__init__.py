"""The engine: trains blocks of stages in turn, each on a frozen trunk."""

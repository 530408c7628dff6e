"""What several methods are made of: solvers, state by task, gradients by coordinate."""

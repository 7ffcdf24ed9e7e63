"""The mixed-integer program, one function a constraint, and the solver behind it."""

//! What the pool promises, over examples and over random sequences of operations.

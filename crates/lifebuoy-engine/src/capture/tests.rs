//! Captures from a source of lists that the test plays.

//! Executes programs and scores them.

//! HTTP in: account pushes, queries, bill runs.

//! RADIUS in: receive, verify, group commit, answer; the fold behind it.

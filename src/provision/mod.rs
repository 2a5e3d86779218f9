//! From an account to the elements that must exist for it, and the state machine of the jobs that bring them there.

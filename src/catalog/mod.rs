//! What a tenant sells: plans, bill cycles, tariffs and treatments of holds, read from TOML and checked as a whole.

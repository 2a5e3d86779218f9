//! Arguments in, exit code out.

use std::process::ExitCode;

/// A record goes through a dozen small allocations, freed by other threads than made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lastmile::cli::main()
}

//! What serving costs: each benchmark prints figures that belong together, taken in one run.
//!
//! `cargo bench --bench serving` runs all of them, `cargo bench --bench serving -- NAME` one.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints and may panic"
)]

mod footprint;
mod latency;
mod mixed_load;
mod process;
mod weights;

/// The server's own allocator, so that memory figures are comparable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // Cargo adds `--bench` to what the user says.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (name, rest) = arguments.split_first().map_or(("all", &[][..]), |(name, rest)| (name.as_str(), rest));
    match name {
        "footprint" => footprint::run(),
        "latency" => latency::run(),
        "mixed_load" => mixed_load::run(rest),
        "weights" => weights::run(rest),
        _ => {
            footprint::run();
            weights::run(&[]);
            latency::run();
            mixed_load::run(&[]);
        }
    }
}

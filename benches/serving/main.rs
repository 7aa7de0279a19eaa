//! What serving costs: each benchmark prints figures that belong together, taken in one run.
//!
//! `cargo bench --bench serving` runs the short ones, `cargo bench --bench serving -- NAME` one.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints and may panic"
)]

mod bare_model;
mod cache;
mod closed_loop;
mod engine_limit;
mod footprint;
mod hostile;
mod http_response;
mod latencies;
mod latency;
mod mixed_load;
mod observability_cost;
mod open_loop;
mod overload;
mod predicted_labels;
mod probes;
mod process;
mod stop;
mod stuck_client;
mod stuck_clients;
mod weights;

/// The server's own allocator, so that memory figures are comparable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Benchmark = (&'static str, fn(&[String]));

/// What runs when no name is given.
const SHORT_BENCHMARKS: &[Benchmark] = &[
    ("footprint", |_| footprint::run()),
    ("weights", weights::run),
    ("latency", |_| latency::run()),
    ("mixed_load", mixed_load::run),
    ("cache", |_| cache::run()),
];

/// Minutes each, or with arguments: by name only.
const LONG_BENCHMARKS: &[Benchmark] = &[
    ("closed_loop", closed_loop::run),
    ("limit", engine_limit::run),
    ("open_loop", open_loop::run),
    ("overload", overload::run),
    ("stuck_clients", stuck_clients::run),
    ("stop", stop::run),
    ("watching", |_| observability_cost::run()),
    ("hostile", hostile::run),
];

fn main() {
    // Cargo adds `--bench` to what the user says.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (name, rest) = arguments.split_first().map_or(("all", &[][..]), |(name, rest)| (name.as_str(), rest));
    if name == "all" {
        return SHORT_BENCHMARKS.iter().for_each(|(_, run)| run(&[]));
    }
    let known = || SHORT_BENCHMARKS.iter().chain(LONG_BENCHMARKS);
    if let Some((_, run)) = known().find(|(known, _)| *known == name) {
        return run(rest);
    }
    println!("no benchmark is called {name}; there are {:?}", known().map(|(name, _)| *name).collect::<Vec<_>>());
    std::process::exit(2);
}

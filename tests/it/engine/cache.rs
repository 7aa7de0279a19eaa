//! The result cache: what was answered before, and what several clients wait for.

mod cache_control_header;
mod hits;
mod single_flight;
mod stress;

use crate::support::fake_backend::FakeBackend;
use crate::support::fake_backend_server::FakeBackendServer;

const CACHE_OPTIONS: [&str; 2] = ["--cache-bytes", "16777216"];

/// One model, `m`, with one worker, and a cache.
async fn start_cached(options: &[&str]) -> FakeBackendServer {
    start_cached_with_models(FakeBackend::default(), &[("m", "")], options).await
}

async fn start_cached_with_models(fake: FakeBackend, models: &[(&str, &str)], options: &[&str]) -> FakeBackendServer {
    let options = [&CACHE_OPTIONS[..], options].concat();
    FakeBackendServer::with_models(fake, models, &options).await
}

/// How many texts were looked up with this result.
async fn lookup_count(scene: &FakeBackendServer, result: &str) -> u64 {
    scene.metric(&format!("predictd_cache_lookups_total{{result=\"{result}\"}}")).await
}

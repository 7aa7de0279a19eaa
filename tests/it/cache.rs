//! The result cache: what was answered before, and what several clients wait for.

mod answers;
mod control;
mod flights;
mod stress;

use crate::scheduling::Scene;
use crate::scheduling::fake::Fake;

const ON: [&str; 2] = ["--cache-bytes", "16777216"];

/// One model, `m`, with one worker, and a cache.
async fn scene(options: &[&str]) -> Scene {
    scene_of(Fake::default(), &[("m", "")], options).await
}

async fn scene_of(fake: Fake, models: &[(&str, &str)], options: &[&str]) -> Scene {
    let options = [&ON[..], options].concat();
    Scene::of(fake, models, &options).await
}

/// How many texts were looked up with this result.
async fn lookups(scene: &Scene, result: &str) -> u64 {
    scene.metric(&format!("predictd_cache_lookups_total{{result=\"{result}\"}}")).await
}

//! What all models are loaded with.

use std::sync::Arc;
use std::time::Duration;

use predictd_drift::WindowSettings;
use predictd_metrics::Metrics;
use predictd_text::text_policies::TextPolicies;
use rayon::ThreadPool;

use super::backend::Backend;
use super::execution_group::ExecutionGroup;

/// What models are loaded with: the same for all of them.
#[derive(Clone)]
pub struct LoadContext {
    /// Runs graphs.
    pub backend: Arc<dyn Backend>,
    /// What models on the cores share.
    pub cpu_group: ExecutionGroup,
    /// What models on GPUs share.
    pub gpu_group: ExecutionGroup,
    /// Tokenises what takes longer than a moment.
    pub tokenizer_pool: Arc<ThreadPool>,
    /// Time of one run while a model is checked.
    pub check_run_timeout: Duration,
    /// How texts are treated where the model does not say.
    pub text_defaults: TextPolicies,
    /// When a window of texts is compared with the model's profile.
    pub drift_settings: WindowSettings,
    /// Where events are counted.
    pub metrics: Arc<Metrics>,
}

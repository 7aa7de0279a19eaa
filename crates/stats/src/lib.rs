//! What feedback says about the arms of an experiment. Pure: numbers in, numbers and sentences out.
//!
//! - [`feedback_counts`]: how often an arm was right
//! - [`interval`]: how sure a single accuracy is
//! - [`difference`]: whether one arm is better, safe to look at as often as one likes; [`comparison_plan`]: how much that takes
//! - [`user_sample`]: a fair sample of the users seen; [`sample_ratio`]: whether they are spread over the arms as the weights say
//! - [`confusion`]: where a model is wrong; [`reliability`]: whether it knows; [`latency`]: how long it takes
//! - [`verdict`]: all of it in plain words
//! - [`split_mix64`]: random numbers
//!
//! What no formula here can mend: feedback is taken as independent from answer to answer, and as given equally
//! readily for right and wrong answers in every arm.

pub mod comparison_plan;
pub mod confusion;
pub mod difference;
pub mod feedback_counts;
pub mod interval;
pub mod latency;
mod number_format;
pub mod reliability;
pub mod sample_ratio;
pub mod split_mix64;
pub mod user_sample;
pub mod verdict;

pub use comparison_plan::{ComparisonPlan, SampleSizes};
pub use difference::{AccuracyDifference, ComparisonOutcome, compare_accuracies};
pub use feedback_counts::{FeedbackCounts, to_f64};
pub use interval::ConfidenceInterval;
pub use sample_ratio::sample_ratio_mismatch;
pub use user_sample::UserSample;

#[cfg(test)]
mod tests {
    pub(super) mod simulation;
}

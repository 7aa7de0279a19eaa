//! Whether the texts that a model is asked, and its answers, are still like those that it was made for. Pure.
//!
//! # For operators
//!
//! A profile (`profile.json`, made by `predictd profile`) holds how texts that the model is good for are spread: over
//! labels, over confidence, over lengths in tokens, and how many of their tokens the tokenizer does not know. Live
//! texts are counted in windows of 1,000 (`--drift-window`), and each full window is compared with the profile.
//!
//! PSI, the population stability index, is the usual measure of that: 0 if both are spread alike, below 0.1 hardly
//! different, from 0.2 on different enough to look. A window also differs by chance, and the more so the fewer texts
//! there are and the more labels they fall on. So a signal is `drifting` from 0.2 *plus* what chance alone stays below
//! in 999 of 1,000 windows: 0.36 for 77 labels and a profile of 3,000 texts, 0.22 for two labels. It is `quiet` again
//! after two windows in a row below 0.1 plus chance. For unknown tokens the measure is the difference of the two shares
//! (Cohen's h), where 0.2 means from none to 1 %, from 5 % to 10 %, or from 20 % to 29 %.
//!
//! `needed` says how many texts a window must have to be judged at all: 100 for most signals, for 77 labels about 150,
//! or 720 with the smallest profile. With fewer texts only larger drifts are seen. Of 1,000 bank questions, 30 % from
//! five intents of 77 always raised `labels`, 20 % every fourth time; 15 % in foreign languages always raised
//! `confidence`.
//!
//! A profile has at least 200 texts; 1,000 are good, and 20 for each label better. **They must be texts that the model
//! was not trained on**: it is surer of those than of any others, and every live window would seem to drift. What a
//! signal cannot tell is why: a campaign, a bot, a new language and a broken client look alike. Nor does a quiet signal
//! prove that the answers are right. A text that is sent again counts again, so one client that repeats itself can
//! raise it.
//!
//! # Code map
//!
//! - [`accuracy_drop`]: whether a model is less often right than it was
//! - [`counts`]: what a window or a reference holds, in memory that does not grow
//! - `rare_bins`: bins too rare to be compared alone, put together
//! - `divergence`: PSI, Jensen-Shannon, shares of tokens, and what chance gives
//! - [`profile`]: the file, and everything that can be wrong with it
//! - `reference`: a profile in the order of its model's labels, and windows judged by it
//! - `signal`: what is compared
//! - `signal_state`: when a signal is raised and cleared
//! - [`window`]: windows of live texts, one model version's

pub mod accuracy_drop;
pub mod counts;
mod divergence;
pub mod profile;
mod rare_bins;
mod reference;
mod signal;
mod signal_state;
pub mod window;

pub use counts::DistributionCounts;
pub use divergence::Divergence;
pub use profile::{Profile, ProfileOrigin};
pub use reference::Reference;
pub use signal::DriftSignal;
pub use signal_state::DriftLevel;
pub use window::{DriftDetector, SignalReport, WindowResult, WindowSettings};

#[cfg(test)]
mod tests {
    pub(crate) mod samples;
}

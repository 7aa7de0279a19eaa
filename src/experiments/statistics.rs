//! What feedback says about the arms of an experiment. Pure: numbers in, numbers and sentences out.
//!
//! - [`interval`]: how sure a single accuracy is
//! - [`difference`]: whether one arm is better, safe to look at as often as one likes; [`plan`]: how much that takes
//! - [`users`]: a fair sample of the users seen; [`ratio`]: whether they are spread over the arms as the weights say
//! - [`classes`]: where a model is wrong; [`calibration`]: whether it knows; [`latency`]: how long it takes
//! - [`verdict`]: all of it in plain words
//!
//! What no formula here can mend: feedback is taken as independent from answer to answer, and as given equally
//! readily for right and wrong answers in every arm.

pub mod calibration;
pub mod classes;
pub mod difference;
mod figures;
pub mod interval;
pub mod latency;
pub mod plan;
pub mod ratio;
pub mod users;
pub mod verdict;

pub use difference::{Counts, Decision, Difference, compare};
pub use interval::Interval;
pub use plan::{Needed, Plan};
pub use ratio::mismatch;
pub use users::UserSample;
pub use verdict::{Verdict, judge};

#[cfg(test)]
mod simulation;

//! Admission, queue, deadlines, faults and stopping, on a runtime that does what its texts say.

mod admission_permits;
mod cancellation;
mod deadlines;
mod express_lane;
mod held_runs;
mod run_failures;
mod session_recycling;
mod shutdown;
mod stress;
mod wait_estimates;

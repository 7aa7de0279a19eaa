//! Experiments on a running server: who gets which arm, what becomes of arms that fail, what is counted, and rollouts.

mod arm_failures;
mod bucketing;
mod designs_and_changes;
mod experiments_command;
mod results;
mod rollouts;
mod shadows;

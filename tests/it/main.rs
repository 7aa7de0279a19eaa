//! Integration tests: the real router on port 0, with real models wherever a model matters.

mod server;

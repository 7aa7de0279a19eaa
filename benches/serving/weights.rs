//! Memory of several sessions of one graph, with weights of their own and with shared ones.
//!
//! `cargo bench --bench serving -- weights`. Each figure comes from a process of its own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use predictd::engine::backend::{Backend, Session};
use predictd::onnx::OnnxRuntime;
use predictd::text::manifest::Manifest;
use predictd::text::pipeline::Batch;
use predictd::text::tensors::{Padding, TokenRow, pack_rows};

const MODEL: &str = "models/banking77-minilm/1";

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Resident memory with `sessions` sessions that have each run one short text.
fn measure_mib(shared: bool, sessions: usize) -> f64 {
    let runtime = OnnxRuntime::load(None).unwrap();
    let runtime = if shared { runtime } else { runtime.without_shared_weights() };
    let mut manifest = Manifest::load(Path::new(MODEL)).unwrap();
    let mut graph = runtime.open(&mut manifest).unwrap();
    let row = TokenRow { ids: (1000..1016).collect(), type_ids: vec![0; 16] };
    let batch = Batch::Tokens(pack_rows(&[&row], Padding::default(), 0));
    let mut made: Vec<Box<dyn Session>> = (0..sessions).map(|_| graph.create_session().unwrap()).collect();
    for session in &mut made {
        session.run(&batch, Instant::now() + Duration::from_secs(10)).unwrap();
    }
    drop(graph);
    drop(manifest);
    // The allocator gives memory back a little later, when it is asked for more.
    std::thread::sleep(Duration::from_millis(200));
    for session in &mut made {
        session.run(&batch, Instant::now() + Duration::from_secs(10)).unwrap();
    }
    resident_mib()
}

/// What this program's measurement gives in a process of its own.
fn child_process_mib(how: &str, sessions: usize) -> f64 {
    let arguments = ["weights", how, &sessions.to_string()];
    let output = Command::new(std::env::current_exe().unwrap()).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Prints the table; with `own N` or `shared N` one figure of it.
pub(crate) fn run(arguments: &[String]) {
    if let [how, sessions] = arguments
        && let Ok(sessions) = sessions.parse()
    {
        println!("{}", measure_mib(how == "shared", sessions));
        return;
    }
    println!("sessions   own weights   shared weights   (resident MiB of a process, {MODEL})");
    for sessions in [1, 2, 4, 8] {
        println!(
            "{sessions:8} {:13.0} {:16.0}",
            child_process_mib("own", sessions),
            child_process_mib("shared", sessions)
        );
    }
}

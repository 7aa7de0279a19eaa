//! `predictd health`: exit codes and messages for the health check of a container.

use std::net::TcpListener;

use crate::support::daemon::{Daemon, predictd, run_to_exit, send_signal};
use crate::support::http_receiver::HttpReceiver;
use crate::support::model_builder::{ModelBuilder, slow_models};
use crate::support::test_server::cheap_models;

#[test]
fn health_command_tells_ready_stopping_and_gone() {
    let models = cheap_models();
    let data = tempfile::tempdir().unwrap();
    let daemon = Daemon::start_with(models.path(), data.path(), &["--drain-delay", "2s"]);
    let admin = daemon.admin.to_string();
    let health = |options: &[&str]| {
        let fixed = ["health", "--admin-listen", admin.as_str()];
        run_to_exit(&mut predictd(&[&fixed[..], options].concat()))
    };
    let data_listener = format!("http://{}", daemon.address);
    for options in [&[][..], &["--live"], &["--url", &data_listener]] {
        assert_eq!(health(options), (0, String::new()), "{options:?}");
    }
    daemon.signal("TERM");
    let (code, said) = loop {
        let (code, said) = health(&[]);
        if code != 0 {
            break (code, said);
        }
    };
    assert_eq!((code, &*said), (1, "predictd: the server answered with 503: The server was told to stop.\n"));
    assert_eq!(health(&["--live"]).0, 0);
    assert!(daemon.wait().0.success());
    let (code, said) = health(&[]);
    assert!(code == 1 && said.starts_with("predictd: the server cannot be reached: "), "{said}");
}

#[test]
fn health_command_loading_server_is_live_not_ready() {
    let models = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    slow_models::never_answers().write(models.path(), "endless", "1");
    ModelBuilder::plain().write(models.path(), "good", "1");
    let options = ["--default-model", "endless", "--drain-timeout", "1s"];
    let daemon = Daemon::launch(&mut crate::support::daemon::serve_command(models.path(), data.path(), &options));
    let admin = daemon.admin.to_string();
    let (code, said) = run_to_exit(&mut predictd(&["health", "--admin-listen", &admin]));
    assert_eq!((code, &*said), (1, "predictd: the server answered with 503: The default model does not answer yet.\n"));
    assert_eq!(run_to_exit(&mut predictd(&["health", "--live", "--admin-listen", &admin])).0, 0);
    send_signal(daemon.child.id(), "KILL");
    daemon.wait();
}

#[test]
fn health_command_wrong_answer_is_unhealthy() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let (code, said) = run_to_exit(&mut predictd(&["health", "--admin-listen", &silent, "--timeout", "100ms"]));
    assert_eq!((code, &*said), (1, "predictd: the server did not answer within 100ms\n"));
    let other = HttpReceiver::new(&[(404, "<html>")]);
    let (code, said) = run_to_exit(&mut predictd(&["health", "--url", &other.url("")]));
    assert_eq!((code, &*said), (1, "predictd: the server answered with 404: it does not say why\n"));
    let (code, _) = run_to_exit(&mut predictd(&["health", "--url", "file:///etc/passwd"]));
    assert_eq!(code, 64);
}

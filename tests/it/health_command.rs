//! `predictd health`: what a container's health check is told.

use std::net::TcpListener;

use crate::daemon::{Daemon, ends, predictd, signal};
use crate::fixture::{Model, endless};
use crate::receiver::Receiver;
use crate::server::cheap_models;

#[test]
fn a_health_check_knows_ready_from_stopping_and_gone() {
    let (models, data) = (cheap_models(), tempfile::tempdir().unwrap());
    let daemon = Daemon::with(models.path(), data.path(), &["--drain-delay", "2s"]);
    let admin = daemon.admin.to_string();
    let health = |options: &[&str]| {
        let fixed = ["health", "--admin-listen", admin.as_str()];
        ends(&mut predictd(&[&fixed[..], options].concat()))
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
fn a_server_whose_model_loads_is_live_and_not_ready() {
    let (models, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    endless::on_every_text().write(models.path(), "endless", "1");
    Model::plain().write(models.path(), "good", "1");
    let options = ["--default-model", "endless", "--grace", "1s"];
    let daemon = Daemon::launch(&mut crate::daemon::serving(models.path(), data.path(), &options));
    let admin = daemon.admin.to_string();
    let (code, said) = ends(&mut predictd(&["health", "--admin-listen", &admin]));
    assert_eq!((code, &*said), (1, "predictd: the server answered with 503: The default model does not answer yet.\n"));
    assert_eq!(ends(&mut predictd(&["health", "--live", "--admin-listen", &admin])).0, 0);
    signal(daemon.child.id(), "KILL");
    daemon.wait();
}

#[test]
fn who_does_not_answer_as_a_server_does_is_not_healthy() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let (code, said) = ends(&mut predictd(&["health", "--admin-listen", &silent, "--timeout", "100ms"]));
    assert_eq!((code, &*said), (1, "predictd: the server did not answer within 100ms\n"));
    let other = Receiver::new(&[(404, "<html>")]);
    let (code, said) = ends(&mut predictd(&["health", "--url", &other.url("")]));
    assert_eq!((code, &*said), (1, "predictd: the server answered with 404: it does not say why\n"));
    let (code, _) = ends(&mut predictd(&["health", "--url", "file:///etc/passwd"]));
    assert_eq!(code, 64);
}

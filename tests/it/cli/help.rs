//! What `--help` says of every command.

use clap::{Command, CommandFactory};
use predictd::cli::Cli;

use crate::support::daemon::predictd;
use crate::support::snapshots::{snapshot_settings, transcript};

/// The help of a command and of those below it.
fn help_pages(command: &Command, path: &[&str]) -> String {
    let arguments = [path, &["--help"]].concat();
    let mut pages = transcript(&arguments, &mut predictd(&arguments));
    for below in command.get_subcommands() {
        pages.push_str(&help_pages(below, &[path, &[below.get_name()]].concat()));
    }
    pages
}

#[test]
fn help_of_program_matches_snapshots() {
    for (name, flag) in [("help", "--help"), ("help-short", "-h")] {
        let page = transcript(&[flag], &mut predictd(&[flag]));
        snapshot_settings(&[]).bind(|| insta::assert_snapshot!(name, page));
    }
}

#[test]
fn help_of_every_command_matches_snapshots() {
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        let pages = help_pages(command, &[name]);
        snapshot_settings(&[]).bind(|| insta::assert_snapshot!(format!("help-{name}"), pages));
    }
}

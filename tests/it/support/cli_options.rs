//! Options of a command and their help.

use clap::CommandFactory;
use predictd::cli::Cli;

use crate::support::daemon::predictd;

/// Asserts it of a command that measures; how many options it has.
pub(crate) fn count_options_with_env_var_and_default(command: &str) -> usize {
    let output = predictd(&[command, "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let mut options = 0;
    for argument in Cli::command().find_subcommand(command).unwrap().get_arguments() {
        let Some(name) = argument.get_long().filter(|&name| name != "help") else { continue };
        options += 1;
        let flag = format!("\n      --{name}");
        let mut parts = help.split(&flag);
        let part = parts.find(|part| part.starts_with([' ', '['])).unwrap_or_else(|| panic!("{name}: {help}"));
        let part = part.split("\n      --").next().unwrap();
        let variable = format!("[env: PREDICTD_{}=", name.to_uppercase().replace('-', "_"));
        assert!(part.contains(&variable) && part.contains("[default: "), "{name}: {part}");
    }
    options
}

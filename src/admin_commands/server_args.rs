//! Which server an operator's command talks to.

use clap::Args;
use reqwest::Url;

/// The server, and the right to change it.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The server's admin listener; unix:PATH for a Unix socket.
    #[arg(
        long,
        env = "PREDICTD_ADMIN_URL",
        default_value = "http://127.0.0.1:8001",
        value_name = "URL",
        global = true
    )]
    pub admin_url: Url,

    /// A key of the scope admin, if the server wants one. Better in the variable: others can read a command line.
    #[arg(long, env = "PREDICTD_API_KEY", hide_env_values = true, value_name = "KEY", global = true)]
    pub api_key: Option<String>,
}

//! `predictd health`: asks the server on this machine whether it is ready, for a container's health check.

#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use predictd_api::problem::ProblemDetail;
use predictd_http::listen_address::ListenAddress;
use predictd_registry::http_client;
use reqwest::Url;

use crate::error::ServerError;

/// Longest answer to a probe, in bytes.
const MAX_RESPONSE_BYTES: usize = 64 << 10;

/// `predictd health`.
#[derive(Debug, clap::Args)]
pub struct HealthCommand {
    /// Address of the admin listener, which answers probes under any load.
    #[arg(long, env = "PREDICTD_ADMIN_LISTEN", default_value = "127.0.0.1:8001", value_name = "ADDRESS:PORT")]
    pub admin_listen: ListenAddress,

    /// Ask this server instead, such as http://localhost:8000 [default: the admin listener].
    #[arg(long, value_name = "URL")]
    pub url: Option<Url>,

    /// Ask whether it lives (/livez), not whether it is ready (/readyz).
    #[arg(long)]
    pub live: bool,

    /// Time for the whole answer.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub timeout: Duration,
}

impl HealthCommand {
    /// Asks, and says what the answer was.
    ///
    /// # Errors
    /// A sentence, if the server does not answer, or not with 200.
    pub fn run(&self) -> Result<(), ServerError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServerError::runtime)?;
        let url = self.probe_url().map_err(ServerError::Configuration)?;
        runtime.block_on(self.send_probe(url)).map_err(ServerError::Runtime)
    }

    /// What is asked for.
    fn probe_url(&self) -> Result<Url, String> {
        let path = if self.live { "/livez" } else { "/readyz" };
        let server = if let Some(url) = &self.url {
            url.clone()
        } else {
            let authority = match &self.admin_listen {
                ListenAddress::Address(address) => {
                    SocketAddr::new(reachable_address(address.ip()), address.port()).to_string()
                }
                ListenAddress::Host(name, port) => format!("{name}:{port}"),
                ListenAddress::Unix(_) => "localhost".to_owned(),
            };
            Url::parse(&format!("http://{authority}")).map_err(|error| error.to_string())?
        };
        if !matches!(server.scheme(), "http" | "https") {
            return Err("--url: it must begin with http:// or https://".to_owned());
        }
        server.join(path).map_err(|error| format!("--url: {error}"))
    }

    async fn send_probe(&self, url: Url) -> Result<(), String> {
        let client = http_client::client_builder().timeout(self.timeout).no_proxy();
        let client = match (&self.url, &self.admin_listen) {
            (None, ListenAddress::Unix(path)) => client.unix_socket(path.as_path()),
            _ => client,
        };
        let client = client.build().map_err(|error| http_client::root_cause(&error))?;
        let answer = client.get(url).send().await.map_err(|error| {
            if error.is_timeout() {
                format!("the server did not answer within {}", humantime::format_duration(self.timeout))
            } else {
                format!("the server cannot be reached: {}", http_client::root_cause(&error))
            }
        })?;
        let status = answer.status().as_u16();
        let body = http_client::read_body(answer, MAX_RESPONSE_BYTES).await?;
        if status == 200 {
            return Ok(());
        }
        let problem = serde_json::from_slice::<ProblemDetail>(&body);
        let detail = problem.map_or_else(|_| "it does not say why".to_owned(), |problem| problem.detail);
        Err(format!("the server answered with {status}: {detail}"))
    }
}

/// The address that a listener of `address` can be reached at from this machine.
fn reachable_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        given => given,
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn probe_url(options: &[&str]) -> Result<String, String> {
        let all = ["predictd", "health"].into_iter().chain(options.iter().copied());
        let Command::Health(command) = Cli::parse_from(all).into_command() else { panic!("another command") };
        command.probe_url().map(String::from)
    }

    #[test]
    fn probe_url_from_options_names_listener_or_url() {
        assert_eq!(probe_url(&["--admin-listen", "0.0.0.0:9001"]).unwrap(), "http://127.0.0.1:9001/readyz");
        assert_eq!(probe_url(&["--admin-listen", "[::]:9001", "--live"]).unwrap(), "http://[::1]:9001/livez");
        assert_eq!(probe_url(&["--admin-listen", "10.0.0.1:1"]).unwrap(), "http://10.0.0.1:1/readyz");
        assert_eq!(probe_url(&["--admin-listen", "predictd.internal:1"]).unwrap(), "http://predictd.internal:1/readyz");
        assert_eq!(probe_url(&["--admin-listen", "unix:/run/admin.sock"]).unwrap(), "http://localhost/readyz");
        assert_eq!(probe_url(&["--url", "https://a.example/x"]).unwrap(), "https://a.example/readyz");
        assert!(probe_url(&["--url", "ftp://a.example"]).is_err());
    }
}

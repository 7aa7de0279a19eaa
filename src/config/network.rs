//! Where the server listens, and who may use it from where.

use super::cors::CorsOrigins;
use super::listen::ListenAddress;
use super::serve_args::ServeArgs;

/// The listeners, checked.
#[derive(Debug, Clone)]
pub(super) struct NetworkSettings {
    /// The data listener.
    pub(super) listen: ListenAddress,
    /// The admin listener.
    pub(super) admin_listen: ListenAddress,
    /// Names and addresses under which /admin answers besides its own address: those of --admin-hosts, and the name that
    /// the admin listener was given.
    pub(super) admin_hosts: Vec<String>,
    /// Origins of web pages that may use the data listener.
    pub(super) cors_origins: CorsOrigins,
}

impl NetworkSettings {
    /// What was typed.
    ///
    /// # Errors
    /// All that is wrong, a sentence each, with the option's name.
    pub(super) fn from_args(args: &ServeArgs) -> Result<Self, Vec<String>> {
        let listen = args.listen.resolve().map_err(|error| format!("--listen {error}"));
        let admin_listen = args.admin_listen.resolve().map_err(|error| format!("--admin-listen {error}"));
        let cors_origins = CorsOrigins::parse(&args.cors_origins);
        match (listen, admin_listen, cors_origins) {
            (Ok(listen), Ok(admin_listen), Ok(cors_origins)) => {
                let mut admin_hosts = args.admin_hosts.clone();
                if let ListenAddress::Host(name, _) = &args.admin_listen {
                    admin_hosts.push(name.trim_end_matches('.').to_owned());
                }
                Ok(Self { listen, admin_listen, admin_hosts, cors_origins })
            }
            (listen, admin_listen, cors_origins) => {
                Err([listen.err(), admin_listen.err(), cors_origins.err()].into_iter().flatten().collect())
            }
        }
    }
}

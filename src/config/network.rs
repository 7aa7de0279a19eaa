//! Where the server listens, and who may use it from where.

use predictd_http::cors_origins::CorsOrigins;
use predictd_http::listen_address::ListenAddress;
use predictd_http::settings::AccessSettings;

use super::parsers::non_empty_path;
use super::serve_args::ServeArgs;

/// Resolves the listeners, and the origins of web pages that may use the data listener.
///
/// # Errors
/// All that is wrong, a sentence each, with the option's name.
pub(super) fn resolve_access(args: &ServeArgs) -> Result<(AccessSettings, CorsOrigins), Vec<String>> {
    let listen = args.listen.resolve().map_err(|error| format!("--listen {error}"));
    let admin_listen = args.admin_listen.resolve().map_err(|error| format!("--admin-listen {error}"));
    let cors_origins = CorsOrigins::parse(&args.cors_origins);
    match (listen, admin_listen, cors_origins) {
        (Ok(listen), Ok(admin_listen), Ok(cors_origins)) => {
            let key_file = non_empty_path(args.keys.as_ref());
            let access = AccessSettings {
                listen,
                accept_mode: args.accept,
                admin_listen,
                admin_hosts: admin_hosts(args),
                is_key_file_explicit: key_file.is_some(),
                key_file: key_file.unwrap_or_else(|| args.data_dir.join("keys.toml")),
                allow_anonymous: args.allow_anonymous,
            };
            Ok((access, cors_origins))
        }
        (listen, admin_listen, cors_origins) => {
            Err([listen.err(), admin_listen.err(), cors_origins.err()].into_iter().flatten().collect())
        }
    }
}

/// Those of --admin-hosts, and the name that the admin listener was given.
fn admin_hosts(args: &ServeArgs) -> Vec<String> {
    let mut hosts = args.admin_hosts.clone();
    if let ListenAddress::Host(name, _) = &args.admin_listen {
        hosts.push(name.trim_end_matches('.').to_owned());
    }
    hosts
}

//! Where the server listens, and who may use it from where.

use predictd_http::listen_address::ListenAddress;
use predictd_http::settings::AccessSettings;

use super::parsers::is_set;
use super::serve_args::ServeArgs;

/// Resolves the listeners, and says who may use them.
///
/// Appends a sentence to `errors` for each address that cannot be used.
pub(super) fn resolve_access(args: &ServeArgs, errors: &mut Vec<String>) -> AccessSettings {
    let key_file = args.keys.clone().filter(is_set);
    AccessSettings {
        listen: resolve_address("--listen", &args.listen, errors),
        accept_mode: args.accept,
        admin_listen: resolve_address("--admin-listen", &args.admin_listen, errors),
        admin_hosts: admin_hosts(args),
        is_key_file_explicit: key_file.is_some(),
        key_file: key_file.unwrap_or_else(|| args.data_dir.join("keys.toml")),
        allow_anonymous: args.allow_anonymous,
    }
}

fn resolve_address(option: &str, address: &ListenAddress, errors: &mut Vec<String>) -> ListenAddress {
    address.resolve().unwrap_or_else(|error| {
        errors.push(format!("{option} {error}"));
        address.clone()
    })
}

/// Those of --admin-hosts, and the name that the admin listener was given.
fn admin_hosts(args: &ServeArgs) -> Vec<String> {
    let mut hosts = args.admin_hosts.clone();
    if let ListenAddress::Host(name, _) = &args.admin_listen {
        hosts.push(name.trim_end_matches('.').to_owned());
    }
    hosts
}

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
    let mut admin_hosts = args.admin_hosts.clone();
    // The name that the admin listener was given is one of them.
    if let ListenAddress::Host(name, _) = &args.admin_listen {
        admin_hosts.push(name.trim_end_matches('.').to_owned());
    }
    AccessSettings {
        listen: resolve_address("--listen", &args.listen, errors),
        accept_mode: args.accept,
        admin_listen: resolve_address("--admin-listen", &args.admin_listen, errors),
        admin_hosts,
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

//! Where the registry's database is, and how its password is found.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use reqwest::Url;

use super::parsers::{is_set, path_parser};

/// Longest password, in bytes, with the white space around it.
const MAX_PASSWORD_BYTES: u64 = 4 << 10;

/// Options for the registry's database.
#[derive(Debug, clap::Args)]
pub struct DatabaseArgs {
    /// Database of the registry: `postgres://USER:PASSWORD@HOST/NAME`, which replicas share [default: predictd.db in the data directory].
    #[arg(
        long,
        env = "PREDICTD_DATABASE",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true,
        value_name = "URL"
    )]
    pub database: String,

    /// File with the password of --database, which then has none [default: none].
    #[arg(long, env = "PREDICTD_DATABASE_PASSWORD_FILE", value_name = "FILE", value_parser = path_parser())]
    pub database_password_file: Option<PathBuf>,
}

/// The URL of a database, if one is given. It may hold a password: it is not quoted.
pub(super) fn resolve_url(args: &DatabaseArgs) -> Result<Option<String>, String> {
    let url = &args.database;
    let file = args.database_password_file.as_deref().filter(is_set);
    if url.is_empty() {
        return match file {
            None => Ok(None),
            Some(_) => Err("--database-password-file needs a --database".to_owned()),
        };
    }
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err("--database: the URL must begin with postgres://; without it a SQLite file in --data-dir is used"
            .to_owned());
    }
    let Some(file) = file else { return Ok(Some(url.clone())) };
    let mut url = Url::parse(url).map_err(|error| format!("--database: {error}"))?;
    if url.password().is_some() {
        return Err("--database has a password, and --database-password-file another: leave one out".to_owned());
    }
    let password =
        read_password_file(file).map_err(|error| format!("--database-password-file {}: {error}", file.display()))?;
    url.set_password(Some(&password)).map_err(|()| "--database: the URL has no host".to_owned())?;
    Ok(Some(url.into()))
}

/// What stands in the file, but for the white space around it.
fn read_password_file(file: &Path) -> io::Result<String> {
    let mut content = String::new();
    let read = File::open(file)?.take(MAX_PASSWORD_BYTES + 1).read_to_string(&mut content)?;
    if read as u64 > MAX_PASSWORD_BYTES {
        return Err(io::Error::other(format!("it is longer than {MAX_PASSWORD_BYTES} bytes")));
    }
    match content.trim() {
        "" => Err(io::Error::other("it is empty")),
        password => Ok(password.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(database: &str, password: Option<&str>) -> Result<Option<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        if let Some(password) = password {
            std::fs::write(&file, password).unwrap();
        }
        resolve_url(&DatabaseArgs { database: database.to_owned(), database_password_file: password.map(|_| file) })
    }

    #[test]
    fn database_url_gets_password_from_file() {
        let whole = "postgres://server:p%40ss%2F%20word@db:5432/predictd?sslmode=verify-full";
        let found = resolve("postgres://server@db:5432/predictd?sslmode=verify-full", Some("p@ss/ word\n"));
        assert_eq!(found.unwrap().as_deref(), Some(whole));
        assert_eq!(resolve(whole, None).unwrap().as_deref(), Some(whole));
        assert_eq!(resolve("", None).unwrap(), None);
    }

    #[test]
    fn database_options_conflicting_error_hides_secret() {
        let long = "x".repeat(5_000);
        for (url, password) in [
            ("", Some("secret")),
            ("mysql://secret@db/x", None),
            ("postgres://a:secret@db/x", Some("secret")),
            ("postgres://a@db/x", Some(" \n")),
            ("postgres://a@db/x", Some(&long)),
            ("postgres://a@db:secret/x", Some("x")),
        ] {
            let error = resolve(url, password).unwrap_err();
            assert!(error.starts_with("--database") && !error.contains("secret"), "{error}");
        }
        let missing = DatabaseArgs {
            database: "postgres://a@db/x".to_owned(),
            database_password_file: Some("/nowhere/password".into()),
        };
        assert!(resolve_url(&missing).unwrap_err().contains("/nowhere/password: No such file"));
    }
}
